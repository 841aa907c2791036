"""Splitting: the cut points of any model, and its head and tail."""
