"""Ends a program quietly when what reads its standard output, such as ``| head -1``, has had enough."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STATUS = 141
"""The exit status then: that of a program which the signal SIGPIPE ends."""


@contextmanager
def quiet() -> Iterator[None]:
    """Exits with ``STATUS`` and says nothing when standard output is a pipe that nobody reads; also a decorator.

    Raises:
        BrokenPipeError: of any other pipe, which is no user's wish.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # None: closed when the program began
                sys.stdout.flush()  # here, since what is flushed when Python ends cannot be caught
    except BrokenPipeError:
        if not _is_unread(sys.stdout.fileno()):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(STATUS)


def _is_unread(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
