"""Federated training as a deployment: the apps that Flower's processes run, and how run.py submits a run.

The resolved configuration travels as text in Flower's run configuration, so that server and clients build exactly
what a run in one process builds. The server leaves its results in the run's folder. Started as a program, this module
is one of ``federated.client_processes``.
"""

import functools
import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

import splitsem
from splitsem.errors import ConfigError, LinkError, SplitSemError
from splitsem.federated import client_processes
from splitsem.federated.flower import ClientApp, Context, Grid, Message, ServerApp
from splitsem.training import kept_weights
from splitsem.workflows.federated.assembly import Ends, build

log = logging.getLogger(__name__)
APP = Path(splitsem.__file__).parents[1] / "flower_app"
FAILED = "failed.txt"
_GROUPS = ("task", "model", "trainer", "codec", "device", "seed", "federated", "workflow")
_POLL_S = 0.5


def as_text(cfg: DictConfig) -> str:
    """The resolved configuration as text, from which another process builds the same ends."""
    settings = OmegaConf.create({name: OmegaConf.select(cfg, name) for name in _GROUPS})
    if settings.federated.resume is not None:
        settings.federated.resume = str(Path(settings.federated.resume).absolute())
    return OmegaConf.to_yaml(settings, resolve=True)


def submit(cfg: DictConfig, folder: Path) -> Path:
    """Run ``cfg`` on the SuperLink ``federated.superlink`` of Flower's configuration; returns the weights' path.

    Raises LinkError with the reason when the SuperLink cannot be reached or the run fails.
    """
    if not APP.is_dir():
        raise ConfigError(f"federated.superlink needs a checkout of this repository: there is no {APP}")
    flwr = shutil.which("flwr", path=str(Path(sys.executable).parent)) or "flwr"
    path = folder.absolute() / "weights.safetensors"
    for left_over in (path, folder / FAILED):
        left_over.unlink(missing_ok=True)
    config = folder / "flower.toml"  # a JSON string is a TOML string
    config.write_text(f"config = {json.dumps(as_text(cfg))}\nfolder = {json.dumps(str(folder.absolute()))}\n")
    name = str(cfg.federated.superlink)
    log.info("Submitted to Flower's SuperLink %s; its log: %s", name, folder / "flower.log")
    with (folder / "flower.log").open("w") as output:
        command = [flwr, "run", str(APP), name, "--stream", "--run-config", str(config)]
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    config.unlink()  # it holds every setting, secrets too
    if (folder / FAILED).exists():
        raise LinkError((folder / FAILED).read_text())
    if not path.exists():
        said = _said((folder / "flower.log").read_text())
        raise LinkError(f"flwr run {name} left no weights in {folder} (status {done.returncode}); it said: {said}")
    return path


def _said(output: str) -> str:
    """The last words of Flower's command line: the text in the box around an error, else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    boxed = [line.strip("│ ") for line in lines if line.startswith("│")]
    return " ".join(boxed) or (lines[-1] if lines else "nothing")


def make_server_app() -> ServerApp:
    """The app of Flower's ServerApp process: waits for all clients, runs the rounds, writes the weights."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        folder = Path(str(context.run_config["folder"]))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            serve(_ends(str(context.run_config["config"])), grid, context, folder)
        except SplitSemError as exc:
            (folder / FAILED).write_text(str(exc))
            raise

    return app


def make_client_app(config: str | None = None) -> ClientApp:
    """The app of Flower's client processes; ``partition-id`` in a node's settings says whose samples to use.

    Args:
        config: ``as_text`` of the configuration; None takes the text that comes with the run.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return _ends(config or str(context.run_config["config"])).client_app(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return _ends(config or str(context.run_config["config"])).client_app(message, context)

    return app


@functools.lru_cache(maxsize=1)
def _ends(config: str) -> Ends:
    cfg = OmegaConf.create(config)
    assert isinstance(cfg, DictConfig)
    return build(cfg)


def serve(ends: Ends, grid: Grid, context: Context, folder: Path) -> None:
    """Wait for all clients, run the rounds, leave the weights in ``folder``. Raises LinkError when too few connect."""
    deadline, num_clients = time.monotonic() + ends.connect_timeout_s, len(ends.parts)
    while (num_connected := len(list(grid.get_node_ids()))) < num_clients:
        if time.monotonic() > deadline:
            raise LinkError(
                f"{num_connected} of federated.num_clients={num_clients} clients have connected within "
                f"federated.connect_timeout_s={ends.connect_timeout_s:g}"
            )
        time.sleep(_POLL_S)
    server, began = ends.server, time.perf_counter()
    server.folder = folder
    server.app()(grid, context)
    ends.install(server.final)
    kept_weights.save(ends.model, folder / "weights.safetensors", server.rows, time.perf_counter() - began)


if __name__ == "__main__":
    client_processes.main(lambda config: _ends(config).client_app)
