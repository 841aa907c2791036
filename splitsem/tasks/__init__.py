"""Tasks: what a network is for — data, loss and score, one task a file."""
