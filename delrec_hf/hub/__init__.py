"""Model cards and pushing."""
