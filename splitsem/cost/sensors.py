"""Energy sensors of this machine, found in what the system lets read, and the load while something is measured.

A sensor is NVML (the whole GPU), RAPL (the processor's packages) or a power rail that Linux' hwmon offers: INA
chips, and those of Jetson boards, which jtop reads from the same files. Where none can be read, energy is an estimate.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import psutil

POWERCAP, HWMON = Path("/sys/class/powercap"), Path("/sys/class/hwmon")
_EVERY_S = 0.01
_BOARD_RAILS = ("VDD_IN", "POM_5V_IN", "VDD_INPUT", "in")


@dataclass(frozen=True)
class Sensor:
    """Something that tells energy or power.

    Attributes:
        name: for readers, with what it covers: ``RAPL package-0 (processor)``.
        joules: energy counted so far, which wraps at ``wraps_j``; None where only power is told.
        watts: power now; None where energy is counted.
        wraps_j: where the counter starts anew.
    """

    name: str
    joules: Callable[[], float] | None = None
    watts: Callable[[], float] | None = None
    wraps_j: float = float("inf")


def find_sensors(powercap: Path = POWERCAP, hwmon: Path = HWMON, gpu: bool = False) -> tuple[list[Sensor], list[str]]:
    """The sensors that can be read now, and one line for each that is there and cannot be read.

    Args:
        powercap: where Linux lists RAPL.
        hwmon: where Linux lists rails.
        gpu: whether torch runs on an NVIDIA GPU, so that NVML is asked.
    """
    found: list[Sensor] = []
    refused: list[str] = []
    for look in (lambda: _rapl(powercap), lambda: _rails(hwmon), lambda: _nvml() if gpu else ([], [])):
        sensors, why = look()
        found += sensors
        refused += why
    return found, refused


def _rapl(folder: Path) -> tuple[list[Sensor], list[str]]:
    found, refused = [], []
    for zone in sorted(folder.glob("*-rapl:?")):  # packages; their parts are counted in them
        counter = zone / "energy_uj"
        try:
            name = (zone / "name").read_text().strip()
            int(counter.read_text())
            wraps_j = int((zone / "max_energy_range_uj").read_text()) / 1e6
        except PermissionError:
            refused.append(f"{counter} may not be read: run as root, or chmod a+r it")
            continue
        except (OSError, ValueError) as exc:
            refused.append(f"{counter} cannot be read: {exc}")
            continue
        read = _reader(counter, 1e-6)
        found.append(Sensor(f"RAPL {name} (processor, without the board)", joules=read, wraps_j=wraps_j))
    return found, refused


def _rails(folder: Path) -> tuple[list[Sensor], list[str]]:
    """The board's input rail where it is labelled, else every rail of a chip is the board's."""
    rails: list[tuple[str, Path, Sensor]] = []
    refused = []
    for chip in sorted(folder.glob("hwmon*")):
        name = _text(chip / "name")
        if not name.startswith("ina"):
            continue
        numbers = sorted({path.name[len("curr") : -len("_input")] for path in chip.glob("curr*_input")})
        for number in numbers:
            label = _text(chip / f"in{number}_label") or f"{name} {number}"
            watts = _rail(chip, number)
            try:
                watts()
            except PermissionError as exc:
                refused.append(f"{exc.filename} (rail {label}) may not be read: run as root, or chmod a+r it")
                continue
            except (OSError, ValueError) as exc:
                refused.append(f"rail {label} of {chip} cannot be read: {exc}")
                continue
            rails.append((label, chip, Sensor(f"{name} {label} (hwmon)", watts=watts)))
    board = [sensor for label, _, sensor in rails if label in _BOARD_RAILS]
    return (board[:1] or [sensor for *_, sensor in rails]), refused


def _rail(chip: Path, number: str) -> Callable[[], float]:
    power = chip / f"power{number}_input"
    if power.exists():
        return _reader(power, 1e-6)
    amperes, volts = _reader(chip / f"curr{number}_input", 1e-3), _reader(chip / f"in{number}_input", 1e-3)
    return lambda: amperes() * volts()


def _nvml() -> tuple[list[Sensor], list[str]]:
    try:
        import pynvml
    except ImportError:
        return [], ["NVML needs nvidia-ml-py: pip install nvidia-ml-py"]
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = f"NVML {pynvml.nvmlDeviceGetName(handle)} (the whole GPU)"
        pynvml.nvmlDeviceGetPowerUsage(handle)
    except pynvml.NVMLError as exc:
        return [], [f"NVML tells no power: {exc}"]
    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:  # older than Volta: power alone
        return [Sensor(name, watts=lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3)], []
    return [Sensor(name, joules=lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)], []


def _reader(path: Path, unit: float) -> Callable[[], float]:
    return lambda: int(path.read_text()) * unit


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Watched:
    """What was seen while something ran.

    Attributes:
        seconds: how long.
        watts: mean power; ``estimated`` where no sensor could be read.
        source: ``measured`` or ``estimated``.
        said: by which sensors, or from what.
        cpu_share: of one core, that this process used: 2.0 is two cores.
        rss_bytes: the most memory that this process held, of what was looked at.
        gpu_bytes: the most memory of the GPU that torch held; 0 without one.
    """

    seconds: float
    watts: float
    source: Literal["measured", "estimated"]
    said: str
    cpu_share: float
    rss_bytes: int
    gpu_bytes: int


class Watch:
    """``with Watch(sensors, active_w) as watch: …``, then ``watch.seen``: power and load meanwhile.

    Args:
        sensors: that can be read; the sum of them is the machine's.
        active_w: power while computing that is assumed where there is no sensor.
        assumed_from: where that figure stands, for readers.
    """

    def __init__(self, sensors: list[Sensor], active_w: float, assumed_from: str) -> None:
        self.sensors, self.active_w, self.assumed_from = sensors, active_w, assumed_from
        self.process = psutil.Process()
        self._over = threading.Event()
        self._watts: list[list[float]] = []
        self._most_rss = 0

    def __enter__(self) -> "Watch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._counted = [sensor.joules() if sensor.joules else 0.0 for sensor in self.sensors]
        self._cpu_s, self._began_s = time.process_time(), time.perf_counter()
        self._look()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import torch

        seconds = time.perf_counter() - self._began_s
        cpu_s = time.process_time() - self._cpu_s
        counted = [sensor.joules() if sensor.joules else 0.0 for sensor in self.sensors]
        self._over.set()
        self._thread.join()
        self._look()
        watts = self.active_w
        if self.sensors:
            joules = sum(
                (after - before) % sensor.wraps_j if sensor.wraps_j < float("inf") else after - before
                for sensor, before, after in zip(self.sensors, self._counted, counted, strict=True)
            )
            watts = joules / seconds + sum(sum(row) for row in self._watts) / max(1, len(self._watts))
        names = " + ".join(sensor.name for sensor in self.sensors)
        self.seen = Watched(
            seconds,
            watts,
            "measured" if self.sensors else "estimated",
            names or f"time × {self.active_w:g} W of {self.assumed_from}",
            cpu_s / seconds,
            self._most_rss,
            torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        )

    def _sample(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        self._most_rss = max(self._most_rss, self.process.memory_info().rss)
        if powers := [sensor.watts() for sensor in self.sensors if sensor.watts]:
            self._watts.append(powers)
