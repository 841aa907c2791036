"""mode=real: the processes at both ends of a real link, which measure tables and times, run frames and train.

Each process is a ``splitsem`` (workflow=serve, offload, split_train) with this run's task, model and training.
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
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.errors import ConfigError, LinkError
from splitsem.files import read_or_make, write_whole
from splitsem.models.repvgg import HyperRepVgg
from splitsem.training.fingerprint import fingerprint
from splitsem.workflows import assemble
from splitsem.workflows.joint.base import Document

_LEFT_OUT = ("splitsem.workflows", "splitsem.report", "splitsem.remote.grpc")  # none of these packages changes a number


log = logging.getLogger(__name__)
_SHARED = ("task", "model", "trainer", "device")
_START_S, _STOP_S = 180.0, 30.0


class FrameJob(NamedTuple):
    """The frames of one network at one cut.

    Attributes:
        network: place of the network among the networks that are served.
        cut: λ.
        num_samples: number of samples that are scored; None for all.
    """

    network: int
    cut: int
    num_samples: int | None


class RealPair:
    """One process as the server and one as the edge, on this machine or wherever the prefixes lead.

    The processes get this run's composed settings as a file.

    Args:
        cfg: the configuration; ``workflow.server_prefix`` and ``edge_prefix`` come before the commands of the two ends,
            such as ``[ip, netns, exec, far]`` or ``[taskset, -c, "1"]``; both ends must see the same folders.
        folder: folder of this run; what the processes write lies in ``folder/real``.

    Raises:
        ConfigError: the transport is not a real link.
    """

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self.choices = HydraConfig.get().runtime.choices
        self.transport = self.choices["transport"]
        if "target" not in cfg.transport or "bind" not in cfg.transport:
            raise ConfigError(f"workflow.mode=real needs transport=grpc or transport=udp, got {self.transport}")
        self.cfg, self.folder = cfg, (folder / "real").absolute()
        self.prefixes = {end: [str(word) for word in cfg.workflow[f"{end}_prefix"]] for end in ("edge", "server")}
        self.weights: str | None = None
        self._numbers = itertools.count()

    def table(self, end: str) -> Document:
        """The LUT that a process at ``end``, ``edge`` or ``server``, measures of its machine."""
        folder = self.folder / f"{end}_lut"
        workflow = {name: _plain(self.cfg.workflow[name]) for name in ("meter", "rates_s")}
        own = ["workflow=joint", "workflow.steps=[lut]", "workflow.edge_slowdown=1", "transport=ethernet"]
        own += [
            f"cache_dir={folder / 'cache'}",
            f"hydra.run.dir={folder}",
        ]  # the caller keeps the table
        log.info("A process at the %s measures its machine", end)
        self._call(end, own, {"workflow": workflow})
        document = json.loads((folder / "hardware_lut_complete.json").read_text(encoding="utf-8"))
        table: Document = document[end]
        return table

    def offload(self, networks: Sequence[Sequence[int]], jobs: Sequence[FrameJob], num_paced: int) -> list[Document]:
        """Metrics of ``workflow=offload`` with float32 features: one job after the other, one server a network.

        Args:
            networks: for each network, γ of every unit.
            jobs: the frames to run.
            num_paced: most frames whose pace is measured.
        """
        with self._serving(*({"model": {"gamma": list(gammas)}} for gammas in networks)) as addresses:
            folder = self.folder / f"offload{next(self._numbers)}"
            own = [f"transport={self.transport}", "workflow=offload", "codec=identity", self._cache]
            own += ["answer=raw", "answer.at=server"]  # so that frames also travel where all units run on the edge
            own.append("split.point=null")  # each job gives split.index
            given: Document = {"num_timed": self.cfg.workflow.num_timed, "num_paced": num_paced}
            given["num_probes"] = 5  # the prediction of workflow=offload is not used
            settings = [
                {
                    "transport": self._link["transport"] | {"target": addresses[job.network]},
                    "model": {"gamma": list(networks[job.network])},
                    "split": {"index": job.cut},
                    "workflow": given | {"num_samples": job.num_samples},
                }
                for job in jobs
            ]
            self._call("edge", [*own, f"hydra.sweep.dir={folder}", "-m"], *settings)
        paths = [folder / str(number) / "metrics.json" for number in range(len(jobs))]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]

    def split_train(self, point: str) -> Path:
        """The weights after ``workflow=split_train``, float32 features, gradients and labels: head here, tail there."""
        with self._serving({"workflow": {"training": True}}) as [address]:
            folder = self.folder / f"trained{next(self._numbers)}"
            own = [f"transport={self.transport}", f"transport.target={address}", "workflow=split_train", self._cache]
            self._call("edge", [*own, f"split.point={point}", "codec=identity", f"hydra.run.dir={folder}"], self._link)
        return folder / "weights.safetensors"

    @property
    def _cache(self) -> str:
        return f"cache_dir={Path(self.cfg.cache_dir).absolute()}"

    @property
    def _link(self) -> Document:
        """The transport's settings, without addresses, which each call gives."""
        return {"transport": _plain(self.cfg.transport)}

    @contextlib.contextmanager
    def _serving(self, *settings: Document) -> Iterator[list[str]]:
        """Addresses of servers, one for each of ``settings``, which are started side by side."""
        with contextlib.ExitStack() as stack:
            servers = [stack.enter_context(self._server(one)) for one in settings]
            yield [self._address(process, folder) for process, folder in servers]

    @contextlib.contextmanager
    def _server(self, settings: Document) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        folder = self.folder / f"serve{next(self._numbers)}"
        host = self.cfg.transport.bind.rpartition(":")[0]
        own = [f"transport={self.transport}", f"transport.bind={host}:0", "workflow=serve", "codec=identity"]
        command = self._command("server", [*own, f"hydra.run.dir={folder}", self._cache], self._link | settings)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "output.txt").open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                yield process, folder
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

    def _command(self, end: str, own: Sequence[str], *settings: Document) -> list[str]:
        """Command of ``run.py`` at ``end``: a job for each of ``settings`` over this run, with ``own`` overrides."""
        conf = self.folder / "conf"
        (conf / "experiment").mkdir(parents=True, exist_ok=True)
        names = []
        for one in settings:
            names.append(f"settings{next(self._numbers)}")
            merged = OmegaConf.merge(OmegaConf.create(self._settings), OmegaConf.create(one))
            text = "# @package _global_\n" + OmegaConf.to_yaml(merged)
            (conf / "experiment" / f"{names[-1]}.yaml").write_text(text, encoding="utf-8")
        groups = [f"{group}={option}" for group, option in self.choices.items() if _is_shared(group) and option]
        fixed = [f"--config-dir={conf}", f"experiment={','.join(names)}", *groups, "tracking=none"]
        return [*self.prefixes[end], sys.executable, "-m", "splitsem", *fixed, *own]

    @property
    def _settings(self) -> Document:
        shared: Document = {name: _plain(self.cfg[name]) for name in _SHARED}
        if self.weights is not None:
            shared["trainer"]["weights"] = self.weights
        return shared | {"seed": self.cfg.seed, "split": {"granularity": self.cfg.split.granularity}}

    def _call(self, end: str, own: Sequence[str], *settings: Document) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"output{next(self._numbers)}.txt"
        command = self._command(end, own, *settings)
        with path.open("w") as output:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise LinkError(f"a process of mode=real failed: {_last_line(path)}")


def _is_shared(group: str) -> bool:
    """Whether both ends share a group of the configuration, such as ``task`` or ``task@task.base``."""
    return not group.startswith("task/settings") and group.rpartition("@")[2].partition(".")[0] in _SHARED


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("Set the environment variable")]
    return f"{told[-1].strip() if told else 'it said nothing'} ({path})"


def split_weights(cfg: DictConfig, untrained: HyperRepVgg, pair: RealPair, point: str) -> str:
    """The file of weights that were trained split between the processes of ``pair``, which use them from then on.

    The file lies beside other kept weights, as ``split-<key>.safetensors``.

    Raises:
        ConfigError: there is a penalty on α.
    """
    if untrained.alpha_l1 > 0:
        raise ConfigError("workflow.trains_split sends no model.alpha_l1 over the link; set it to 0, or train here")
    pair.weights = str(_kept(cfg, untrained, pair, point).absolute())
    return pair.weights


def _kept(cfg: DictConfig, untrained: HyperRepVgg, pair: RealPair, point: str) -> Path:
    names = ("task", "model", "trainer")
    facts: dict[str, Any] = {name: OmegaConf.to_container(cfg[name], resolve=True) for name in names}
    for name in untrained.deploy_settings:
        del facts["model"][name]
    transport = cfg.transport["_target_"]  # the transport's settings change no number
    facts |= {"seed": cfg.seed, "trains_split": point, "transport": transport}
    fit = instantiate(assemble.trainer_settings(cfg))
    objects = (instantiate(cfg.task), untrained, fit, "splitsem.workflows.split_train")
    key = fingerprint(facts, objects, without=_LEFT_OUT, cache_dir=Path(cfg.cache_dir))
    path = Path(cfg.cache_dir) / "weights" / f"split-{key}.safetensors"

    def read(path: Path) -> Path:
        log.info("Weights of a split training at %s: %s", point, path)
        return path

    def train() -> Path:
        log.info("Training split at %s, head here and tail on the server (kept in %s)", point, path)
        return Path(pair.split_train(point))

    made, kept = read_or_make([path], read, train, lambda made, path: write_whole(made.read_bytes(), path))
    return kept or made
