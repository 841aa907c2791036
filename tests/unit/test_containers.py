"""The container files: every service can be started as written, and the image is installed as the README says."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from tests.conftest import ROOT

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
DOCKERFILE = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
"""With its continued lines joined."""


def instructions(word: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in DOCKERFILE.splitlines() if line.startswith(f"{word} ")]


def exists(program: str) -> bool:
    """Whether the image has it: an entry point of the environment, or a program of any Debian."""
    return (Path(sys.executable).parent / program).exists() or shutil.which(program) is not None


@pytest.mark.parametrize("name", OURS)
def test_a_services_command_can_be_started(name):
    program, *arguments = SERVICES[name]["command"]
    if arguments[:1] == ["run.py"]:
        assert program == "python"
        with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
            assert compose("config", arguments[1:]).workflow["_target_"]
    else:
        if program.startswith("flower-"):
            pytest.importorskip("flwr", reason="Flower is not installed")
        assert exists(program), program


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_reports_nothing_and_shows_its_ports_to_this_machine_only(name):
    service = SERVICES[name]
    if name in OURS:
        assert service["environment"]["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert service["environment"]["FLWR_TELEMETRY_ENABLED"] == "0"
        assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    for other, waits in service.get("depends_on", {}).items():
        assert waits == {"condition": "service_healthy"}
        assert SERVICES[other]["healthcheck"]["test"][0] == "CMD"
        assert set(SERVICES[other]["profiles"]) & set(service["profiles"])


def test_volumes_are_declared_and_used():
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used - {"."} == set(COMPOSE["volumes"])


@pytest.mark.parametrize("file", ["compose.cuda.yaml", "compose.rocm.yaml"])
def test_the_gpu_files_name_services_that_there_are(file):
    extended = yaml.safe_load((ROOT / file).read_text())["services"]
    assert set(extended) <= set(OURS)
    assert {"run", "server", "device"} <= set(extended)


def test_the_images_install_steps_are_the_readmes():
    """The image is made by make targets only, and each stands in the README as a command."""
    readme = (ROOT / "README.md").read_text()
    steps = [line for line in instructions("RUN") if "apt-get" not in line]
    targets = [target for line in steps for target in re.findall(r"\bmake [a-z-]+", line)]
    assert targets == ["make setup", "make data"]
    for target in targets:
        assert target in readme
    assert not re.search(r"\bpip3? install|\bconda\b|https?://", DOCKERFILE)


def test_the_image_gets_a_version_that_the_package_takes_and_runs_as_nobody_special():
    (base,) = [value for value in instructions("ARG") if value.startswith("BASE=")]
    version = re.search(r"python:3\.(\d+)", base)
    assert version
    assert int(version[1]) >= 11
    lines = DOCKERFILE.splitlines()
    user = next(i for i, line in enumerate(lines) if line == "USER splitsem")
    assert not [line for line in lines[user + 1 :] if line.startswith(("RUN", "COPY", "USER"))]


def test_what_the_image_copies_is_there_and_secrets_and_history_stay_outside():
    for line in instructions("COPY"):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "certs", "hosts.yaml", ".env"} <= set(ignored)
    for script in re.findall(r"scripts/[\w-]+", DOCKERFILE + (ROOT / "compose.yaml").read_text()):
        assert (ROOT / script).stat().st_mode & stat.S_IXUSR, script


@pytest.mark.parametrize("accelerator", ["cuda", "rocm"])
def test_compose_itself_accepts_the_files(accelerator):
    tool = shutil.which("docker-compose")
    if tool is None:
        pytest.skip("docker-compose is not installed")
    files = ["-f", "compose.yaml", "-f", f"compose.{accelerator}.yaml"]
    done = subprocess.run([tool, *files, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_accelerator_check_says_what_to_do():
    def check(accelerator: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "check-accelerator"), accelerator]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    refused = check("tpu")
    assert refused.returncode == 1
    assert "cpu, cuda, rocm" in refused.stderr
