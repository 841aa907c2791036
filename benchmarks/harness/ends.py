"""The two ends of a benchmark as separate processes, on this machine or in the namespaces of a line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from harness.line import SERVER_ADDRESS, Line, environment

ROOT = Path(__file__).parents[2]
_START_S = 180.0
BRIEFLY = ["device=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "tracking=none"]
"""Settings for a network whose score does not matter."""


@contextmanager
def running_server(
    folder: Path, overrides: Sequence[str], line: Line | None = None, core: int | None = None
) -> Iterator[str]:
    """Run ``workflow=serve`` while the context lasts, on one ``core`` or any; gives the address to connect to."""
    bind = f"{SERVER_ADDRESS if line else '127.0.0.1'}:0"
    folder.mkdir(parents=True)
    command = [*_on(core), sys.executable, str(ROOT / "run.py"), "workflow=serve", f"transport.bind={bind}", *overrides]
    if line:
        command.append("transport.security.insecure=true")
    with (folder / "log.txt").open("w") as log:
        process = _start(line, line.server if line else "", [*command, f"hydra.run.dir={folder}"], log, log)
    try:
        address, give_up = folder / "address.txt", time.monotonic() + _START_S
        while not (address.exists() and address.read_text().endswith("\n")):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"the server did not start: {(folder / 'log.txt').read_text()}")
            time.sleep(0.1)
        yield address.read_text().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def device_says(script: str, arguments: dict[str, Any], line: Line | None = None, core: int | None = None) -> Any:
    """The last line that ``python SCRIPT ARGUMENTS_AS_JSON``, on one ``core`` or any, prints, read as JSON."""
    command = [*_on(core), sys.executable, script, json.dumps(arguments)]
    process = _start(line, line.device if line else "", command, subprocess.PIPE, subprocess.PIPE)
    out, err = process.communicate(timeout=1200)
    if process.returncode:
        raise RuntimeError(f"the device failed: {err}")
    return json.loads(out.splitlines()[-1])


def configured(address: str, overrides: Sequence[str], has_line: bool) -> DictConfig:
    """The configuration of ``workflow=offload`` to the server at ``address``, for this process."""
    extra = ["transport.security.insecure=true"] if has_line else []
    return composed(["workflow=offload", f"transport.target={address}", *extra, *overrides])


def composed(overrides: Sequence[str]) -> DictConfig:
    """A configuration as ``run.py`` composes it, for this process."""
    torch.set_num_threads(1)
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def stop_cleanly() -> None:
    """Let SIGTERM also end the processes that were started here."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def state_of_the_machine() -> str:
    """Load, date and versions, to print above figures."""
    import grpc

    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return f"{now} UTC, {os.cpu_count()} cores, load {load}, torch {torch.__version__}, grpcio {grpc.__version__}"


def _on(core: int | None) -> list[str]:
    return [] if core is None else ["taskset", "-c", str(core)]


def _start(line: Line | None, namespace: str, command: list[str], stdout: Any, stderr: Any) -> subprocess.Popen[str]:
    settings = {"cwd": ROOT, "env": environment(), "stdout": stdout, "stderr": stderr}
    if line is not None:
        return line.start(namespace, command, **settings)
    return subprocess.Popen(command, text=True, **settings)
