"""The program splitsem-device: runs a bundle, checks it, and times it, on a machine without torch."""
