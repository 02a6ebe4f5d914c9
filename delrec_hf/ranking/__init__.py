"""Scores of titles under a language model."""
