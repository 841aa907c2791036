"""The machine that this process runs on, in words."""

import os
import platform
from pathlib import Path


def described() -> dict[str, str]:
    """Processor, cores and system."""
    return {
        "processor": _processor_name(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor_name() -> str:
    """The processor's name; platform.processor() is empty or just an architecture on most Linux machines."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor() or platform.machine()
