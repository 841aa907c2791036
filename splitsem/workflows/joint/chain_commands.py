"""The commands that run the choice of workflow=joint for a chain on real machines, a line for each machine."""

import re
from collections.abc import Mapping, Sequence

from hydra.core.hydra_config import HydraConfig

from splitsem.workflows import pasted
from splitsem.workflows.codec_offers import Offer

_SHARED = re.compile(r"[+~]*(task|model|trainer|device|answer|seed|split\.granularity)\b")
"""Settings that say what is computed, which all machines share."""

_PORT = 50051


def commands(machines: Sequence[str], hops: Sequence[tuple[str, str]], offers: Mapping[str, Offer]) -> list[str]:
    """The lines, in the order in which the machines are started: the last one first.

    Args:
        machines: names of the chain's machines, the camera first.
        hops: cut and codec of each hop that is used; an empty codec passes on unread what came.
        offers: the codecs by their names in ``hops``.
    """
    if not hops:
        return ["to run it: all of it computes on the first machine"]
    shared = _shared()
    addresses = [f"{name.upper()}:{_PORT}" for name in machines[: len(hops) + 1]]
    lines = []
    for place in range(len(hops), 0, -1):
        own = ["workflow=serve", *shared, f"transport.bind={addresses[place]}"]
        sent = [codec for _, codec in hops[:place] if codec]
        own += [] if not sent or _is_built_in(offers[sent[-1]]) else offers[sent[-1]].settings_given
        if place < len(hops):
            own.append(f"workflow.forward={addresses[place + 1]}")
            own += [f"workflow.codecs=[{offers[hops[place][1]].entry}]"] if hops[place][1] else []
        lines.append(f"  {machines[place]}: {pasted.command(*_own_folder(), *own)}")
    point, codec = hops[0]
    camera = ["workflow=offload", *shared, f"transport.target={addresses[1]}", pasted.setting("split.point", point)]
    camera += offers[codec].settings_given
    camera += [pasted.setting("workflow.onward", hops[1:])] if hops[1:] else []
    return [
        "to run it on real machines, with their addresses for the names in capitals (TLS: docs/two-machines.md):",
        *lines,
        f"  {machines[0]}: {pasted.command(*_own_folder(), *camera)}",
    ]


def _shared() -> list[str]:
    """What this run was given of the network, with task and model in any case."""
    found = HydraConfig.get()
    given = [str(entry) for entry in found.overrides.task if _SHARED.match(str(entry))]
    named = {entry.partition("=")[0] for entry in given}
    return [f"{group}={found.runtime.choices[group]}" for group in ("task", "model") if group not in named] + given


def _own_folder() -> list[str]:
    """The flag for options of one's own, if this run had one."""
    sources = HydraConfig.get().runtime.config_sources
    return [f"--config-dir={one.path}" for one in sources if one.provider in ("command-line", "api")]


def _is_built_in(offer: Offer) -> bool:
    return str(offer.settings["_target_"]).startswith("splitsem.")
