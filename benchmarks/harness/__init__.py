"""Tools with which several benchmarks and tests measure."""
