"""Report: a DataFrame in, a Figure or a page out. Nothing here runs a model."""
