"""The exceptions a user can meet, but for those of torch's own parts; ``splitsem.errors`` has the whole tree.

Each has a code, which the command shows behind its line, and which the page of error messages explains. Bad
constructor arguments raise ValueError with the argument's name, the rule and the value.
"""

import re
from typing import ClassVar

_CODED = re.compile(r" \[E-[A-Z-]+\]$")


class SplitSemError(Exception):
    """Base of all errors that splitsem raises on purpose; a user sees its one line."""

    code: ClassVar[str] = "E-SPLITSEM"


class ConfigError(SplitSemError):
    """A setting, file or folder is missing or makes no sense; the message says what to do."""

    code = "E-CONFIG"


class BundleError(ConfigError):
    """A bundle for a board is missing, damaged or of another version."""

    code = "E-BUNDLE"


class SecurityError(ConfigError):
    """TLS is not set up: a certificate, key or token is missing, or an address would be served in the clear."""

    code = "E-SECURITY"


class SplitPointError(SplitSemError):
    """The named split point does not exist; the message lists those that do."""

    code = "E-SPLIT-POINT"


class PayloadError(SplitSemError):
    """The bytes are not a whole, undamaged payload: what was expected and what came."""

    code = "E-PAYLOAD"


class FunctionError(SplitSemError):
    """A function that a server offers raised an exception, whose type and message this repeats; it is not retried."""

    code = "E-FUNCTION"


class LinkError(SplitSemError):
    """The link is dead: the peer, its status and how many tries were made."""

    code = "E-LINK"


class BusyError(LinkError):
    """The server has no room for this client or trainer, or is measuring itself: ask again later."""

    code = "E-BUSY"


class TokenError(LinkError):
    """The server asks for a token, and this end shows none or another."""

    code = "E-TOKEN"


class SessionError(LinkError):
    """The server was restarted or made room, and does not know the session: open the plan again."""

    code = "E-SESSION"


def coded(line: object, code: str) -> str:
    """A line with the code behind it, once.

    >>> coded("no such point", "E-SPLIT-POINT")
    'no such point [E-SPLIT-POINT]'
    >>> coded("codec: no such point [E-SPLIT-POINT]", "E-CONFIG")
    'codec: no such point [E-SPLIT-POINT]'
    """
    return str(line) if _CODED.search(str(line)) else f"{line} [{code}]"
