"""The contracts of codecs, tasks, links, machines and models, as functions that raise when one is broken.

``check_codec``, ``check_task``, ``check_link``, ``check_machine`` and ``check_model`` are for a test of yours;
``python -m splitsem.check my_package.MyCodec`` is for the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from splitsem.check.codec_contract import check_codec
    from splitsem.check.link_contract import check_link
    from splitsem.check.machine_contract import check_machine
    from splitsem.check.model_contract import check_model
    from splitsem.check.task_contract import check_task

__all__ = ["check_codec", "check_link", "check_machine", "check_model", "check_task"]


def __getattr__(name: str) -> Any:
    """Each function when it is first asked for: they load torch, and ``--help`` does not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name.removeprefix('check_')}_contract"), name)
