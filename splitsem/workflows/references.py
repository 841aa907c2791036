"""References: what a sweep compares its cuts with — all on the edge, and the sample sent as it is or as a picture.

Each is an evaluation like that of a cut. It is kept in ``cache_dir/references``, named by all that determines it
(weights, data, code, versions, settings) and by this machine since it started, whose coding times are in it. The next
sweep takes it from there.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from splitsem.errors import ConfigError
from splitsem.files import locked, read_or_make, write_whole
from splitsem.json_files import finite
from splitsem.training.fingerprint import fingerprint
from splitsem.workflows import assemble, evaluation
from splitsem.workflows.assemble import Network, spare_folder
from splitsem.workflows.evaluation import Evaluation
from splitsem.workflows.result import Metrics, write_draws
from splitsem_device.this_machine import described, host_id

log = logging.getLogger(__name__)
_GROUPS = ("transport", "hardware", "answer", "device")
_ENDS = ("edge", "server")
_MOST_DRIFT = 0.25  # see ``intervals.wander``


class _Baseline(NamedTuple):
    name: str
    codec: DictConfig
    varied: dict[str, int]  # what tells it from others of its name
    point: str


def evaluate(cfg: DictConfig, network: Network, labels: Metrics) -> None:
    """In a sweep, once for each network, link and pair of machines: all on the edge, and all on the server.

    A picture goes to the server in each way that ``references`` lists, any other sample as it is. Processes that run
    jobs of one sweep share these evaluations: each takes those that no other has begun.

    Args:
        cfg: the job's configuration.
        network: the job's.
        labels: the names of what ran; that of the codec is replaced by the reference's.
    """
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode != RunMode.MULTIRUN or not cfg.references:
        return
    shared: dict[str, Any] = {name: OmegaConf.to_container(cfg[name]) for name in (*_GROUPS, "references")}
    shared["samples"] = [network.graph.granularity, *_samples(cfg)]
    key = hashlib.sha256((network.key + json.dumps(shared, sort_keys=True)).encode()).hexdigest()[:12]
    folder = Path(hydra_cfg.sweep.dir) / "references"
    folder.mkdir(exist_ok=True)
    earlier: list[str] = []
    for baseline in _baselines(cfg.references, network.task.is_image):
        path = folder / f"{'-'.join((key, baseline.name, *map(str, baseline.varied.values())))}.json"
        if path.exists():
            continue
        with locked(path, waits=False) as is_mine:
            if is_mine and not path.exists():
                found, is_new = _found(cfg, network, baseline)
                write_draws(found.draws, path.with_suffix(".npz"))
                metrics = found.metrics | labels | {"codec": baseline.name, "reference": baseline.name}
                write_whole(json.dumps(finite(metrics | baseline.varied), indent=2).encode(), path)
                earlier += [] if is_new else [str(found.metrics["measured_at"])]
    if earlier:
        log.info(
            "References: %d were evaluated at %s (%s); workflow.keep_references=false evaluates them anew",
            len(earlier),
            min(earlier),
            Path(cfg.cache_dir) / "references",
        )


def _baselines(references: DictConfig, is_image: bool) -> Iterator[_Baseline]:
    plain = DictConfig({"_target_": "splitsem.codecs.tensorwise.Identity"})
    yield _Baseline("all_on_edge", plain, {}, "output")
    if not is_image:
        yield _Baseline("input_as_it_is", plain, {}, "input")
        return
    for name, codec in references.items():
        if "quality" in codec and OmegaConf.is_list(codec.quality):
            for quality in codec.quality:
                varied = {"codec.quality": quality}
                yield _Baseline(str(name), DictConfig({**codec, "quality": quality}), varied, "input")
        else:
            yield _Baseline(str(name), codec, {}, "input")


def _found(cfg: DictConfig, network: Network, baseline: _Baseline) -> tuple[Evaluation, bool]:
    """The evaluation of a reference, and whether it was made now."""
    is_new = False

    def make() -> Evaluation:
        nonlocal is_new
        is_new = True
        cut, encoder, decoder = network.graph.cut(baseline.point), *(instantiate(baseline.codec) for _ in range(2))
        made = evaluation.evaluate(cfg, network, cut, encoder, decoder, cfg.workflow.channel_seeds)
        measured_at = datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
        return made._replace(metrics=made.metrics | {"measured_at": measured_at})

    codec = instantiate(baseline.codec)
    is_known = type(codec).__module__.startswith("splitsem.")  # a user's own may read what nothing here sees
    if not (cfg.workflow.keep_references and is_known and host_id()):
        return make(), True
    name = f"{baseline.name}-{_key(cfg, network, baseline, codec)}.safetensors"
    spare = spare_folder()
    folders = [Path(cfg.cache_dir), *([spare] if spare else [])]
    found, _ = read_or_make([folder / "references" / name for folder in folders], _read, make, _write)
    return found, is_new


def _key(cfg: DictConfig, network: Network, baseline: _Baseline, codec: object) -> str:
    """Names all that determines a reference's scores and bytes, and the machine that its times are of.

    The unsplit scores stand for what no setting and no code tells of the network and its samples.
    """
    facts = {name: OmegaConf.to_container(cfg[name], resolve=True) for name in _GROUPS}
    scored = (evaluation.score_unsplit(cfg, network, split) for split in ("test", "val"))
    drawn = hashlib.sha256()
    unsplit = []
    for one in scored:
        unsplit.append(finite(one.metrics))
        drawn.update(b"" if one.draws is None else one.draws.tobytes())
    facts |= {
        "network": network.key,
        "unsplit": [unsplit, drawn.hexdigest()],
        "reference": [OmegaConf.to_container(baseline.codec, resolve=True), baseline.point],
        "samples": [network.graph.granularity, *_samples(cfg)],
        "machine": [host_id(), described(), torch.get_num_threads()],
    }
    parts = codec, network.task, assemble.simulated_link(cfg), *(instantiate(cfg.hardware[end]) for end in _ENDS)
    return fingerprint(facts, (evaluation, *parts), without=("splitsem.report",), cache_dir=Path(cfg.cache_dir))


def _samples(cfg: DictConfig) -> list[int | None]:
    """The settings that say which samples are scored, in which batches, and how often over a lossy link."""
    return [cfg.trainer.batch_size, cfg.workflow.num_samples, cfg.workflow.channel_seeds]


def _write(found: Evaluation, path: Path) -> None:
    """Write it, unless something else took the processor while it was coded: its times would stay."""
    if found.metrics.get("coding_drift", 0.0) > _MOST_DRIFT:
        return
    text = json.dumps(found.metrics)
    facts = {"metrics": text, "sha256": _checksum(text, found.draws)}
    write_whole(safetensors.numpy.save(dict(found.draws), facts), path)


def _read(path: Path) -> Evaluation:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            facts = file.metadata() or {}
            draws = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if facts["sha256"] != _checksum(facts["metrics"], draws):
            raise ConfigError(f"{path} was damaged or changed since it was written (checksum)")
        return Evaluation(json.loads(facts["metrics"]), draws)
    except (OSError, KeyError, safetensors.SafetensorError) as exc:
        raise ConfigError(f"{path} is damaged ({exc})") from exc


def _checksum(text: str, draws: Mapping[str, NDArray[np.float32]]) -> str:
    parts = [
        f"{name} {draws[name].dtype} {draws[name].shape} ".encode() + draws[name].tobytes() for name in sorted(draws)
    ]
    return hashlib.sha256(b"".join([text.encode(), *parts])).hexdigest()
