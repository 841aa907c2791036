"""workflow=board against a real sshd of this test's own: the board is a Python without packages."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from splitsem.errors import ConfigError
from splitsem.remote.ssh_board import SshBoard
from splitsem.remote.ssh_inventory import Host, load
from tests.conftest import ENVIRONMENT, ROOT

ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ENVIRONMENT
SETTINGS = ("task=digits", "tracking=none", "trainer.max_epochs=0", "cache_dir=cache", "codec=quant8", "device=cpu")
NEEDED = ("numpy", "onnxruntime", "grpcio", "protobuf", "zstandard")


@pytest.fixture
def host(inventory, tmp_path) -> Host:
    return Host(**asdict(load(inventory)["here"]) | {"folder": str(tmp_path / "store"), "settings": {}})


def test_files_are_sent_once_and_secrets_go_with_the_connection(host, tmp_path):
    (tmp_path / "bundle.zip").write_bytes(os.urandom(3_000_000))
    (tmp_path / "token").write_text("secret")
    with SshBoard(host) as board:
        run = Path(board.send([tmp_path / "bundle.zip"], {"token_file": tmp_path / "token"}))
        assert (run / "bundle.zip").read_bytes() == (tmp_path / "bundle.zip").read_bytes()
        assert (run / "token_file").read_text() == "secret"
        assert [stat.S_IMODE(path.stat().st_mode) for path in (run, run / "token_file")] == [0o700, 0o600]
        assert board.num_sent_bytes == 3_000_000
    assert not run.exists()
    with SshBoard(host) as board:
        board.send([tmp_path / "bundle.zip"], {})
        assert board.num_sent_bytes == 0
    (kept,) = (tmp_path / "store" / "received").rglob("bundle.zip")
    kept.write_bytes(b"damaged")
    with SshBoard(host) as board:
        board.send([tmp_path / "bundle.zip"], {})
        assert board.num_sent_bytes == 3_000_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"python": "no-such-python"}, "there is no no-such-python"),
        ({"python": "old"}, "there is 3.9, and 3.11 is needed"),
        ({"python": "ancient"}, "is too old"),
        ({"ssh_config": "config_nobody_known"}, "its host key is unknown"),
        ({"folder": "/proc/none"}, "/proc/none"),
    ],
)
def test_what_keeps_a_board_from_starting_is_told_in_one_line(change, said, host, inventory, tmp_path):
    hello = 'splitsem: {"python": [3, 9], "machine": "armv7l", "home": "/"}'
    for name, does in (("old", f"echo '{hello}'; cat >/dev/null"), ("ancient", "echo 'SyntaxError: x' >&2; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    if change.get("python") in ("old", "ancient"):
        change = {"python": str(tmp_path / change["python"])}
    if "ssh_config" in change:
        change = {"ssh_config": str(inventory.parent / change["ssh_config"])}
    (tmp_path / "bundle.zip").write_bytes(b"any")
    with pytest.raises(ConfigError, match=re.escape(said)) as told, SshBoard(Host(**asdict(host) | change)) as board:
        board.send([tmp_path / "bundle.zip"], {})
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_board_with_python_only_runs_a_bundle_and_is_left_as_it_was(host, inventory, run_py, serve_py, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    wheels = ["-m", "pip", "download", "-q", "--only-binary=:all:", "-d", tmp_path / "wheels"]
    pinned = ["--constraint", ROOT / "constraints.txt", *NEEDED]
    done = subprocess.run([sys.executable, *wheels, *pinned], capture_output=True, text=True)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("there is no package index here")
    assert done.returncode == 0, done.stderr
    python = str(tmp_path / "bare" / "bin" / "python")
    facts = asdict(host) | {"python": python}
    del facts["name"], facts["settings"]
    (tmp_path / "hosts.yaml").write_text(yaml.safe_dump({"pi": facts}))
    made = run_py("workflow=bundle", *SETTINGS, "split.point=stage1", "workflow.num_samples=4", "hydra.run.dir=run")
    assert made.returncode == 0, made.stderr
    address, _ = serve_py(*SETTINGS, "transport=grpc")
    words = ("workflow=board", "workflow.host=pi", "workflow.bundle=run/bundle.zip", f"transport.target={address}")
    words = (*words, "cache_dir=cache", "workflow.wheels=wheels")

    def metrics(name: str, *more: str) -> dict:
        done = run_py(*words, f"hydra.run.dir={name}", *more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ok   coders, float32: 8 of 8 payloads identical" in done.stdout
        return json.loads((tmp_path / name / "metrics.json").read_text())

    first = metrics("first", "workflow.profile=true")
    assert (first["frames_answered"], first["sent_bytes"] > 1e6) == (8, True)
    assert list(json.loads((tmp_path / "first" / "lut.json").read_text())["points"]) == ["stage1"]
    again = metrics("again", "workflow.frames=3")
    assert (again["frames_answered"], again["sent_bytes"]) == (3, 0)
    (alone,) = (tmp_path / "store" / "venvs").glob("*/bin/python")
    missing = subprocess.run([alone, "-c", "import torch"], env=ALONE, capture_output=True, text=True)
    assert missing.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'torch'"

    # Ctrl-C stops the program there in order; a kill of the desk ends it, too
    np.save(tmp_path / "many.npy", np.zeros((200_000, *first_input(tmp_path)), np.float32))
    endless = [sys.executable, str(ROOT / "run.py"), *words, f"workflow.source={tmp_path}/many.npy"]
    for number in (signal.SIGINT, signal.SIGKILL):
        desk = subprocess.Popen(
            [*endless, f"hydra.run.dir=stop{number}"],
            cwd=tmp_path, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        seen = next((line for line in desk.stdout if re.match(r"100\s", line)), None)
        assert seen is not None, desk.wait(60)
        (there,) = programs(tmp_path)
        desk.send_signal(number)
        rest, _ = desk.communicate(timeout=60)
        if number == signal.SIGINT:
            assert desk.returncode == 0, rest
            assert json.loads((tmp_path / f"stop{number}" / "metrics.json").read_text())["frames_answered"] >= 100
        psutil.wait_procs([there], timeout=30)
        deadline = time.monotonic() + 30
        while programs(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def first_input(folder: Path) -> list[int]:
    from splitsem_device.bundle import Bundle

    return Bundle(folder / "run" / "bundle.zip").facts.inputs[0].shape[1:]  # of one sample


def programs(folder: Path) -> list[psutil.Process]:
    """The processes of the board's environment that run there."""
    store = str(folder / "store")
    return [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [""])[0].startswith(store)]
