"""Plots: a DataFrame in, a Figure out; and the HTML report."""
