"""A client that measures goodput, to run in a network namespace: udp_goodput ADDRESS SETTINGS_AS_JSON; prints JSON."""

import dataclasses
import json
import sys
import time

from splitsem.errors import LinkError
from splitsem.remote.udp.client import UdpTail
from splitsem.remote.udp.settings import Settings
from tests.integration.network import small_network, small_plan

NUM_BYTES = 6_000_000


def main(address: str, settings: dict) -> dict[str, object]:
    """Send ``NUM_BYTES`` and say how fast they went and how many fragments were lost, or what is wrong."""
    tail = UdpTail(address, Settings(**settings), insecure=True)
    try:
        tail.open(small_plan(*small_network()))
        tail.echo_s(0)
        began = time.perf_counter()
        tail.echo_s(NUM_BYTES)
        return {"goodput_bps": 8 * NUM_BYTES / (time.perf_counter() - began), **dataclasses.asdict(tail.counts)}
    except LinkError as exc:
        return {"error": str(exc)}
    finally:
        tail.close()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))  # noqa: T201
