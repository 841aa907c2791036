"""The wheel: works outside the checkout, with the configuration inside it."""

import os
import subprocess
import sys
import zipfile

from tests.conftest import ENVIRONMENT, ROOT


def test_a_wheel_has_the_command_and_its_configuration(tmp_path):
    source = tmp_path / "source"
    checkout = [
        "git",
        "ls-files",
        "-co",
        "--exclude-standard",
        "splitsem",
        "hydra_plugins",
        "conf",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    ]
    names = subprocess.run(checkout, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in names:  # not in the checkout: a build leaves folders
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).symlink_to(os.readlink(ROOT / name) if (ROOT / name).is_symlink() else ROOT / name)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("splitsem-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    command = [sys.executable, "-m", "splitsem", "task=digits", "codec=quant2", "--cfg", "job"]
    environment = (
        os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join((str(tmp_path / "installed"), str(ROOT / "device")))}
    )
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "bit_width: 2" in done.stdout
    where = "import splitsem, sys; sys.stdout.write(splitsem.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(tmp_path / "installed"))
    assert (
        "splitsem = splitsem.__main__:main"
        in next((tmp_path / "installed").glob("*.dist-info/entry_points.txt")).read_text()
    )
