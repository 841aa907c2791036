"""What ``import splitsem`` offers beyond the parts themselves; ``splitsem/__init__.py`` lists all of it."""
