"""A device of the tests' small network, to run in a process of its own: streams frames and keeps the answers."""

from splitsem.remote.journal import Journal
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import Security
from splitsem_device.plan import Plan
from splitsem_device.retry import Backoff
from tests.integration.network import small_frames


def main(address: str, path: str, plan_json: str, num_frames: int) -> None:
    """Stream so many frames at default settings, beginning after the answers that the file has."""
    plan = Plan.from_json(plan_json)
    payloads, _ = small_frames(num_frames)
    tail = GrpcTail(address, 32, Backoff(), Security())
    tail.open(plan)
    for _ in Journal(path, plan).stream(tail, payloads):
        pass
    tail.close()
