"""PYTHONPATH=examples python run.py --config-dir=examples/conf hardware/machine@hardware.edge=microcontroller"""

from splitsem.cost.machines import Machine
from splitsem.splitting.half import Half


class Microcontroller(Machine):
    """``time_s = flops / flops_per_s``, whatever memory allows."""

    timing = "roofline"
    coding_bytes_per_s = 3e5

    def __init__(self, flops_per_s: float = 1e8, active_w: float = 0.5, idle_w: float = 0.01) -> None:
        self.flops_per_s, self.active_w, self.idle_w = flops_per_s, active_w, idle_w

    def time_s(self, half: Half) -> float:
        """Seconds for one sample."""
        return sum(op.flops for op in half.ops) / self.flops_per_s
