"""What the other end said, made fit for one line of a message or a log."""

MOST_CHARS = 200


def shown(text: object, most: int = MOST_CHARS) -> str:
    """The text in one line of at most ``most`` characters; control characters are escaped, what is left out is counted.

    >>> shown("stage1")
    'stage1'
    >>> shown("a\\nb")
    'a\\\\nb'
    >>> shown("x" * 300, most=3)
    'xxx… (297 more)'
    """
    whole = str(text)
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole[:most])[:most]
    return line if len(whole) <= most else f"{line}… ({len(whole) - most} more)"


def shown_lines(text: object, most_lines: int = 16, most: int = 1000) -> str:
    """As ``shown``, for text of several lines, which stay lines.

    >>> shown_lines("a\\nb\\x1b")
    'a\\nb\\\\x1b'
    """
    return "\n".join(shown(line, most) for line in str(text).split("\n")[:most_lines])
