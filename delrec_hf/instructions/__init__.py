"""Histories worded as chat messages, and the messages as token ids."""
