"""transformers_model: any network of transformers that classifies pictures or texts, or segments, from a configuration
or from a local folder; nothing is downloaded and no code of a folder runs."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from splitsem import extras
from splitsem.errors import ModelError
from splitsem.models.image_front import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NUM_SUGGESTIONS,
    ImageFront,
    attach,
    check_output,
    first_line,
    front_of,
    resized,
)

log = logging.getLogger(__name__)


class _Head(NamedTuple):
    """What networks are asked to do: in words, transformers' class for it, and the name of its table of networks."""

    purpose: str
    auto_class: str
    table: str


class _Preprocessor(msgspec.Struct):
    """What preprocessor_config.json says of the normalisation."""

    do_normalize: bool = True
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    image_std: tuple[float, float, float] = IMAGENET_STD


_SEGMENTS = _Head("segments pictures", "AutoModelForSemanticSegmentation", "SEMANTIC_SEGMENTATION")
_CLASSIFIES = _Head("classifies pictures", "AutoModelForImageClassification", "IMAGE_CLASSIFICATION")
_READS = _Head("classifies texts", "AutoModelForSequenceClassification", "SEQUENCE_CLASSIFICATION")

# What transformers' constructors raise for sizes that do not fit each other.
_MISFITS = (TypeError, ValueError, RuntimeError, AssertionError, LookupError, AttributeError, ZeroDivisionError)
_UNREADABLE = (*_MISFITS, OSError, SafetensorError)
_PAD = 0


def transformers_model(
    name: str,
    output_shape: Sequence[int],
    input_shape: Sequence[int] = (),
    vocabulary_size: int | None = None,
    sequence_length: int | None = None,
    config: dict[str, Any] | None = None,
    image_size: int | None = None,
    attention: Literal["eager", "sdpa"] = "eager",
) -> nn.Module:
    """Build a network of transformers with a head for the task's classes.

    Its modules and weights keep transformers' names. A network for pictures takes them in [0, 1], of one or three
    channels; resizing, repeating of a grey channel and the normalisation happen inside (``front``). A network for texts
    takes ``input_ids`` and ``attention_mask``, both ``(batch, sequence_length)``, by name. One tensor comes out: logits
    ``(batch, classes)``, or ``(batch, classes, height, width)`` at the picture's own size.

    Args:
        name: transformers' type of network, e.g. ``segformer`` or ``bert``, which starts from random weights; or a
            local folder with ``config.json`` and ``model.safetensors``.
        output_shape: ``(classes,)`` or ``(classes, height, width)``.
        input_shape: ``(1 or 3, height, width)`` of one picture; ``()`` for texts.
        vocabulary_size: how many kinds of tokens texts are made of, 0 being the padding; None for pictures.
        sequence_length: tokens of a text; None for pictures.
        config: settings of transformers' configuration, e.g. ``{"hidden_size": 64}``.
        image_size: height and width that the network sees; None leaves the picture's own.
        attention: how attention is computed: step by step, or as one operation, in which no cut is possible.

    Raises:
        ModelError: transformers is not installed; there is no such network or folder; it does not do what the task
            needs; a setting is unknown; the weights do not fit.
    """
    library = _library()
    is_text = vocabulary_size is not None and sequence_length is not None
    head = _READS if is_text else _SEGMENTS if len(output_shape) == 3 else _CLASSIFIES
    folder = _folder(library, name)
    front = None if head is _READS else ImageFront(input_shape, *_normalisation(folder), image_size)
    settings: dict[str, Any] = {"num_labels": output_shape[0], "use_cache": False}
    if folder is None and front is not None:
        height, width = front.network_size
        settings["image_size"] = height if height == width else [height, width]
    elif folder is None and sequence_length is not None:
        # RoBERTa counts positions from the padding's number on.
        settings |= {
            "vocab_size": vocabulary_size,
            "pad_token_id": _PAD,
            "max_position_embeddings": sequence_length + 2,
        }
    with _quiet(library):
        made = _configuration(library, folder or name, settings, config or {})
        _check_does(library, made, head, name)
        network = _built(library, made, head, attention, folder, output_shape[0])
    network.train().register_forward_hook(_main_logits)
    if front is not None:
        attach(front, network)
        check_output(network, name, torch.zeros(1, *input_shape), output_shape)
    elif vocabulary_size is not None and sequence_length is not None:
        _check_reads(network, name, vocabulary_size, sequence_length)
    return network


def _library() -> ModuleType:
    with extras.needed("transformers", "model=transformers"):
        import transformers  # seconds
    return transformers


@contextlib.contextmanager
def _quiet(library: ModuleType) -> Iterator[None]:
    """Without transformers' own reports and progress bars: what matters of them is told here."""
    logs = library.utils.logging
    level, has_bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logging.CRITICAL)
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if has_bar:
            logs.enable_progress_bar()


def _folder(library: ModuleType, name: str) -> Path | None:
    """The folder that a name means; None for a type of network."""
    if name in library.CONFIG_MAPPING:
        return None
    folder = Path(name).expanduser()
    if not folder.is_dir():
        types = list(library.CONFIG_MAPPING)
        if "/" in name:
            raise ModelError(
                f"{name} is no folder here, and nothing is downloaded: where there is a network, run "
                f"hf download {name} --local-dir {folder.name}; then give the name path/to/{folder.name}"
            )
        close = get_close_matches(name, types, n=NUM_SUGGESTIONS, cutoff=0.5) or ["vit", "segformer", "bert"]
        raise ModelError(f"{name} is neither a network of transformers nor a folder; did you mean {', '.join(close)}?")
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json; a folder of transformers holds config.json and model.safetensors, as "
            "save_pretrained writes them"
        )
    if not any((folder / weights).is_file() for weights in ("model.safetensors", "model.safetensors.index.json")):
        others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.h5") for path in folder.glob(pattern))
        found = f", but {others[0]}, which is not read since it may run code" if others else ""
        raise ModelError(
            f"{folder} has no model.safetensors{found}: load it where you trust it and call "
            "save_pretrained(folder); or give a type of network, which starts from random weights"
        )
    return folder


def _normalisation(folder: Path | None) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation that a folder's network was trained with; ImageNet's where it does not say."""
    path = None if folder is None else folder / "preprocessor_config.json"
    if path is None or not path.is_file():
        return IMAGENET_MEAN, IMAGENET_STD
    try:
        said = msgspec.json.decode(path.read_bytes(), type=_Preprocessor)
    except (msgspec.MsgspecError, OSError) as exc:
        raise ModelError(f"{path} cannot be read: {first_line(exc)}") from exc
    return (said.image_mean, said.image_std) if said.do_normalize else ((0.0,) * 3, (1.0,) * 3)


def _configuration(library: ModuleType, source: Path | str, settings: dict[str, Any], given: dict[str, Any]) -> Any:
    """transformers' configuration with the task's settings, where it has them, and the user's."""
    from huggingface_hub.errors import StrictDataclassError  # comes with transformers

    def made(**options: Any) -> Any:
        if isinstance(source, str):
            return library.AutoConfig.for_model(source, **options)
        return library.AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False, **options)

    try:
        plain = made()
        for key in given:
            if not hasattr(plain, key):
                close = get_close_matches(key, plain.to_dict(), n=NUM_SUGGESTIONS, cutoff=0.5)
                hint = f"; did you mean {', '.join(close)}?" if close else ""
                raise ModelError(f"model.config: {plain.model_type} has no setting {key}{hint}")
        return made(**{key: value for key, value in settings.items() if hasattr(plain, key)} | given)
    except (*_UNREADABLE, StrictDataclassError) as exc:
        raise ModelError(f"transformers cannot make the configuration of {source}: {_said(exc)}") from exc


def _check_does(library: ModuleType, config: Any, head: _Head, name: str) -> None:
    tables = library.models.auto.modeling_auto
    able: Mapping[str, Any] = getattr(tables, f"MODEL_FOR_{head.table}_MAPPING_NAMES")
    if config.model_type not in able:
        examples = [
            known for known in ("vit", "swin", "deit", "segformer", "bert", "distilbert", "roberta") if known in able
        ]
        raise ModelError(
            f"{name} ({config.model_type}) has no head that {head.purpose}; those that do: "
            f"{', '.join(examples)} and {len(able) - len(examples)} more"
        )
    if isinstance(able[config.model_type], tuple) and config.architectures is None:
        config.architectures = [able[config.model_type][0]]  # deit: without the teacher's head


def _built(
    library: ModuleType, config: Any, head: _Head, attention: str, folder: Path | None, num_classes: int
) -> nn.Module:
    auto = getattr(library, head.auto_class)
    network: nn.Module
    try:
        if folder is None:
            network = auto.from_config(config, attn_implementation=attention)
            return network
        network, report = auto.from_pretrained(
            folder,
            config=config,
            attn_implementation=attention,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except _UNREADABLE as exc:
        raise ModelError(f"transformers cannot build {folder or config.model_type}: {_said(exc)}") from exc
    _check_loaded(network, report, folder, num_classes)
    return network


def _check_loaded(network: Any, report: Mapping[str, Any], folder: Path, num_classes: int) -> None:
    """Raise ModelError unless all but the head has its weights from the folder; tell what has not."""
    backbone = f"{network.base_model_prefix}."
    missing = sorted(report["missing_keys"])
    other = [(key, tuple(file), tuple(own)) for key, file, own in sorted(report["mismatched_keys"])]
    wrong = [f"{key} is missing" for key in missing if key.startswith(backbone)]
    wrong += [f"{key} {file}≠{own}" for key, file, own in other if own[:1] != (num_classes,) or file[1:] != own[1:]]
    if wrong:
        raise ModelError(
            f"weights from {folder} do not fit its configuration (file≠network): {', '.join(wrong[:NUM_SUGGESTIONS])}"
        )
    own_state = network.state_dict()
    broken = [key for key, value in own_state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ModelError(f"weights from {folder}: {broken[0]} holds NaN or infinite numbers")
    if missing or other:
        fresh = [*missing, *(f"{key} {file}≠{own}" for key, file, own in other)]
        log.warning("%s: not for these classes (file≠network), and starts afresh: %s", folder, ", ".join(fresh))
    if left_out := sorted(report["unexpected_keys"]):
        log.info("%s: left out, since the network has no place for it: %s", folder, ", ".join(left_out))


def _said(exc: BaseException) -> str:
    """What transformers says, in one line without its advice on the hub."""
    return " ".join(str(exc).split())[:300] or type(exc).__name__


def _main_logits(network: nn.Module, args: tuple[Tensor, ...], output: Any) -> Tensor:
    """Forward hook: the logits alone, those of a class map at the picture's own size."""
    logits: Tensor = output.logits
    front = front_of(network)
    if front is None or logits.dim() == 2:
        return logits
    return resized(logits, front.picture_size)


def _check_reads(network: nn.Module, name: str, vocabulary_size: int, sequence_length: int) -> None:
    """Try a text of full length."""
    config: Any = network.config
    if config.vocab_size != vocabulary_size:
        raise ModelError(
            f"{name} reads a vocabulary of {config.vocab_size} tokens, but the task's has {vocabulary_size}; take a "
            "network that was trained on the task's tokens, or a type of network, which starts from random weights"
        )
    ids = torch.ones(1, sequence_length, dtype=torch.int32)
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(input_ids=ids, attention_mask=torch.ones_like(ids, dtype=torch.bool))
    except _MISFITS as exc:
        most = getattr(config, "max_position_embeddings", None)
        raise ModelError(
            f"{name} cannot take texts of {sequence_length} tokens (max_position_embeddings={most}): {_said(exc)}; "
            "give a smaller task.sequence_length, or a larger max_position_embeddings in model.config"
        ) from exc
    finally:
        network.train(was_training)
