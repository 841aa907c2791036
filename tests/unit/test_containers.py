"""The container files: every service can be started as written, and the image is installed as the README says."""

import re
import shutil
import stat
import subprocess
import sys
import tomllib
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


def test_what_is_copied_before_the_install_step_is_enough_for_it(tmp_path):
    """In a fresh folder: make knows its commands, and the package is built with the extras that they name."""
    before = DOCKERFILE.partition("RUN make setup")[0]
    for line in re.findall(r"^COPY (.+)$", before, re.MULTILINE):
        *sources, to = line.split()
        (tmp_path / to).mkdir(exist_ok=True)
        for source in map(ROOT.joinpath, sources):
            if source.is_dir():
                shutil.copytree(source, tmp_path / to, dirs_exist_ok=True)
            else:
                shutil.copy(source, tmp_path / to)
    (extras,) = [value.partition("=")[2] for value in instructions("ARG") if value.startswith("EXTRAS=")]
    make = ["make", "--dry-run", "setup", f"EXTRAS={extras}", f"PYTHON={sys.executable}"]
    shown = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout
    both = rf"--editable device --editable '\.\[{extras}\]'"
    assert re.search(rf"pip install .*--constraint constraints.txt (\\\n +)?{both}", shown)
    build = "from setuptools import build_meta; build_meta.prepare_metadata_for_build_editable('built')"
    (tmp_path / "built").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    (metadata,) = (tmp_path / "built").glob("*.dist-info/METADATA")
    assert set(extras.split(",")) <= set(re.findall(r"^Provides-Extra: (.+)$", metadata.read_text(), re.MULTILINE))


def test_a_clean_checkout_is_set_up_by_the_same_steps():
    """``.ci/run`` does on a new machine what the image does; nothing else installs Python packages there."""
    steps = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^make (setup|data)\b", steps, re.MULTILINE) == ["setup", "data"]
    assert "pip install" not in steps


def test_the_service_that_submits_a_run_knows_its_superlink():
    service, home = SERVICES["federate"], ROOT / "flower_home"
    assert service["environment"]["FLWR_HOME"].endswith(str(home.relative_to(ROOT)))
    connections = tomllib.loads((home / "config.toml").read_text())["superlink"]
    (name,) = [a.partition("=")[2] for a in service["command"] if a.startswith("federated.superlink=")]
    host, port = connections[name]["address"].split(":")
    assert port in SERVICES[host]["command"]


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
