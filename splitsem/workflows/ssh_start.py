"""SSH start: before the edge connects, start the server on the machine that ``transport.host`` names.

On the server, ``splitsem.remote.ssh_server`` starts ``python -m splitsem.workflows.ssh_start`` in the checkout's
folder, and documents the messages. stdout is for messages only; everything else goes to stderr.
"""

import atexit
import contextlib
import hashlib
import json
import logging
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from splitsem.errors import ConfigError, LinkError, SplitSemError
from splitsem.remote import ssh_server
from splitsem.remote.ends import RemoteTransport
from splitsem.remote.grpc.connection import host_port, is_loopback
from splitsem.remote.plan import builtin_decoders
from splitsem.remote.ssh_inventory import Host
from splitsem.remote.ssh_server import SshServer
from splitsem.workflows.assemble import Network
from splitsem.workflows.codec_options import is_for_one_cut
from splitsem.workflows.result import Metrics
from splitsem.workflows.startup import spin_briefly

log = logging.getLogger(__name__)
_SECTIONS = ("task", "model", "trainer", "device", "seed")
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
    try:
        yield {"start_s": time.perf_counter() - began if is_new else 0.0, "host": host.name}
    except LinkError as exc:
        raise server.explain(exc) from exc


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


_CONF = Path(__file__).parents[2] / "conf"
_CHUNK_BYTES = 1 << 20


class Placement:
    """The edge at the far end of stdin and stdout."""

    def __init__(self) -> None:
        self._tell = os.dup(1)
        os.dup2(2, 1)  # all other prints go to stderr
        self._buffer = b""

    def tell(self, facts: dict[str, Any]) -> None:
        """Send one message."""
        os.write(self._tell, ssh_server.to_line(facts))

    def hear(self) -> dict[str, Any]:
        """The next message. Raises ConfigError for anything that is not a message."""
        while b"\n" not in self._buffer and len(self._buffer) < ssh_server.MAX_LINE_BYTES:
            self._buffer += self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        facts = ssh_server.from_line(line)
        if facts is None or facts.get("protocol") != ssh_server.PROTOCOL_VERSION:
            raise ConfigError(f"expected version {ssh_server.PROTOCOL_VERSION} of the device's hello: update one end")
        return facts

    def receive(self, path: Path, num_bytes: int, sha256: str) -> None:
        """Receive a file's bytes, and keep the file if ``sha256`` fits. Raises ConfigError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with open(handle, "wb") as file:
                digest = self._copy(file, num_bytes)
            if digest != sha256:
                raise ConfigError("the weights that arrived are not those that were announced")
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def end_with_it(self, grace_s: float) -> None:
        """Stop this process when the edge is gone, in order if that takes at most ``grace_s``."""

        def watch() -> None:
            while self._is_there():
                pass
            os.kill(os.getpid(), signal.SIGTERM)  # serve() drains; a process that does not serve yet just ends
            time.sleep(grace_s)
            os._exit(1)

        threading.Thread(target=watch, name="device", daemon=True).start()

    def _copy(self, file: IO[bytes], num_bytes: int) -> str:
        """Write ``num_bytes`` received bytes to ``file``; returns their SHA-256."""
        digest = hashlib.sha256()
        while num_bytes:
            if not self._buffer:
                self._buffer = self._more()
            chunk, self._buffer = self._buffer[:num_bytes], self._buffer[num_bytes:]
            file.write(chunk)
            digest.update(chunk)
            num_bytes -= len(chunk)
        return digest.hexdigest()

    def _is_there(self) -> bool:
        readable, _, _ = select.select([0], [], [], ssh_server.SILENCE_S)
        return bool(readable) and bool(os.read(0, _CHUNK_BYTES))

    def _more(self) -> bytes:
        readable, _, _ = select.select([0], [], [], ssh_server.SILENCE_S)
        data = os.read(0, _CHUNK_BYTES) if readable else b""
        if not data:
            raise ConfigError("the device hung up before the server could start")
        return data


def configuration(sections: dict[str, Any], settings: dict[str, Any]) -> DictConfig:
    """``workflow=serve`` as composed here, with the edge's sections and this machine's own settings.

    Raises ConfigError for a setting that does not exist.
    """
    with initialize_config_dir(version_base="1.3", config_dir=str(_CONF)):
        try:
            cfg = compose("config", ["workflow=serve"])
        except HydraException as exc:
            raise ConfigError(f"workflow=serve of this checkout: {' '.join(str(exc).split())}") from exc
    with open_dict(cfg):
        cfg.update(sections)
    OmegaConf.set_struct(cfg, True)
    for name, value in settings.items():
        try:
            OmegaConf.update(cfg, name, value)
        except OmegaConfBaseException as exc:
            raise ConfigError(f"settings of the host: {str(exc).splitlines()[0]} ({name})") from exc
    return cfg


def main() -> None:
    """Serve one edge."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    spin_briefly()
    placement = Placement()
    hello = placement.hear()
    cfg = configuration(hello["sections"], hello["settings"])
    sha256, num_bytes = str(hello["weights"]["sha256"]), int(hello["weights"]["num_bytes"])
    if not (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
        raise ConfigError("expected the weights' SHA-256 in hexadecimal digits")
    path = Path(cfg.cache_dir) / "received" / f"{sha256}.safetensors"
    is_here = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    placement.tell({"weights": "present" if is_here else "missing", "pid": os.getpid()})
    if not is_here:
        path.unlink(missing_ok=True)
        placement.receive(path, num_bytes, sha256)
    placement.end_with_it(2 * cfg.workflow.grace_s)
    cfg.trainer.weights = str(path)

    from splitsem.workflows import serve  # seconds of imports, while the edge watches for trouble

    with tempfile.TemporaryDirectory() as folder:
        serve.run(cfg, Path(folder), announce=lambda address: placement.tell({"serving": address}))


if __name__ == "__main__":
    try:
        main()
    except SplitSemError as exc:
        sys.exit(str(exc))
