"""Federated training by Flower's simulation engine: clients in Ray's worker processes on this machine."""

import os
import warnings
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.federated.flower import Context, Grid, ServerApp
from splitsem.workflows.federated.deployed import as_text, make_client_app, serve
from splitsem.workflows.federated.ends import Ends


def simulate(cfg: DictConfig, ends: Ends, folder: Path, *, num_cpus: float, num_gpus: float) -> Path:
    """Train with the server here and the clients in workers, which build theirs from the configuration.

    Args:
        cfg: of the run.
        ends: whose server runs the rounds.
        folder: of the run; its checkpoints go there.
        num_cpus: of a worker.
        num_gpus: of a worker, may be a part of one.

    Returns:
        Where the weights are. Raises ConfigError where Ray is not installed.
    """
    if find_spec("ray") is None:
        raise ConfigError(
            "federated/engine=simulation needs Ray, the extra `simulation`: pip install 'splitsem[simulation]'"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray starts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from flwr.simulation import run_simulation
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        serve(ends, grid, context, folder)

    run_simulation(
        app,
        make_client_app(as_text(cfg)),
        num_supernodes=len(ends.parts),
        backend_config={"client_resources": {"num_cpus": num_cpus, "num_gpus": num_gpus}},
    )
    return folder / "weights.safetensors"
