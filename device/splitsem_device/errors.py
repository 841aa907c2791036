"""The exceptions that need no torch; ``splitsem.errors`` has the whole tree.

Bad constructor arguments raise ValueError with the argument's name, the rule and the value.
"""


class SplitSemError(Exception):
    """Base of all errors that splitsem raises on purpose; a user sees its one line."""


class ConfigError(SplitSemError):
    """A setting, file or folder is missing or makes no sense; the message says what to do."""


class PayloadError(SplitSemError):
    """The bytes are not a whole, undamaged payload: what was expected and what came."""
