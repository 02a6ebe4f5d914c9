"""What lists of recommendations are like, as a module of Hugging Face `evaluate`."""
