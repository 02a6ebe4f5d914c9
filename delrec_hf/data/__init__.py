"""Interactions in, prepared examples out."""
