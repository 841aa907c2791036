"""SplitGraph: any model as a graph of operations that can be cut in two."""
