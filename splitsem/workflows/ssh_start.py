"""SSH start: before the edge connects, start the server on the machine that ``transport.host`` names."""

import atexit
import contextlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.errors import ConfigError, LinkError
from splitsem.remote.labels import builtin_decoders
from splitsem.remote.ssh_inventory import Host
from splitsem.remote.ssh_server import SshServer
from splitsem.remote.transports import RemoteTransport
from splitsem.workflows.assemble import Network
from splitsem.workflows.codec_options import is_for_one_cut
from splitsem.workflows.result import Metrics
from splitsem_device.grpc.connection import host_port, is_loopback

log = logging.getLogger(__name__)
_SECTIONS = ("task", "answer", "model", "trainer", "device", "seed")
_running: dict[str, SshServer] = {}  # at most one; the jobs of a sweep share it


@contextlib.contextmanager
def server_for(cfg: DictConfig, transport: RemoteTransport, host: Host | None, network: Network) -> Iterator[Metrics]:
    """Have a server running on ``host`` (None if one runs already); yields metrics about the start.

    The previous job's server serves again if its settings are unchanged; otherwise a new server is started. Its
    address becomes ``transport.target``. The server stays for the next job and ends with this process.

    Raises:
        ConfigError: a setting is wrong.
        LinkError: the server cannot be started, or its connection ended.
    """
    if host is None:
        yield {}
        return
    began = time.perf_counter()
    server, is_new = _server(cfg, host, network)
    transport.target = server.target
    transport.is_server_over = lambda: not server.is_running
    try:
        yield {"start_s": time.perf_counter() - began if is_new else 0.0, "host": host.name}
    except LinkError as exc:
        raise server.session.explain(exc) from exc


def chosen_host(cfg: DictConfig, transport: RemoteTransport) -> Host | None:
    """The machine to start the server on, or None if it runs. Raises ConfigError if ``transport`` does not fit."""
    host = transport.start.chosen()
    if host is None:
        return None
    if host.connect == "tunnel" and not transport.is_tunnelled:
        raise ConfigError(
            f"the frames of {type(transport).__name__} cannot go through an ssh tunnel: give {host.name} "
            f"connect: direct in {transport.start.inventory}, or take transport=grpc"
        )
    if host.connect == "direct" and is_loopback(host_port(cfg.transport.bind)[0]) and not is_loopback(host.address):
        raise ConfigError(
            f"connect: direct of host {host.name} needs a transport.bind that this machine reaches, such as "
            f"transport.bind=0.0.0.0:50051, got {cfg.transport.bind}; connect: tunnel needs none"
        )
    return host


def stop() -> None:
    """End the server that this process started, if there is one."""
    while _running:
        _running.popitem()[1].stop()


def _server(cfg: DictConfig, host: Host, network: Network) -> tuple[SshServer, bool]:
    sections = _sections(cfg, host)
    key = json.dumps([asdict(host), sections, network.key], sort_keys=True, default=str)
    if key in _running and _running[key].is_running:
        return _running[key], False
    stop()
    atexit.register(stop)
    _running[key] = SshServer(host, sections, network.trained.path)
    return _running[key], True


def _sections(cfg: DictConfig, host: Host) -> dict[str, Any]:
    """The configuration that the server must share with the edge, and the address that the server listens on."""
    if is_for_one_cut(cfg.codec["_target_"]):
        raise ConfigError(
            "a server that is started over SSH has no codec that is built for one cut: start it there by hand, "
            "workflow=serve with the same codec=, codec.weights= and split.point="
        )
    known = {codec.name for codec in builtin_decoders()}  # codecs that every server knows
    own_codec = [] if instantiate(cfg.codec).name in known else ["codec"]
    sections = {name: _plain(cfg, name) for name in (*_SECTIONS, *own_codec)}
    sections["split"] = {"point": None, "index": None, "granularity": cfg.split.granularity}
    sections["transport"] = _plain(cfg, "transport") | {
        "start": None,
        "host": None,
        "bind": "127.0.0.1:0" if host.connect == "tunnel" else cfg.transport.bind,
    }
    return sections


def _plain(cfg: DictConfig, name: str) -> Any:
    value = OmegaConf.select(cfg, name)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
