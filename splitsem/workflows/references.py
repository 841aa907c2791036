"""References: what a sweep compares its cuts with — all on the edge, and the sample sent as it is or as a picture.

Each is an evaluation like that of a cut. It is kept in ``cache_dir/references``, named by all that determines it
(weights, data, code, versions, settings) and by this machine since it started, whose coding times are in it. The next
sweep takes it from there.
"""

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.errors import ConfigError
from splitsem.files import locked, read_or_make, write_whole
from splitsem.json_files import finite
from splitsem.training.fingerprint import fingerprint
from splitsem.workflows import evaluation
from splitsem.workflows.assemble import Network, spare_folder
from splitsem.workflows.evaluation import Evaluation
from splitsem.workflows.result import Metrics, write_draws
from splitsem_device.this_machine import host_id

log = logging.getLogger(__name__)
_GROUPS = ("transport", "hardware", "answer", "device")
_METRICS = "metrics"


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
    shared |= {name: cfg.workflow[name] for name in ("num_samples", "channel_seeds")}
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
        codecs = instantiate(baseline.codec), instantiate(baseline.codec)
        cut = network.graph.cut(baseline.point)
        made = evaluation.evaluate(cfg, network, cut, *codecs, cfg.workflow.channel_seeds)
        measured_at = datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
        return made._replace(metrics=made.metrics | {"measured_at": measured_at})

    if not cfg.workflow.keep_references:
        return make(), True
    name = f"{baseline.name}-{_key(cfg, network, baseline)}.npz"
    spare = spare_folder()
    folders = [Path(cfg.cache_dir), *([spare] if spare else [])]
    found, _ = read_or_make([folder / "references" / name for folder in folders], _read, make, _write)
    return found, is_new


def _key(cfg: DictConfig, network: Network, baseline: _Baseline) -> str:
    """Names all that determines a reference's scores and bytes, and the machine that its times are of."""
    facts = {name: OmegaConf.to_container(cfg[name], resolve=True) for name in _GROUPS}
    facts |= {
        "network": network.key,
        "granularity": network.graph.granularity,
        "reference": [OmegaConf.to_container(baseline.codec, resolve=True), baseline.point],
        "samples": [cfg.trainer.batch_size, cfg.workflow.num_samples, cfg.workflow.channel_seeds],
        "machine": [host_id(), torch.get_num_threads()],
    }
    return fingerprint(facts, (evaluation, network.task), without=("splitsem.report",), cache_dir=Path(cfg.cache_dir))


def _write(found: Evaluation, path: Path) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(found.draws)
    arrays[_METRICS] = np.array(json.dumps(found.metrics))
    np.savez(buffer, **arrays)
    write_whole(buffer.getvalue(), path)


def _read(path: Path) -> Evaluation:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        return Evaluation(json.loads(arrays.pop(_METRICS).item()), arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as exc:
        raise ConfigError(f"{path} is damaged ({exc})") from exc
