"""A process of ClientProcesses with the small clients of the federated tests, some of which fail."""

import os
import signal
import sys

from splitsem.errors import ConfigError
from splitsem.federated import client_processes
from splitsem.federated.client_app import UpdateMod, make_client_app
from splitsem.federated.flower import ClientApp
from tests.unit.federated import QUANTISED, small_site

COMMAND = [sys.executable, "-m", __name__]


def fault_of(config: str, at_once: bool = False):
    """A mod: what the second client does in round 2, before or after its work: ``raises``, ``dies`` or nothing."""

    def fault(message, context, call_next):
        reply = None if at_once else call_next(message, context)
        if context.node_config["partition-id"] == 1 and message.content["config"]["server-round"] == 2:
            if config == "raises":
                raise ValueError("this client's disk is full")
            if config == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
        return call_next(message, context) if reply is None else reply

    return fault


def small_app(config: str) -> ClientApp:
    """The clients with local statistics, and one that fails as ``config`` says."""
    if config == "refuses":
        raise ConfigError("this process refuses")
    site = small_site("local")
    return make_client_app(site, [UpdateMod(site.layout, lambda rate: QUANTISED, QUANTISED), fault_of(config)])


def plain_app(config: str) -> ClientApp:
    """The clients without a codec."""
    return make_client_app(small_site("local"), [])


if __name__ == "__main__":
    client_processes.main(small_app)
