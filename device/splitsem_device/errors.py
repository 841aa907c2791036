"""The exceptions a user can meet, but for those of torch's own parts; ``splitsem.errors`` has the whole tree.

Bad constructor arguments raise ValueError with the argument's name, the rule and the value.
"""


class SplitSemError(Exception):
    """Base of all errors that splitsem raises on purpose; a user sees its one line."""


class ConfigError(SplitSemError):
    """A setting, file or folder is missing or makes no sense; the message says what to do."""


class SplitPointError(SplitSemError):
    """The named split point does not exist; the message lists those that do."""


class PayloadError(SplitSemError):
    """The bytes are not a whole, undamaged payload: what was expected and what came."""


class FunctionError(SplitSemError):
    """A function that a server offers raised an exception, whose type and message this repeats; it is not retried."""


class LinkError(SplitSemError):
    """The link is dead: the peer, its status and how many tries were made."""


class BusyError(LinkError):
    """The server has no room for this client or trainer, or is measuring itself: ask again later."""


class SessionError(LinkError):
    """The server was restarted or made room, and does not know the session: open the plan again."""
