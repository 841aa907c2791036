"""The shelf: the folder of a checkout where real networks and inputs lie once they were got, and how they get there."""

import contextlib
import json
import os
import shutil
from pathlib import Path

from splitsem.data.archives import Downloads
from splitsem.data.entries import ENTRIES, Entry
from splitsem.errors import DataError
from splitsem.files import locked, make_folder, reason, write_whole

SETTING = "SPLITSEM_DATA"
"""The environment variable that names the folder of the data, for runs from anywhere."""
_ABOUT = "about.json"


def home() -> Path:
    """The folder of the data: what ``SPLITSEM_DATA`` names, else ``.cache/data`` of the working folder."""
    return Path(os.environ.get(SETTING) or ".cache/data")


def path(name: str) -> Path:
    """The folder with the files of an entry. Nothing is fetched.

    Raises:
        DataError: there is no such entry, or it is not here, or not whole; with the command that gets it.
    """
    entry = named(name)
    folder = where(entry)
    if folder is None:
        raise DataError(
            f"{name} is not in {(home() / name).absolute()}: `python -m splitsem.data get {name}` gets it "
            f"({entry.num_bytes() / 1e6:.1f} MB); {SETTING}=FOLDER names the folder of data that were got elsewhere"
        )
    return folder


def named(name: str) -> Entry:
    """The entry of a name. Raises DataError that lists all names."""
    for entry in ENTRIES:
        if entry.name == name:
            return entry
    raise DataError(f"no data are called {name!r}; there are {', '.join(entry.name for entry in ENTRIES)}")


def where(entry: Entry) -> Path | None:
    """The folder that holds all files of an entry; None where none does."""
    if entry.installed is not None and _is_whole(entry.installed, entry):
        return entry.installed
    kept = home() / entry.name
    return kept if _is_whole(kept, entry) and _is_this(kept, entry) else None


def _is_whole(folder: Path, entry: Entry) -> bool:
    """Whether all files are there, by their sizes; their hashes were checked when they were got."""
    with contextlib.suppress(OSError):
        return all((folder / name).stat().st_size == num_bytes for name, (num_bytes, _) in entry.files().items())
    return False


def _is_this(folder: Path, entry: Entry) -> bool:
    with contextlib.suppress(OSError):
        return (folder / _ABOUT).read_bytes() == _about(entry).encode()
    return False


def get(entry: Entry, downloads: Downloads) -> Path:
    """Get an entry, unless it is here, and say where it is: whole and checked, or not at all.

    Raises:
        DataError: it cannot be had, is not what is known here, or cannot be written; one line says why.
    """
    folder = home()
    kept, scratch = folder / entry.name, folder / f".{entry.name}.part"
    try:
        make_folder(folder)
        with locked(folder / entry.name):
            if (found := where(entry)) is not None:
                return found
            content = {name: data for source in entry.sources for name, data in downloads.take(source).items()}
            shutil.rmtree(scratch, ignore_errors=True)  # of one who was stopped here
            try:
                for name, data in content.items():
                    write_whole(data, scratch / name)
                write_whole(_about(entry).encode(), scratch / _ABOUT)
                if kept.exists():
                    shutil.rmtree(kept)
                scratch.rename(kept)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as exc:
        raise DataError(f"{entry.name} cannot be kept in {kept}: {reason(exc)}") from exc
    return kept


def _about(entry: Entry) -> str:
    """The page that is kept beside the files: what, source, version, licence, sizes, hashes."""
    return json.dumps(
        {
            "name": entry.name,
            "what": entry.what,
            "licence": entry.licence,
            "sources": [
                {"kind": source.kind, "package": source.package, "version": source.version, "folder": source.folder}
                for source in entry.sources
            ],
            "files": {
                name: {"bytes": num_bytes, "sha256": sha256} for name, (num_bytes, sha256) in entry.files().items()
            },
        },
        indent=1,
    )
