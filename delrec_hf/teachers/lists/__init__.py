"""Ranked lists of any other recommender as a teacher, and their checks."""
