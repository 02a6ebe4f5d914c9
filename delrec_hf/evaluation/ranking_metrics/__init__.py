"""The ranking metrics as a module of Hugging Face `evaluate`."""
