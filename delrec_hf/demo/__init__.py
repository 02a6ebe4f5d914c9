"""A finished model on a page in the browser."""
