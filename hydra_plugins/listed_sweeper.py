"""ListedSweeper: Hydra's own sweeper, over a list of jobs whose settings have nothing to do with each other."""

import itertools
import shlex
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override


class ListedSweeper(BasicSweeper):
    """Each of ``jobs`` with each combination of what else is swept.

    Chosen by ``override /hydra/sweeper: listed``. What the command line sets goes before the list: where it names a key
    of the list, e.g. ``codec``, the list is not used. The list goes before ``params``, which a workflow may have set.

    Args:
        max_batch_size: see Hydra's basic sweeper.
        params: see Hydra's basic sweeper.
        jobs: the overrides of each, as on the command line: ``codec=fixed codec.bit_width=4``.
    """

    def __init__(
        self, max_batch_size: int | None, params: dict[str, str] | None = None, jobs: Sequence[str] = ()
    ) -> None:
        super().__init__(max_batch_size, params)
        self.jobs = [shlex.split(job) for job in jobs]

    def _parse_config(self) -> list[str]:
        """See BasicSweeper: the overrides of ``params``, without those that a job sets itself."""
        keys = {setting.partition("=")[0] for job in self.jobs for setting in job}
        return [entry for entry in super()._parse_config() if entry.partition("=")[0] not in keys]

    def split_arguments(  # type: ignore[override]  # a static method there, called on the instance
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """See BasicSweeper: batches of jobs, each of them a list of overrides."""
        (others,) = BasicSweeper.split_arguments(overrides, None)
        own = {override.get_key_element().lstrip("+~") for override in overrides}
        listed = [] if own & {setting.partition("=")[0] for job in self.jobs for setting in job} else self.jobs
        jobs = [job + other for job, other in itertools.product(listed or [[]], others)]
        return list(BasicSweeper.split_overrides_to_chunks(jobs, max_batch_size))
