"""Names that have changed: the table that refuses an old name with the new one, before anything is trained.

Imported by every run, so it imports nothing heavy.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from splitsem.errors import RenamedError

_TASKS = ("cifar10", "cifar100", "digits", "disaster", "domains", "fashion_mnist", "imagefolder", "netqos")
_MODELS = dict.fromkeys(_TASKS, "model=cnn") | {"disaster": "model=unet", "netqos": "model=lstm"}

OPTIONS: dict[str, dict[str, str]] = {
    "transport": {"measured": "transport=recorded"},
    "workflow": {"export": "workflow=bundle"},
    "codec": {
        "crbq1": "codec=crbq codec.code_channels=1",
        "crbq6": "codec=crbq codec.code_channels=6",
        "deepcod_noise": "codec=deepcod codec.code_channels=11 codec.stride=4 codec.snr_range_db=[-6,7]",
        "entropic_student_high": "codec=entropic_student codec.stages.distil.rate_weight=1e-4",
        "entropic_student_low": "codec=entropic_student codec.stages.distil.rate_weight=1e-2",
        "fixed1": "codec=fixed codec.bit_width=1",
        "fixed2": "codec=fixed codec.bit_width=2",
        "fixed4": "codec=fixed codec.bit_width=4",
        "semanticnn_deep": "codec=semanticnn codec.code_channels=33 codec.bits_per_symbol=1 "
        "codec.encoder_widths=[32,64]",
        "semanticnn_random": "codec=semanticnn codec.centres=random",
        "topk1": "codec=topk_quant codec.keep_ratio=0.01",
    },
    "model": _MODELS,
    "trainer": dict.fromkeys(_TASKS, "trainer=default"),
}
"""Options of the configuration's groups, and what is given in their place."""

CLASSES = {
    "splitsem.remote.ends.Answer": "splitsem_device.answers.Answer",
    "splitsem.remote.ends.EdgeEnd": "splitsem.remote.edge_end.EdgeEnd",
    "splitsem.remote.ends.RemoteTail": "splitsem_device.answers.RemoteTail",
    "splitsem.remote.fallback.Retry": "splitsem_device.retry.Backoff",
    "splitsem.remote.plan.TrainingPlan": "splitsem.remote.training_plan.TrainingPlan",
    "splitsem.remote.plan.codec_label": "splitsem.remote.labels.codec_label",
    "splitsem.remote.plan.weights_digest": "splitsem.remote.labels.weights_digest",
    "splitsem.remote.retry.Retry": "splitsem_device.retry.Backoff",
    "splitsem.device.Device": "splitsem.placement.Placement",
    "splitsem.transport.measured.MeasuredLink": "splitsem.links.probed.ProbedLink",
    "splitsem.links.probed.MeasuredLink": "splitsem.links.probed.ProbedLink",
    "splitsem.workflows.device_end.DeviceEnd": "splitsem.remote.edge_end.EdgeEnd",
    "splitsem.workflows.splitfed.workflow.run": "splitsem.workflows.federated.workflow.run_splitfed",
    "splitsem.workflows.federated.simulated.simulate": "splitsem.workflows.federated.rounds.simulate",
}
"""What has another name, or left a module whose other names went elsewhere."""

MODULES = {
    "splitsem.workflows.export": "splitsem.workflows.device_bundle",
    "splitsem.remote.grpc.client": "splitsem_device.grpc.client",
    "splitsem.remote.grpc.connection": "splitsem_device.grpc.connection",
    "splitsem.remote.grpc.frames": "splitsem_device.grpc.frames",
    "splitsem.remote.ends": "splitsem.remote.transports",
    "splitsem.remote.fallback": "splitsem_device.fallback",
    "splitsem.remote.peer_text": "splitsem_device.peer_text",
    "splitsem.remote.plan": "splitsem_device.plan",
    "splitsem.remote.retry": "splitsem_device.retry",
    "splitsem.split": "splitsem.splitting",
    "splitsem.codecs.half": "splitsem.codecs.tensorwise",
    "splitsem.codecs.identity": "splitsem.codecs.tensorwise",
    "splitsem.codecs.learned.stage": "splitsem.codecs.learned.learned",
    "splitsem.cost.local": "splitsem.cost.machines",
    "splitsem.cost.machine": "splitsem.cost.machines",
    "splitsem.cost.measure_branches": "splitsem.cost.branch_meter",
    "splitsem.cost.roofline": "splitsem.cost.machines",
    "splitsem.device": "splitsem.placement",
    "splitsem.federated.adaptive_clipping": "splitsem.federated.privacy",
    "splitsem.lightning.split_module": "splitsem.remote.split_module",
    "splitsem.lightning.local_module": "splitsem.training.modules",
    "splitsem.lightning.task_module": "splitsem.training.modules",
    "splitsem.lightning.weights": "splitsem.training.kept_weights",
    "splitsem.lightning": "splitsem.training",
    "splitsem.logs": "splitsem.workflows.startup",
    "splitsem.models.timm_models": "splitsem.models.ready_made",
    "splitsem.models.torchvision_models": "splitsem.models.ready_made",
    "splitsem.models.weights": "splitsem.models.checkpoints",
    "splitsem.optimise.choices": "splitsem.search.problem",
    "splitsem.optimise.goals": "splitsem.search.fronts",
    "splitsem.optimise.measured": "splitsem.search.problem",
    "splitsem.optimise.rates": "splitsem.search.rate_table",
    "splitsem.optimise.tiers": "splitsem.search.fronts",
    "splitsem.optimise": "splitsem.search",
    "splitsem.pareto": "splitsem.report.pareto",
    "splitsem.plots": "splitsem.report",
    "splitsem.sweep": "splitsem.workflows.sweep",
    "splitsem.tracking": "splitsem.workflows.tracking",
    "splitsem.training.engine": "splitsem.remote.training_engine",
    "splitsem.transport.channels.awgn": "splitsem.links.fading",
    "splitsem.transport.channels.bsc": "splitsem.links.channel",
    "splitsem.transport.channels.channel": "splitsem.links.channel",
    "splitsem.transport.channels.erasure": "splitsem.links.channel",
    "splitsem.transport.channels.gilbert_elliott": "splitsem.links.channel",
    "splitsem.transport.channels.modulation": "splitsem.links.modulation",
    "splitsem.transport.channels.rayleigh": "splitsem.links.fading",
    "splitsem.transport.fallback": "splitsem_device.fallback",
    "splitsem.transport.fec.code": "splitsem.links.fec",
    "splitsem.transport.fec.convolutional": "splitsem.links.fec",
    "splitsem.transport.fec.repetition": "splitsem.links.fec",
    "splitsem.transport.grpc.limits": "splitsem.remote.grpc.streams",
    "splitsem.transport.grpc.security": "splitsem_device.grpc.connection",
    "splitsem.transport.grpc": "splitsem.remote.grpc",
    "splitsem.transport.link_metrics": "splitsem.links.recorded",
    "splitsem.transport.measured": "splitsem.links.probed",
    "splitsem.transport.plan": "splitsem_device.plan",
    "splitsem.transport.remote": "splitsem.remote.transports",
    "splitsem.transport.retry": "splitsem_device.retry",
    "splitsem.transport.udp": "splitsem.remote.udp",
    "splitsem.transport": "splitsem.links",
    "splitsem.workflows.codec": "splitsem.workflows.learned_codec",
    "splitsem.workflows.domains": "splitsem.workflows.show_domains",
}
"""Modules and packages; the longest name that fits counts."""


def new_option(group: str, option: str, package: str = "") -> str | None:
    """What is said in place of ``group=option``, or of ``group@package=option``; None where the name is no old one.

    >>> new_option("codec", "fixed4", "trainer.gradient_codec")
    'codec@trainer.gradient_codec=fixed trainer.gradient_codec.bit_width=4'
    """
    new = OPTIONS.get(group, {}).get(option)
    if new is None or not package:
        return new
    return new.replace(f"{group}.", f"{package}.").replace(f"{group}=", f"{group}@{package}=")


def new_target(target: str) -> str | None:
    """The new dotted path of an old one, else None.

    >>> new_target("splitsem.transport.fec.repetition.Repetition")
    'splitsem.links.fec.Repetition'
    """
    if target in CLASSES:
        return CLASSES[target]
    parts = target.split(".")
    for length in range(len(parts) - 1, 1, -1):
        if new := MODULES.get(".".join(parts[:length])):
            return ".".join([new, *parts[length:]])
    return None


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise RenamedError where the command line chooses an option by an old name that the user's folder lacks, too."""
    folders = list(_config_folders(arguments))
    for argument in arguments:
        match = re.fullmatch(r"[+~]*(\w+)(?:@([\w.]+))?=(.*)", argument)
        for option in re.findall(r"\w+", match[3]) if match else ():
            assert match
            group, package = match[1], match[2] or ""
            new = new_option(group, option, package)
            if new and not any((folder / group / f"{option}.yaml").exists() for folder in folders):
                at = f"@{package}" if package else ""
                raise RenamedError(f"{group}{at}={option} is no more: give {new}")


def check_composed(cfg: DictConfig) -> None:
    """Raise RenamedError where a composed configuration names a class by an old path, or relies on a task's old files.

    The latter are ``model/<task>.yaml`` and ``trainer/<task>.yaml`` in a folder of the user's, which a task once took
    by its name.
    """
    for where, target in _targets(cfg):
        if new := new_target(target):
            raise RenamedError(f"{where}={target} is no more: write {new}")
    choices, named = cfg.hydra.runtime.choices, {line.partition("=")[0] for line in cfg.hydra.overrides.task}
    task = choices.task
    folders = [Path(source.path) for source in cfg.hydra.runtime.config_sources if source.schema == "file"]
    for group in ("model", "trainer"):
        if group in named or choices[group] == task:
            continue
        if file := next((f for folder in folders if (f := folder / group / f"{task}.yaml").exists()), None):
            raise RenamedError(
                f"{file} is no longer taken because of its name: give {group}={task}, or write "
                f"`override /{group}@_global_.{group}: {task}` at the end of the defaults in task/{task}.yaml"
            )


def table() -> str:
    """All of it as a Markdown table, for CHANGELOG.md."""
    rows = [(f"`{group}={old}`", f"`{new}`") for group, options in OPTIONS.items() for old, new in options.items()]
    rows += [(f"`{old}`", f"`{new}`") for old, new in sorted((CLASSES | MODULES).items())]
    rows.append(("`device_end()` of a transport", "`edge_end()`"))
    return "\n".join(["| before | now |", "|---|---|", *(f"| {old} | {new} |" for old, new in rows)])


def _config_folders(arguments: Sequence[str]) -> Iterator[Path]:
    """Folders that ``--config-dir`` and its like name."""
    flags = ("--config-dir", "-cd", "--config-path", "-cp")
    for i, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in flags and (value or i + 1 < len(arguments)):
            yield Path(value or arguments[i + 1])


def _targets(node: object, where: str = "") -> Iterator[tuple[str, str]]:
    """Each ``_target_`` below the node: its dotted place and its value."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        if where == "hydra":
            return
        for key, value in node.items_ex(resolve=False):
            if key == "_target_" and isinstance(value, str):
                yield f"{where}.{key!s}".lstrip("."), value
            yield from _targets(value, f"{where}.{key!s}".lstrip("."))
    elif isinstance(node, ListConfig) and not node._is_none() and not node._is_missing():
        for i in range(len(node)):
            if OmegaConf.is_config(child := node._get_node(i)):
                yield from _targets(child, f"{where}[{i}]")
