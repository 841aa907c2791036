"""read_hardware_lut: both tables, the link and the frames of a hardware_lut_complete.json, for tests."""

import json
from dataclasses import replace
from pathlib import Path

from splitsem.cost.fits import FrameFit, LinkFit
from splitsem.cost.hardware_lut import HardwareLut, merge, parse_branch_lut


def read_hardware_lut(path: Path) -> HardwareLut:
    """What ``write_hardware_lut`` wrote; each side is a whole branch LUT."""
    document = json.loads(path.read_text(encoding="utf-8"))
    edge, server = (parse_branch_lut(json.dumps(document[side]), f"{path} ({side})") for side in ("edge", "server"))
    link, frames = document.get("link"), document.get("frames")
    both = merge(edge, server, None if link is None else LinkFit(**link))
    return both if frames is None else replace(both, frames=FrameFit(**frames))
