"""splitsem: cut a network in two, send real bytes between the halves, and report what it costs."""

__version__ = "0.1.0"
