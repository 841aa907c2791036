"""Doctor: reports on Python, torch, accelerators, data and services here, and says how to get what is missing.

python -m splitsem.workflows.doctor
"""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import psutil
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from splitsem import extras
from splitsem.data.entries import ENTRIES
from splitsem.data.shelf import named, where
from splitsem.errors import ConfigError
from splitsem.placement import built_for, describe_machine
from splitsem.workflows.tracking import Mlflow
from splitsem_device.compiled import library
from splitsem_device.sources import LIBRARY

State = Literal["ok", "info", "missing"]

_LOW_DISK_BYTES = 5e9
_CONNECT_TIMEOUT_S = 1.0
_HTTP_PORTS = {"http": 80, "https": 443}


class Finding(NamedTuple):
    """One line of the report: what was checked, its status, what was found, and what to do (empty if nothing)."""

    what: str
    state: State
    found: str
    hint: str = ""


def report(folder: str | Path = ".") -> list[Finding]:
    """Check this process, this machine and ``folder``; takes a few seconds at most and changes nothing."""
    folder = Path(folder).resolve()
    return [
        _python(),
        _extras("extras", extras.IN_ALL),
        _extras("further extras", [extra for extra in extras.PACKAGES if extra not in extras.IN_ALL]),
        Finding("torch", "ok", f"{torch.__version__}, built for {built_for()}"),
        _gpu(),
        _processor(),
        _fashion_mnist(),
        _data(),
        _tracking(folder),
        _disk(folder),
        _compiled(),
    ]


def main() -> None:
    """Print the report as a table; the exit status is 0 even if something is missing."""
    marks = {"ok": "[green]ok[/]", "info": "[cyan]info[/]", "missing": "[yellow]missing[/]"}
    table = Table(title="splitsem doctor", title_justify="left")
    for column in ("what", "state", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in report():
        table.add_row(finding.what, marks[finding.state], escape(finding.found), escape(finding.hint))
    Console().print(table)


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.prefix}"
    if sys.prefix == sys.base_prefix:
        return Finding("Python", "info", found, "not in a virtual environment; `make setup` makes .venv")
    return Finding("Python", "ok", found)


def _extras(what: str, names: Sequence[str]) -> Finding:
    """What is not installed, by extra; no run needs all of it, and each says what it needs."""
    lacking = {extra: packages for extra, packages in extras.missing().items() if extra in names and packages}
    if not lacking:
        return Finding(what, "ok", f"all of {', '.join(names)}")
    found = "; ".join(f"{extra}: no {', '.join(packages)}" for extra, packages in lacking.items())
    return Finding(what, "info", found, f"pip install 'splitsem[{','.join(lacking)}]' where you need them")


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        hint = "" if built_for() == "the CPU only" else "no driver or no GPU; everything runs on the CPU"
        return Finding("GPU", "info", "none that torch can use", hint)
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("GPU", "ok", ", ".join(names), "device=auto takes the first")


def _processor() -> Finding:
    memory = psutil.virtual_memory()
    found = (
        f"{describe_machine()['processor']}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, "
        f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB memory free"
    )
    return Finding("processor", "ok", found)


def _fashion_mnist() -> Finding:
    if (folder := where(named("fashion-mnist"))) is not None:
        return Finding("Fashion-MNIST", "ok", str(folder))
    return Finding("Fashion-MNIST", "missing", "in no place that is known", "`make data`, or task.root=FOLDER")


def _data() -> Finding:
    here = [entry.name for entry in ENTRIES if where(entry) is not None]
    found = f"{len(here)} of {len(ENTRIES)}: {', '.join(here) or 'none'}"
    hint = "" if len(here) == len(ENTRIES) else "`make data` gets what tests need"
    return Finding("real data", "info", found, hint)


def _tracking(folder: Path) -> Finding:
    if not extras.has("tracking"):
        return Finding("MLflow", "info", "not installed", "run with tracking=none")
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        store = folder / "outputs" / "mlflow" / "mlflow.db"
        found = (
            f"{store}, {store.stat().st_size / 1e6:.1f} MB" if store.is_file() else "a file that the first run makes"
        )
        shown_by = Mlflow(None, "splitsem", str(store.parent)).shown_by
        return Finding("MLflow", "ok", found, f"`{shown_by}` shows it; MLFLOW_TRACKING_URI names a server instead")
    parts = urlsplit(uri)
    if parts.scheme not in _HTTP_PORTS:
        return Finding("MLflow", "info", f"MLFLOW_TRACKING_URI names a {parts.scheme or 'file'} store")
    try:
        host, port = parts.hostname or "", parts.port or _HTTP_PORTS[parts.scheme]
    except ValueError as exc:
        return Finding("MLflow", "missing", f"MLFLOW_TRACKING_URI is not a URI: {exc}", "correct or unset it")
    server = f"{parts.scheme}://{host}:{port}"  # without the user and password that the URI may hold
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as exc:
        return Finding("MLflow", "missing", f"no answer from {server}: {exc}", "start it, or unset MLFLOW_TRACKING_URI")
    return Finding("MLflow", "ok", f"{server} answers")


def _disk(folder: Path) -> Finding:
    free_bytes = shutil.disk_usage(folder).free
    found = f"{free_bytes / 1e9:.1f} GB free under {folder}"
    if free_bytes < _LOW_DISK_BYTES:
        return Finding("disk", "missing", found, "runs and weights need a few GB; remove old outputs/ and multirun/")
    return Finding("disk", "ok", found)


def _compiled() -> Finding:
    try:
        library()
    except ConfigError as exc:
        found, _, remedy = str(exc).rpartition(": ")
        return Finding("compiled coders", "missing", found, remedy)
    return Finding("compiled coders", "ok", str(LIBRARY))


if __name__ == "__main__":
    main()
