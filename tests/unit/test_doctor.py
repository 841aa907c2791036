"""Doctor: tells what is here, never fails, and keeps passwords to itself."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splitsem.workflows import doctor


def finding(what: str, folder: Path) -> doctor.Finding:
    return next(finding for finding in doctor.report(folder) if finding.what == what)


def test_everything_is_looked_at_quickly_and_what_is_missing_has_a_hint(tmp_path: Path) -> None:
    start_s = time.perf_counter()
    findings = doctor.report(tmp_path)
    assert time.perf_counter() - start_s < 6
    assert {"Python", "extras", "torch", "GPU", "processor", "Fashion-MNIST", "MLflow", "disk"} <= {
        each.what for each in findings
    }
    assert all(each.found for each in findings)
    assert all(each.hint for each in findings if each.state == "missing")


def test_tracking_server_is_found_when_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
        listening = finding("MLflow", tmp_path)
    gone = finding("MLflow", tmp_path)
    assert listening.state == "ok"
    assert gone.state == "missing"
    assert "secret" not in "".join((*listening, *gone))


@pytest.mark.parametrize("uri", ["http://127.0.0.1:99999", "http://", "sqlite:///some.db", "file:///tmp/runs"])
def test_odd_tracking_uri_is_reported_and_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert finding("MLflow", tmp_path).found


def test_it_runs_as_a_module_succeeds_and_loads_nothing_heavy_but_torch() -> None:
    script = (
        "import runpy, sys; runpy.run_module('splitsem.workflows.doctor', run_name='__main__'); "
        "sys.exit(' '.join({'mlflow', 'lightning', 'seaborn', 'timm'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "splitsem doctor" in result.stdout
    assert "Fashion-MNIST" in result.stdout
