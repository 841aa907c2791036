"""Detectors: networks that are cut, and what follows them as it is: decoding of boxes, non-maximum suppression."""
