"""All photographs that can be got, in one folder."""

import atexit
import shutil
import tempfile

from splitsem.data import shelf


def folder() -> str:
    """A folder with copies of both collections, which is removed when this process ends. Raises DataError."""
    made = tempfile.mkdtemp(prefix="photographs-")
    atexit.register(shutil.rmtree, made)
    for name in ("photographs", "more-photographs"):
        shutil.copytree(shelf.path(name), made, dirs_exist_ok=True)
    return made
