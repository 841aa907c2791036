"""How long something goes on, told while it does; imported by every sweep, so it imports nothing heavy."""

_SOON_S = 5.0  # what ends sooner needs no telling


def time_left(passed_s: float, done: int, total: int) -> str:
    """The time that the rest takes at the pace so far; empty where that is not worth a word.

    Args:
        passed_s: seconds since the first part began.
        done: parts that are over.
        total: all parts, alike in size.

    >>> time_left(20.0, 2, 6), time_left(600.0, 2, 6), time_left(20_000.0, 2, 6), time_left(1.0, 2, 3)
    ('about 40 s left', 'about 20 min left', 'about 11.1 h left', '')
    """
    if not 0 < done < total or passed_s * total / done < _SOON_S:
        return ""
    left_s = passed_s * (total - done) / done
    if left_s < 100:
        return f"about {left_s:.0f} s left"
    return f"about {left_s / 60:.0f} min left" if left_s < 5400 else f"about {left_s / 3600:.1f} h left"
