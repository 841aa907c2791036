"""The C files of this package, and a name for what they say now; the build and the loader of the library read it."""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent
LIBRARY = FOLDER / "libsplitsem.so"  # so named on every system: ctypes takes any name


def c_files() -> list[Path]:
    """All C files."""
    return sorted(FOLDER.rglob("*.c"))


def digest() -> str:
    """A hash of the C files and their headers; the library holds that of the files it was made of."""
    hashed = hashlib.sha256()
    for path in sorted(FOLDER.rglob("*.[ch]")):
        hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()
