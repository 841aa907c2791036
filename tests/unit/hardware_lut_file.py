"""read_hardware_lut: both tables, the link and the frames of a hardware_lut_complete.json, for tests."""

import json
from dataclasses import replace
from pathlib import Path

from splitsem.cost.fits import AnswerWay, FrameFit, LinkFit
from splitsem.cost.hardware_lut import HardwareLut, merge, parse_branch_lut


def read_hardware_lut(path: Path) -> HardwareLut:
    """What ``write_hardware_lut`` wrote; each side is a whole branch LUT."""
    document = json.loads(path.read_text(encoding="utf-8"))
    edge, server = (parse_branch_lut(json.dumps(document[side]), f"{path} ({side})") for side in ("edge", "server"))
    kinds = {"link": LinkFit, "answer": AnswerWay, "frames": FrameFit}
    return replace(merge(edge, server), **{name: kinds[name](**document[name]) for name in kinds if name in document})
