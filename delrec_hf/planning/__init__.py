"""What a recipe will cost, before anything starts."""
