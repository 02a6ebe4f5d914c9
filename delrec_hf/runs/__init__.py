"""Recipes, and the stages that carry them out in a run's folder."""
