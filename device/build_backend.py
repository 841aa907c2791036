"""Builds splitsem-device: setuptools, which also compiles the C files into ``splitsem_device/libsplitsem.so``.

The compiler is ``$CC``, else the system's ``cc`` where it works, else that of the PyPI package ziglang. The latter also
compiles for other machines: ``pip wheel --no-deps --config-settings target=aarch64 ./device``, with one of ``TARGETS``.
``python device/build_backend.py`` compiles into the checkout and installs nothing.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import build_editable as build_editable
from setuptools.build_meta import build_sdist as build_sdist
from setuptools.build_meta import get_requires_for_build_sdist as get_requires_for_build_sdist
from setuptools.build_meta import prepare_metadata_for_build_editable as prepare_metadata_for_build_editable
from setuptools.build_meta import prepare_metadata_for_build_wheel as prepare_metadata_for_build_wheel
from setuptools.command.build_py import build_py

from splitsem_device import sources

TARGETS = {  # machines that wheels can be built for: zig's name (with the oldest glibc), and the wheel's
    "x86_64": ("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64"),
    "aarch64": ("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64"),
    "armv7l": ("arm-linux-gnueabihf.2.17", "manylinux_2_17_armv7l"),
}
# nothing fused: what an encoder chooses must be the same on every machine
FLAGS = ("-std=c11", "-O3", "-g0", "-ffp-contract=off", "-shared", "-fPIC")
_TARGET = "SPLITSEM_DEVICE_TARGET"  # how a hook tells setuptools' command, in this process
_WORKS = "#include <stdint.h>\n#include <stdlib.h>\nint64_t made(void) { return 1; }\n"

Settings = Mapping[str, Any] | None


class CompiledBuild(build_py):
    """Copies the Python files, and compiles the C files."""

    def run(self) -> None:
        """See build_py; an editable installation gets its library in the checkout."""
        super().run()
        folder = sources.FOLDER if self.editable_mode else Path(self.build_lib, sources.FOLDER.name)
        compile_library(folder / sources.LIBRARY.name, os.environ.get(_TARGET, ""))


def compile_library(library: Path, target: str = "") -> None:
    """Compile the package's C files into ``library``, for this machine or for one of ``TARGETS``."""
    command = _zig(target) if target else _working_compiler() or _zig()
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder, "sources.c")
        named.write_text(f'const char splitsem_sources[] = "{sources.digest()}";\n')
        new = library.with_suffix(".new")
        done = _compile(command, [named, *sources.c_files()], new)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} does not compile the C files:\n{done.stderr}")
    new.replace(library)  # in one step: a process that has loaded the old file keeps it


def _compile(command: Sequence[str], files: Sequence[Path], made: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *FLAGS, "-o", made, *files], capture_output=True, text=True)


def _working_compiler() -> list[str]:
    """``$CC``, taken at its word, or the system's compiler where it compiles something; else nothing."""
    if given := shlex.split(os.environ.get("CC", "")):
        return given
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            with tempfile.TemporaryDirectory() as folder:
                tried = Path(folder, "tried.c")
                tried.write_text(_WORKS)
                if not _compile([name], [tried], Path(folder, "tried.so")).returncode:
                    return [name]
    return []


def _zig(target: str = "") -> list[str]:
    if importlib.util.find_spec("ziglang") is None:
        sys.exit("no C compiler: set CC to one, or python -m pip install ziglang")
    chosen = ("-target", TARGETS[target][0]) if target else ()
    return [sys.executable, "-m", "ziglang", "cc", *chosen, "-fno-sanitize=all", "-Wl,-s"]


def _needed(config_settings: Settings) -> list[str]:
    return [] if not _target(config_settings) and _working_compiler() else ["ziglang"]


def _target(config_settings: Settings) -> str:
    target = str((config_settings or {}).get("target", ""))
    if target and target not in TARGETS:
        sys.exit(f"target must be one of {', '.join(TARGETS)}, got {target}")
    return target


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """See PEP 517; the package ziglang is asked for where it has to compile."""
    return [*build_meta.get_requires_for_build_wheel(), *_needed(config_settings)]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """See PEP 660."""
    return [*build_meta.get_requires_for_build_editable(), *_needed(None)]


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """See PEP 517; the wheel is for every Python 3 on this platform, or on that of the setting ``target``."""
    target = _target(config_settings)
    platform = TARGETS[target][1] if target else _this_platform()
    os.environ[_TARGET] = target
    shutil.rmtree("build", ignore_errors=True)  # what an earlier build left there would go into this wheel
    options = {"--build-option": ["--plat-name", platform]}
    return build_meta.build_wheel(wheel_directory, options, metadata_directory)


def _this_platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    compile_library(sources.LIBRARY)
