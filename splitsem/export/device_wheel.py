"""The wheel of splitsem-device for a board, built from the checkout and kept for later starts."""

import hashlib
import importlib.util
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from splitsem.errors import ConfigError
from splitsem.files import locked, make_folder
from splitsem_device.peer_text import shown
from splitsem_device.sources import FOLDER

log = logging.getLogger(__name__)
_OLDEST_SETUPTOOLS = 77  # see device/pyproject.toml
_NO_SOURCES = shutil.ignore_patterns("build", "tests", "__pycache__", "*.egg-info", "*.so")
_EPOCH = "315532800"  # 1980, as old as a .zip knows: equal sources make equal wheels


def built(machine: str, cache: Path) -> Path:
    """The wheel for a board; equal sources are built once.

    Args:
        machine: the board's processor, as wheels name it.
        cache: folder that keeps wheels.

    Raises:
        ConfigError: there is no checkout, no compiler for this processor, or the build fails.
    """
    project = FOLDER.parent
    if not (project / "build_backend.py").exists():
        raise ConfigError("splitsem-device is installed here without its sources: give its wheel, workflow.wheel=FILE")
    is_here = machine == platform.machine()
    target = "" if is_here and importlib.util.find_spec("ziglang") is None else machine
    folder = cache / "device_wheels" / f"{_digest(project)[:16]}-{target or f'{machine}-native'}"
    make_folder(folder.parent)
    with locked(folder):
        if not any(folder.glob("*.whl")):
            log.info("Building the wheel of splitsem-device for %s", machine)
            _build(project, target, folder)
    return next(folder.glob("*.whl"))


def _build(project: Path, target: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps"]
    command += ["--config-settings", f"target={target}"] if target else []
    command += ["--no-build-isolation"] if _has_what_it_takes(target) else []  # else it needs a package index
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        sources = Path(scratch, "device")  # a copy, since a build writes beside its sources
        shutil.copytree(project, sources, ignore=_NO_SOURCES)
        done = subprocess.run(
            [*command, "-w", scratch, str(sources)],
            env=os.environ | {"SOURCE_DATE_EPOCH": _EPOCH},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ConfigError(f"the wheel of splitsem-device cannot be built: {_why(done.stdout + done.stderr)}")
        folder.mkdir(exist_ok=True)
        for wheel in Path(scratch).glob("*.whl"):
            wheel.rename(folder / wheel.name)


def _why(output: str) -> str:
    """The line of pip's output that tells the reason."""
    found = re.search(r"target must be .*|no C compiler.*|No module named .*|.*No matching distribution.*", output)
    lines = [line.strip() for line in output.splitlines() if "error" in line.lower()]
    return shown(found[0].strip() if found else lines[-1] if lines else "pip said nothing", 500)


def _has_what_it_takes(target: str) -> bool:
    try:
        setuptools = int(version("setuptools").partition(".")[0])
    except PackageNotFoundError:
        return False
    return setuptools >= _OLDEST_SETUPTOOLS and (not target or importlib.util.find_spec("ziglang") is not None)


def _digest(project: Path) -> str:
    hashed = hashlib.sha256()
    files = [*(one for one in project.iterdir() if one.is_file()), *FOLDER.rglob("*.py"), *FOLDER.rglob("*.[ch]")]
    for path in sorted(files):
        content = path.read_bytes()
        hashed.update(f"{path.relative_to(project)} {len(content)}\n".encode() + content)
    return hashed.hexdigest()
