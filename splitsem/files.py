"""Files that the project writes: whole or not at all, readable by whom the umask lets, and shared between processes.

A store may be read-only, shared or full. Reading one needs no lock and no permission to write. What cannot be kept at
its place is kept at another one, which is said in one line.
"""

import contextlib
import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import filelock

from splitsem.errors import ConfigError

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)
CONF = Path(__file__).parent / "conf"  # the configuration: a folder of the package, in a checkout a link to conf/
T = TypeVar("T")
_NO_ROOM_BYTES = 1 << 18
_said: set[str] = set()  # lines that this process has warned of


def inventory_folder() -> Path:
    """Where ``workflow=profile hardware.save=NAME`` keeps machines: ``$SPLITSEM_INVENTORY``, else ``inventory``."""
    return Path(os.environ.get("SPLITSEM_INVENTORY", "inventory")).expanduser().absolute()


def own_option(group: str, option: str) -> Path | None:
    """The file of an option in a folder of options here, ``my_conf/codec/mine.yaml``; None where there is none."""
    try:
        found = sorted(path for path in Path().glob("*") if (path / group / f"{option}.yaml").is_file())
    except OSError:  # a folder that may not be read, or a name that is too long
        return None
    return found[0] / group / f"{option}.yaml" if found else None


def write_whole(content: bytes, path: str | Path) -> None:
    """Write a file whole or not at all; make missing folders. Raises OSError, or ConfigError like ``make_folder``."""
    path = Path(path)
    make_folder(path.parent)
    # Not by tempfile, whose files only their owner may read.
    scratch = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.part")
    try:
        with open(scratch, "xb") as file:
            file.write(content)
        os.replace(scratch, path)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def write_csv(table: "pandas.DataFrame", path: str | Path) -> None:
    """Write a table, without its index, whole or not at all. Raises like ``write_whole``."""
    write_whole(table.to_csv(index=False).encode(), path)


def make_folder(path: str | Path) -> None:
    """Make a folder and its parents. Raises ConfigError where something else stands in its place, else OSError."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        whole = path.absolute()
        other = next((p for p in (*reversed(whole.parents), whole) if os.path.lexists(p) and not p.is_dir()), path)
        kind = f"a link to {os.readlink(other)}, which is no folder" if other.is_symlink() else "not a folder"
        raise ConfigError(f"{path} must be a folder, but {other} is {kind}; name another folder") from exc


def reason(exc: OSError, *places: str | Path) -> str:
    """What the disk said, on one line, with the file where it is known.

    Args:
        exc: of a full disk, it seldom knows the file.
        places: folders that were written to, of which those on a full disk are named then.
    """
    said = exc.strerror or str(exc) or type(exc).__name__
    if is_full(exc) and places:
        full = [str(place) for place in places if _free_bytes(Path(place)) < _NO_ROOM_BYTES] or [str(places[0])]
        return f"{said} in {' and in '.join(full)}"
    return f"{exc.filename}: {said}" if exc.filename else said


def is_full(exc: BaseException | None) -> bool:
    """Whether a disk, or what a user may have of it, is full."""
    return isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)


def _free_bytes(place: Path) -> int:
    """Of the disk that a folder lies on, or would lie on."""
    return shutil.disk_usage(next(p for p in (place, *place.absolute().parents) if p.exists())).free


@contextlib.contextmanager
def locked(path: Path, waits: bool = True, others: Sequence[Path] = ()) -> Iterator[bool]:
    """Hold ``path`` against other processes that do the same, by the file ``<path>.lock``, as far as the disk lets.

    Where no lock can be had (no permission, no space, a network disk without locks), processes do not wait for each
    other: work may be done twice, and the last result stays.

    Args:
        path: names what is held.
        waits: for a process that holds it; else False is yielded at once, and nothing is held.
        others: what is held instead, the first that can be, where no lock of ``path`` can be had.
    """
    held = None
    for place in (path, *others):
        lock = filelock.FileLock(f"{place}.lock")
        try:
            make_folder(place.parent)
            lock.acquire(blocking=waits)
        except filelock.Timeout:
            yield False
            return
        except (OSError, NotImplementedError, ConfigError) as exc:
            log.debug("%s has no lock: %s", place, exc)
            continue
        held = lock
        break
    try:
        yield True
    finally:
        if held:
            held.release()


def read_or_make(
    places: Sequence[Path], read: Callable[[Path], T], make: Callable[[], T], write: Callable[[T, Path], None]
) -> tuple[T, Path | None]:
    """What one of the files holds; if there is none, it is made, and kept at the first place that can be written.

    Several processes may ask at one time: the first one makes it, the rest wait and read. A damaged file is replaced.

    Args:
        places: paths of the file, the usual one first.
        read: reads a file; raises ConfigError where the file is damaged.
        make: makes what the file shall hold.
        write: writes it whole or not at all; raises OSError.

    Returns:
        What the file holds, and its path; None where it could be kept nowhere.

    Raises:
        ConfigError: something that is no folder stands in place of the usual file's folder.
    """
    damaged: set[Path] = set()
    if (found := _first(places, read, damaged)) is not None:
        return found
    with contextlib.suppress(OSError):
        make_folder(places[0].parent)
    with locked(places[0], others=places[1:]):
        for place in places:  # over NFS, to open a folder asks the server for what other machines have put there
            with contextlib.suppress(OSError), os.scandir(place.parent):
                pass
        if (found := _first(places, read, damaged)) is not None:
            return found
        made = make()
        for place in places:
            try:
                write(made, place)
            except OSError as exc:
                _warn_once(f"Not kept in {place.parent} ({exc.strerror or exc})")
                continue
            if place != places[0]:
                _warn_once(f"Kept in {place.parent} instead")
            return made, place
    return made, None


def _warn_once(line: str) -> None:
    """Say it unless this process has: a full store is one fact, however much it does not keep."""
    if line not in _said:
        _said.add(line)
        log.warning("%s", line)


def _first(places: Sequence[Path], read: Callable[[Path], T], damaged: set[Path]) -> tuple[T, Path] | None:
    for place in places:
        if place not in damaged and os.path.isfile(place):
            try:
                return read(place), place
            except ConfigError as exc:
                damaged.add(place)
                log.warning("Made again: %s", exc)
    return None
