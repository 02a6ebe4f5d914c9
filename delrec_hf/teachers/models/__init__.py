"""The neural teachers as PreTrainedModels."""
