"""Energy sensors: what is read, what may not be read, and what is an estimate."""

import sys
from pathlib import Path

import pytest
import torch

from splitsem.cost.sensors import Sensor, Watch, find_sensors


def rapl(folder: Path, microjoules: str = "5000000", name: str = "package-0", zone: str = "intel-rapl:0") -> Path:
    (folder / zone).mkdir(parents=True)
    for file, text in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", "262143328850")):
        (folder / zone / file).write_text(f"{text}\n")
    return folder / zone


def ina(folder: Path, label: str, milliamperes: int, number: int = 1, chip: str = "hwmon0") -> Path:
    (folder / chip).mkdir(parents=True, exist_ok=True)
    (folder / chip / "name").write_text("ina3221\n")
    (folder / chip / f"in{number}_label").write_text(f"{label}\n")
    (folder / chip / f"in{number}_input").write_text("5000\n")
    (folder / chip / f"curr{number}_input").write_text(f"{milliamperes}\n")
    return folder / chip


def test_rapl_counts_joules_of_packages_alone(tmp_path: Path) -> None:
    rapl(tmp_path)
    rapl(tmp_path, name="core", zone="intel-rapl:0:0")
    (sensor,), refused = find_sensors(tmp_path, tmp_path / "none")
    assert sensor.joules is not None
    assert (sensor.joules(), sensor.wraps_j, refused) == (5.0, pytest.approx(262143.32885), [])
    assert "package-0" in sensor.name


def test_of_a_boards_rails_the_input_counts_alone(tmp_path: Path) -> None:
    ina(tmp_path, "VDD_IN", 1000)
    ina(tmp_path, "VDD_CPU", 400, number=2)
    (sensor,), _ = find_sensors(tmp_path / "none", tmp_path)
    assert sensor.watts is not None
    assert sensor.watts() == 5.0
    (tmp_path / "hwmon0" / "in1_label").write_text("VDD_GPU\n")
    sensors, _ = find_sensors(tmp_path / "none", tmp_path)
    assert sum(sensor.watts() for sensor in sensors if sensor.watts) == pytest.approx(7.0)


def test_other_chips_are_no_power_sensors(tmp_path: Path) -> None:
    (ina(tmp_path, "VDD_IN", 1000) / "name").write_text("coretemp\n")
    assert find_sensors(tmp_path / "none", tmp_path) == ([], [])


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let nobody read files of this name, not even root."""
    read = Path.read_text

    def read_text(path: Path, *args: object, **kwargs: object) -> str:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", read_text)


def test_a_sensor_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl(tmp_path)
    forbid(monkeypatch, "energy_uj")
    sensors, (why,) = find_sensors(tmp_path, tmp_path / "none")
    assert not sensors
    assert "may not be read: run as root" in why
    assert "\n" not in why
    ina(tmp_path, "VDD_IN", 1000)
    forbid(monkeypatch, "curr1_input")
    sensors, (why,) = find_sensors(tmp_path / "none", tmp_path)
    assert not sensors
    assert "curr1_input (rail VDD_IN) may not be read: run as root" in why


def test_without_nvml_or_its_driver_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, why = find_sensors(tmp_path, tmp_path, gpu=True)
    if not torch.cuda.is_available():
        assert (found, len(why)) == ([], 1)
        assert why[0].startswith(("NVML tells no power: ", "NVML needs nvidia-ml-py"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_sensors(tmp_path, tmp_path, gpu=True) == ([], ["NVML needs nvidia-ml-py: pip install nvidia-ml-py"])


@pytest.mark.parametrize("text", ["", "no number"])
def test_a_sensor_without_a_number_is_named_and_left_out(tmp_path: Path, text: str) -> None:
    rapl(tmp_path, text)
    sensors, (why,) = find_sensors(tmp_path, tmp_path / "none")
    assert not sensors
    assert "energy_uj cannot be read" in why


def test_without_a_sensor_the_power_is_an_estimate_and_says_from_what() -> None:
    with Watch([], 6.4, "hardware.edge.active_w") as watch:
        sum(range(200_000))
    assert (watch.seen.source, watch.seen.watts) == ("estimated", 6.4)
    assert watch.seen.said == "time × 6.4 W of hardware.edge.active_w"
    assert watch.seen.rss_bytes > 1e7
    assert watch.seen.cpu_share > 0


def test_a_counter_that_wraps_gives_the_energy_since() -> None:
    counts = iter((90.0, 10.0))
    with Watch([Sensor("counter", joules=lambda: next(counts), wraps_j=100.0)], 1.0, "") as watch:
        pass
    assert watch.seen.watts * watch.seen.seconds == pytest.approx(20.0)
    assert (watch.seen.source, watch.seen.said) == ("measured", "counter")


def test_power_is_averaged_over_the_time() -> None:
    with Watch([Sensor("rail", watts=lambda: 3.0), Sensor("other", watts=lambda: 1.5)], 9.0, "") as watch:
        pass
    assert watch.seen.watts == 4.5
