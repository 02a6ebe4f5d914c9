"""The one label that stands for no label."""

IGNORED = -100
"""What transformers' and PyTorch's losses leave out."""
