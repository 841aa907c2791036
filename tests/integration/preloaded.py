"""Imported by the process that the tests' servers are forked from: everything that all of them need."""

import torch

from tests.integration import tail_device, tail_server, udp_ends  # noqa: F401
from tests.integration.network import small_network

torch.set_num_threads(1)  # a pool of threads does not survive a fork
small_network()
