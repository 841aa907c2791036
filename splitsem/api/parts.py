"""The parts that a user joins by hand: a network as a graph that can be cut, and codecs by their names."""

from typing import TYPE_CHECKING, Any

from splitsem.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from splitsem.codecs.codec import Codec
    from splitsem.splitting.cut import Cut
    from splitsem.splitting.cut_graph import CutGraph, Granularity


def split(model: "nn.Module", /, *example: Any, granularity: "Granularity" = "layer", **named: Any) -> "CutGraph":
    """The places where a network can be cut; see ``SplitGraph``, and ``OnnxGraph`` for an ONNX file.

    Args:
        model: any network; it is put in eval mode, and its weights stay shared; ``OnnxModel("det.onnx")`` for a file.
        example: its inputs by position: tensors with the batch in dimension 0, and structures of them; or one
            ``splitsem.splitting.example.Example``.
        granularity: ``"layer"`` offers a point for each layer, ``"op"`` one after every operation.
        named: its inputs by name.

    Raises:
        ConfigError: the model cannot run on the example, or cannot be captured.
    """
    from torch import nn

    from splitsem.splitting.onnx_graph import graph_of

    if not isinstance(model, nn.Module):
        raise ConfigError(f"split takes a torch.nn.Module or OnnxModel(FILE), got a {type(model).__name__}")
    return graph_of(model, *example, granularity=granularity, **named)


def codec(name: str, *, cut: "Cut | None" = None, **settings: Any) -> "Codec":
    """A codec by the name of its option, as on the command line: ``codec("quant8", entropy="context")``.

    Args:
        name: an option of the group ``codec``; ``codec=list`` on the command line names them.
        cut: where it is used; needed by learned codecs, which are built for one tensor.
        settings: in place of the option's own.

    Raises:
        ConfigError: there is no such option or setting, a value is refused, or the codec needs a cut.
    """
    from hydra import initialize_config_dir
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from splitsem import files
    from splitsem.workflows.codec_options import codec_option, is_for_one_cut
    from splitsem.workflows.mistakes import told

    with initialize_config_dir(str(files.CONF), version_base="1.3"):
        option = codec_option(name, f"codec({name!r})")
    known = sorted(option.keys() - {"_target_"})
    if unknown := sorted(settings.keys() - set(known)):
        raise ConfigError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    facts = {}
    if is_for_one_cut(option["_target_"]):
        if cut is None or len(cut.point.tensors) != 1:
            raise ConfigError(f"{name} is built for the one tensor of a cut: codec({name!r}, cut=graph.cut(…))")
        facts["tensor_shape"] = cut.point.tensors[0].shape[1:]
    try:
        made: Codec = instantiate(option, **settings, **facts, _convert_="all")
    except InstantiationException as exc:
        if (line := told(exc)) is None:
            raise
        raise ConfigError(f"codec({name!r}): {line}") from exc
    return made
