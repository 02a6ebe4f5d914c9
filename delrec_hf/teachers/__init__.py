"""Conventional sequential recommenders and the scores they give."""
