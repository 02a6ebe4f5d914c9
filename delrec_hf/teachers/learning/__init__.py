"""How a neural teacher is trained."""
