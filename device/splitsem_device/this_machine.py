"""The machine that this process runs on, in words."""

import hashlib
import os
import platform
import resource
from pathlib import Path


def described() -> dict[str, str]:
    """Processor, cores and system."""
    return {
        "processor": _processor_name(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def host_id() -> str:
    """Equal in two processes that share cores, containers and network namespaces included; empty where it is not known.

    A hash of the running kernel's own number, which differs after each start of a machine and says nothing else.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.is_file():
        return ""
    return hashlib.sha256(b"splitsem host " + boot.read_bytes().strip()).hexdigest()[:16]


def peak_memory_bytes() -> int:
    """The most physical memory that this process has had.

    From /proc where there is one: ``ru_maxrss`` counts what the process had that started this one, too.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _processor_name() -> str:
    """The processor's name; platform.processor() is empty or just an architecture on most Linux machines."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor() or platform.machine()
