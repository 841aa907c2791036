"""Memory of the real server (workflow=serve, the digits CNN): idle, and over thousands of requests.

    python benchmarks/server_memory.py

RSS counts every page that the process has mapped and touched, also pages of shared libraries and pages that the
kernel could drop at any time; "private" is what would be free if the process ended. Linux only.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from harness.measured_rows import record
from splitsem.codecs.tensorwise import Identity
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import Security
from splitsem_device.plan import Plan
from splitsem_device.retry import Backoff

ROOT = Path(__file__).parent.parent
BAR_BYTES = 600e6
NUM_REQUESTS = 10_000
SETTINGS = ("task=digits", "device=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2")


def started(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server process and its address."""
    command = [sys.executable, str(ROOT / "run.py"), "workflow=serve", "transport.bind=127.0.0.1:0", *SETTINGS]
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"  # of its own: a folder of results is never written over
    command += [f"cache_dir={folder / 'cache'}", f"hydra.run.dir={run}"]
    address = run / "address.txt"
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    while not (address.exists() and address.read_text().endswith("\n")):
        if process.poll() is not None:
            raise SystemExit((folder / "output.txt").read_text())
        time.sleep(0.1)
    return process, address.read_text().strip()


def memory_bytes(pid: int) -> dict[str, int]:
    """RSS, PSS (shared pages divided among the processes that share them) and private bytes."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    found = {line[0].rstrip(":"): 1024 * int(line[1]) for line in lines}
    private = found["Private_Clean"] + found["Private_Dirty"]
    return {"rss": found["Rss"], "pss": found["Pss"], "private": private}


def row(label: str, pid: int) -> int:
    """Print one line; gives the RSS."""
    found = memory_bytes(pid)
    print(f"{label:>16}" + "".join(f"{value / 1e6:>10.1f}" for value in found.values()), flush=True)
    return found["rss"]


def main() -> None:
    """Print megabytes when idle, then as requests go through."""
    with tempfile.TemporaryDirectory() as name:
        trained, _ = started(Path(name))  # trains, so that the server below finds its weights, as usual
        trained.terminate()
        trained.wait()
        process, address = started(Path(name))
        try:
            print(f"{'MB':>16}{'RSS':>10}{'PSS':>10}{'private':>10}")
            idle_bytes, taken = row("idle", process.pid), []
            tail = GrpcTail(address, 8, Backoff(), Security())
            offer = tail.info().plan
            tail.open(Plan(offer.fingerprint, offer.weights, "input", offer.granularity, offer.precision, "Identity"))
            payload = Identity().encode((torch.rand(1, 1, 8, 8),))
            for answer in tail.stream(payload for _ in range(NUM_REQUESTS)):
                if (answer.request_id + 1) % 2000 == 0 or answer.request_id == 499:
                    taken.append(row(f"{answer.request_id + 1} requests", process.pid))
            tail.close()
        finally:
            process.terminate()
            process.wait()
    print(f"idle {idle_bytes / 1e6:.0f} MB of RSS; bar: {BAR_BYTES / 1e6:.0f} MB")
    told, bar = f"{idle_bytes / 1e6:.0f} MB of RSS", f"≤ {BAR_BYTES / 1e6:.0f} MB"
    record("idle server with the CNN", told, bar, idle_bytes > BAR_BYTES)
    grown = taken[-1] - taken[0]
    what = f"growth of its RSS from request 500 to {NUM_REQUESTS:,}"
    record(what, f"{grown / 1e6:+.1f} MB", "none, to within 1 MB", grown > 1e6)


if __name__ == "__main__":
    main()
