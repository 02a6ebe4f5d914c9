"""The backbone, the soft prompt and LoRA stacked on it."""
