"""Real networks and real inputs out of packages of registries: `python -m splitsem.data list`."""

from splitsem.data.shelf import path

__all__ = ["path"]
