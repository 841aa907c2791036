"""Cost: what a machine, a link and a cut take in seconds and joules."""
