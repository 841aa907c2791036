"""mode=real: head here and tail in a process that is started for it, over a real link; tables and times measured there.

Server and device are ``run.py`` themselves (workflow=serve, workflow=offload), with the overrides of this run.
"""

import contextlib
import itertools
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

import splitsem
from splitsem.errors import ConfigError, LinkError
from splitsem.workflows.joint_store import Document

log = logging.getLogger(__name__)
_RUN_PY = Path(splitsem.__file__).parent.parent / "run.py"
_OWN = ("workflow", "optimise", "transport", "codec", "split.", "model.gamma", "tracking", "hydra", "cache_dir")
_START_S, _STOP_S = 180.0, 30.0


class RealPair:
    """A server process and this machine as its device.

    Args:
        cfg: the configuration; ``workflow.server_prefix`` comes before the server's command, such as
            ``[ip, netns, exec, far]`` or ``[taskset, -c, "1"]``; it must see the same folders.
        folder: of this run; what the processes write lies in ``folder/real``.

    Raises:
        ConfigError: the transport is no real one.
    """

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        choices = HydraConfig.get().runtime.choices
        self.transport = choices["transport"]
        if "target" not in cfg.transport or "bind" not in cfg.transport:
            raise ConfigError(f"workflow.mode=real needs transport=grpc or transport=udp, got {self.transport}")
        self.cfg, self.folder = cfg, (folder / "real").absolute()
        self.prefix = [str(word) for word in cfg.workflow.server_prefix]
        given = HydraConfig.get().overrides.task
        shared = [entry for entry in given if not entry.lstrip("+~").startswith((*_OWN, "model="))]
        self.shared = [*shared, f"model={choices['model']}"]
        links = [entry for entry in given if entry.startswith("transport.")]
        self.links = [e for e in links if not e.startswith(("transport.target=", "transport.bind="))]
        self._numbers = itertools.count()

    def server_table(self) -> Path:
        """The LUT that the server process measures of its own machine."""
        folder = self.folder / "server_lut"
        lut = ["workflow=joint", "workflow.steps=[lut]", "workflow.edge_slowdown=1", "transport=ethernet"]
        joint = [e for e in HydraConfig.get().overrides.task if e.startswith(("workflow.meter", "workflow.rates_s"))]
        own_cache = f"cache_dir={Path(self.cfg.cache_dir).absolute() / 'server'}"
        log.info("The server's process measures its machine")
        self._call([*self.prefix, *self._command(*self.shared, *lut, *joint, own_cache, f"hydra.run.dir={folder}")])
        document = json.loads((folder / "hardware_lut_complete.json").read_text(encoding="utf-8"))
        path = folder / "server.json"
        path.write_text(json.dumps(document["server"]), encoding="utf-8")
        return path

    def offload(self, gammas: Sequence[int], split_indices: Sequence[int]) -> list[Document]:
        """Metrics of ``workflow=offload``, float32 features, of the network with these γ at each cut; one server."""
        form = f"model.gamma=[{','.join(map(str, gammas))}]"
        with self._serving(form) as address:
            folder = self.folder / f"offload{next(self._numbers)}"
            given = [f"transport={self.transport}", *self.links, f"transport.target={address}", "workflow=offload"]
            given += [f"workflow.num_timed={self.cfg.workflow.num_timed}"]
            given += [f"split.index={','.join(map(str, split_indices))}", f"hydra.sweep.dir={folder}"]
            if self.cfg.workflow.num_samples is not None:
                given.append(f"workflow.num_samples={self.cfg.workflow.num_samples}")
            self._call(self._command("-m", *self.shared, *given, form, "codec=identity", self._cache))
        paths = [folder / str(job) / "metrics.json" for job in range(len(split_indices))]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    @property
    def _cache(self) -> str:
        return f"cache_dir={Path(self.cfg.cache_dir).absolute()}"

    @contextlib.contextmanager
    def _serving(self, form: str) -> Iterator[str]:
        folder = self.folder / f"serve{next(self._numbers)}"
        host = self.cfg.transport.bind.rpartition(":")[0]
        given = [f"transport={self.transport}", *self.links, f"transport.bind={host}:0", "workflow=serve"]
        command = self._command(*self.shared, *given, form, "codec=identity", f"hydra.run.dir={folder}", self._cache)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "output.txt").open("w") as output:
            process = subprocess.Popen([*self.prefix, *command], stdout=output, stderr=subprocess.STDOUT)
            try:
                yield self._address(process, folder)
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    @staticmethod
    def _address(process: subprocess.Popen[bytes], folder: Path) -> str:
        path, give_up = folder / "address.txt", time.monotonic() + _START_S
        while not (path.exists() and path.read_text().endswith("\n")):
            if process.poll() is not None or time.monotonic() > give_up:
                raise LinkError(f"the server did not start: {_last_line(folder / 'output.txt')}")
            time.sleep(0.05)
        return path.read_text().strip()

    @staticmethod
    def _command(*overrides: str) -> list[str]:
        return [sys.executable, str(_RUN_PY), *dict.fromkeys(overrides), "tracking=none"]

    def _call(self, command: Sequence[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"output{next(self._numbers)}.txt"
        with path.open("w") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise LinkError(f"a process of mode=real failed: {_last_line(path)}")


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Set the environment variable")]
    return f"{told[-1].strip() if told else 'it said nothing'} ({path})"
