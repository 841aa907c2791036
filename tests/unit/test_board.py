"""workflow=board without a network: what is refused, the command line there, and what each trouble is called."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from splitsem.errors import ConfigError
from splitsem.export import device_wheel
from splitsem.remote import board_end, ssh_board
from splitsem.remote.ssh_inventory import Host
from splitsem.remote.ssh_session import explain
from splitsem.workflows import board
from tests.conftest import ROOT

PI = Host("pi", "pi.example")


def configured(*words: str):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", ["workflow=board", *words])


@pytest.fixture
def inventory(tmp_path) -> str:
    path = tmp_path / "hosts.yaml"
    path.write_text("pi: {address: pi.example}\nodd: {address: a, settings: {workflow.sorce: x}}\n")
    return f"transport.inventory={path}"


def test_the_command_line_there_names_files_of_the_run_s_folder_and_holds_no_secret(tmp_path):
    (tmp_path / "token").write_text("very secret")
    (tmp_path / "ca.pem").write_text("certificate")
    words = (f"transport.security.token_file={tmp_path}/token", f"transport.security.ca={tmp_path}/ca.pem")
    cfg = configured(*words, "workflow.frames=5", "workflow.source=cats and dogs/", "transport.window=4")
    found = board.run_arguments(cfg, board.checked_transport(cfg, PI), "127.0.0.1:7", "/run", "b.zip")
    assert found[:3] == ["run", "/run/b.zip", "--target=127.0.0.1:7"]
    assert {"--source=cats and dogs/", "--frames=5", "--window=4", "--json=/run/report.json"} < set(found)
    assert {"--ca=/run/ca", "--token-file=/run/token_file"} < set(found)
    assert not [word for word in found if "secret" in word or str(tmp_path) in word]
    assert "--insecure" not in found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["transport=udp"], "transport=grpc"),
        (["transport.start=ssh", "transport.host=pi"], "the board is workflow.host"),
        (["transport.retry._target_=splitsem_device.retry.NoRetry"], "transport.retry of Backoff"),
        (["transport.target=server.example:1"], "without TLS"),
        (["workflow.source=-"], "standard input"),
    ],
)
def test_a_link_that_the_board_s_program_does_not_have_is_refused(words, said):
    cfg = configured(*words)
    if "NoRetry" in words[0]:
        cfg.transport.retry = {"_target_": "splitsem_device.retry.NoRetry"}
    with pytest.raises(ConfigError, match=said):
        board.checked_transport(cfg, PI)


def test_a_board_without_a_tunnel_cannot_reach_this_machine_s_loopback():
    direct = Host("pi", "pi.example", connect="direct")
    with pytest.raises(ConfigError, match=r"needs a transport\.target that the board reaches"):
        board.checked_transport(configured(), direct)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], r"needs workflow\.host; .* knows: pi, odd"),
        (["workflow.host=po"], "no host 'po'"),
        (["workflow.host=odd"], r"settings of the host: .*sorce"),
        (["workflow.host=pi"], r"needs workflow\.bundle"),
        (["workflow.host=pi", "workflow.bundle=none.zip"], r"there is no bundle none\.zip"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_reached(words, said, inventory, tmp_path):
    with pytest.raises(ConfigError, match=said) as told:
        board.run(configured(inventory, *words), tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("step", "line", "said"),
    [
        ("pip", "ERROR: No matching distribution found for onnxruntime", r"finds no onnxruntime: .*workflow\.wheels="),
        (
            "pip",
            "ERROR: s-0.1.0-py3-none-linux_armv7l.whl is not a supported wheel on this platform.",
            "for its proces",
        ),
        ("pip", "ERROR: Could not install: [Errno 28] No space left on device", "no room on the disk"),
        ("venv", "ensurepip is not", "venv failed"),
        ("venv", "created successfully because ensurepip is not available.  On Debian", "apt install python3-venv"),
        ("venv", "/usr/bin/python3: No module named venv", "apt install python3-venv"),
        ("pip", "ERROR: something new", "pip failed: ERROR: something new"),
    ],
)
def test_what_keeps_a_board_from_installing_has_its_line(step, line, said):
    found = ssh_board.install_trouble(step, ["Processing", line], "python3", "aarch64")
    assert re.search(said, found)
    assert "\n" not in found


def test_ends_of_the_board_s_python_are_told():
    for code, line, said in ((122, "", "there is no python3"), (1, "SyntaxError: invalid syntax", "too old")):
        assert said in str(explain(PI, ssh_board.program(PI, 9), code, [line]))


def test_a_full_disk_is_told_before_a_byte_is_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    asked = {"store": str(tmp_path), "files": [{"name": "b.zip", "sha256": "0" * 64, "num_bytes": 5000}], "secrets": []}
    with pytest.raises(board_end.FailedError, match=r"no room in .*: 5,000 bytes are to be sent, and 1,000 are free"):
        board_end.take(SimpleNamespace(), asked)


def test_a_32_bit_python_on_a_64_bit_kernel_gets_a_32_bit_wheel(monkeypatch):
    monkeypatch.setattr(board_end.platform, "machine", lambda: "aarch64")
    assert board_end.machine() == "aarch64"
    monkeypatch.setattr(board_end.struct, "calcsize", lambda code: 4)
    assert board_end.machine() == "armv7l"


def test_without_its_sources_the_wheel_must_be_given(tmp_path, monkeypatch):
    monkeypatch.setattr(device_wheel, "FOLDER", tmp_path / "splitsem_device")
    with pytest.raises(ConfigError, match=r"workflow\.wheel=FILE"):
        device_wheel.built("aarch64", Path(tmp_path))


def test_a_report_becomes_flat_metrics_and_a_headline():
    counters = {"frames_answered": 8, "retries": 0, "reconnects": 1, "fallback_frames": 0, "frames_sent": 8}
    stages = {name: {"p50": 0.001, "p95": 0.002, "p99": 0.003} for name in ("head_s", "round_trip_s")}
    report = {"payload_bytes": 227.0, "first_payload_s": 0.5, "rss_bytes": 87_000_000, "counters": counters}
    metrics = {"host": "pi", "start_s": 2.0} | board.summary(json.loads(json.dumps(report | {"stages": stages})))
    assert (metrics["round_trip_p95_s"], metrics["reconnects"]) == (0.002, 1)
    assert "8 frames answered, 227 bytes each; measured medians: head 1 ms, round trip 1 ms" in board.headline(metrics)
    assert "no frame" in board.headline({"host": "pi"})
