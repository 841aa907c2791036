"""The server that an edge starts over ssh: settings and weights come on stdin, and it ends when the edge does.

``splitsem.remote.ssh_server``, which documents the messages, starts this module with ``python -m`` in the checkout's
folder. stdout is for messages only; everything else goes to stderr.
"""

import contextlib
import hashlib
import logging
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from splitsem.errors import ConfigError, SplitSemError, coded
from splitsem.files import CONF, make_folder, reason
from splitsem.remote import ssh_session
from splitsem.remote.ssh_server import PROTOCOL_VERSION, SILENCE_S
from splitsem.workflows.startup import spin_briefly

_CHUNK_BYTES = 1 << 20


class Edge:
    """The edge at the far end of stdin and stdout."""

    def __init__(self) -> None:
        self._tell = os.dup(1)
        os.dup2(2, 1)  # all other prints go to stderr
        self._buffer = b""

    def tell(self, facts: dict[str, Any]) -> None:
        """Send one message."""
        os.write(self._tell, ssh_session.to_line(facts))

    def hear(self) -> dict[str, Any]:
        """The next message. Raises ConfigError for anything that is not a message."""
        while b"\n" not in self._buffer and len(self._buffer) < ssh_session.MAX_LINE_BYTES:
            self._buffer += self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        facts = ssh_session.from_line(line)
        if facts is None or facts.get("protocol") != PROTOCOL_VERSION:
            raise ConfigError(f"expected version {PROTOCOL_VERSION} of the edge's hello: update one end")
        return facts

    def receive(self, path: Path, num_bytes: int, sha256: str) -> None:
        """Receive a file's bytes, and keep the file if ``sha256`` fits. Raises ConfigError."""
        scratch = path.with_suffix(f".{os.getpid()}.part")
        try:
            make_folder(path.parent)
            with open(scratch, "xb") as file:
                digest = self._copy(file, num_bytes)
            if digest != sha256:
                raise ConfigError("the weights that arrived are not those that were announced")
            os.replace(scratch, path)
        except OSError as exc:
            raise ConfigError(f"the server's machine cannot keep the weights: {reason(exc)}") from exc
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)

    def end_with_it(self, grace_s: float) -> None:
        """Stop this process when the edge is gone, in order if that takes at most ``grace_s``."""

        def watch() -> None:
            while self._is_there():
                pass
            os.kill(os.getpid(), signal.SIGTERM)  # serve() drains; a process that does not serve yet just ends
            time.sleep(grace_s)
            os._exit(1)

        threading.Thread(target=watch, name="edge", daemon=True).start()

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
        readable, _, _ = select.select([0], [], [], SILENCE_S)
        return bool(readable) and bool(os.read(0, _CHUNK_BYTES))

    def _more(self) -> bytes:
        readable, _, _ = select.select([0], [], [], SILENCE_S)
        data = os.read(0, _CHUNK_BYTES) if readable else b""
        if not data:
            raise ConfigError("the edge hung up before the server could start")
        return data


def configuration(sections: dict[str, Any], settings: dict[str, Any]) -> DictConfig:
    """``workflow=serve`` as composed here, with the edge's sections and this machine's own settings.

    Raises ConfigError for a setting that does not exist.
    """
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        try:
            cfg = compose("config", ["workflow=serve"])
        except HydraException as exc:
            raise ConfigError(f"workflow=serve of this checkout: {' '.join(str(exc).split())}") from exc
    with open_dict(cfg):
        cfg.update(sections)
    return with_settings(cfg, settings)


def with_settings(cfg: DictConfig, settings: Mapping[str, Any]) -> DictConfig:
    """A copy with a machine's own settings, by dotted names. Raises ConfigError for one that does not exist."""
    cfg = cfg.copy()
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
    edge = Edge()
    hello = edge.hear()
    cfg = configuration(hello["sections"], hello["settings"])
    sha256, num_bytes = str(hello["weights"]["sha256"]), int(hello["weights"]["num_bytes"])
    if not (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")):
        raise ConfigError("expected the weights' SHA-256 in hexadecimal digits")
    path = Path(cfg.cache_dir) / "received" / f"{sha256}.safetensors"
    is_here = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    edge.tell({"weights": "present" if is_here else "missing", "pid": os.getpid()})
    if not is_here:
        edge.receive(path, num_bytes, sha256)
    edge.end_with_it(2 * cfg.workflow.grace_s)
    cfg.trainer.weights = str(path)

    from splitsem.workflows import serve  # seconds of imports, while the edge watches for trouble

    with tempfile.TemporaryDirectory() as folder:
        serve.run(cfg, Path(folder), announce=lambda address: edge.tell({"serving": address}))


if __name__ == "__main__":
    try:
        main()
    except SplitSemError as exc:
        sys.exit(coded(exc, exc.code))
