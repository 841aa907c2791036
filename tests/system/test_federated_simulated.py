"""Flower's simulation engine with threads in the place of Ray, which these tests do not start; and without either."""

import importlib.machinery
import importlib.util
import sys
import types

import cloudpickle
import pytest
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from splitsem.errors import ConfigError
from tests.conftest import ROOT

pytest.importorskip("flwr", reason="the extra federated is not installed")
from splitsem.federated.flower import Context, RecordDict
from splitsem.federated.in_process import InProcessGrid
from splitsem.workflows.federated import rounds
from splitsem.workflows.federated.assembly import build

COMMON = ("task=digits", "codec=quant8", "device=cpu", "tracking=none", "trainer.limit_train_batches=1")
SMALL = ("workflow=federated", "federated/engine=simulation", "federated.num_clients=2", "federated.rounds=2", *COMMON)
BACKEND = "flwr.server.superlink.fleet.vce.backend"


def settings(*overrides):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", [*SMALL, *overrides])


def without_ray(monkeypatch):
    """Flower's engine as it is, whose backend does what Ray's does: each message goes to a pickled copy of the app."""
    from flwr.server.superlink.fleet.vce.backend import Backend

    class Threads(Backend):
        num_workers = 1
        resources = None

        def __init__(self, backend_config):
            Threads.resources = backend_config["client_resources"]

        def build(self, app_fn):
            self.pickled = cloudpickle.dumps(app_fn)

        def is_worker_idle(self):
            return True

        def terminate(self):
            pass

        def process_message(self, message, context):
            app = cloudpickle.loads(self.pickled)()
            return app(message=message, context=context), context

    ray = types.ModuleType("ray")
    ray.__spec__ = importlib.machinery.ModuleSpec("ray", None)
    stand_in = types.ModuleType(f"{BACKEND}.raybackend")
    stand_in.RayBackend = Threads
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, f"{BACKEND}.raybackend", stand_in)
    return Threads


def test_flowers_simulation_engine_gives_the_network_of_the_run_in_one_process(monkeypatch, tmp_path):
    cfg, backend = settings(), without_ray(monkeypatch)
    ends = build(cfg)
    path = rounds.simulate(cfg, ends, tmp_path, num_cpus=1, num_gpus=0.5)
    assert backend.resources == {"num_cpus": 1, "num_gpus": 0.5}
    assert [row["round/num_clients"] for row in ends.server.rows] == [2, 2]
    here = build(cfg)
    here.server.app()(InProcessGrid(here.client_app, 2), Context(1, 0, {}, RecordDict(), {}))
    trained = load_file(path)
    assert all((trained[name] == tensor).all() for name, tensor in here.server.final.items())


def test_the_failure_of_a_simulated_server_is_its_own_line(monkeypatch, tmp_path):
    cfg = settings("federated.resume=nowhere")
    without_ray(monkeypatch)
    with pytest.raises(ConfigError, match="nowhere: there is no"):
        rounds.simulate(cfg, build(cfg), tmp_path, num_cpus=1, num_gpus=0)


def test_without_ray_the_extra_is_named():
    if importlib.util.find_spec("ray") is not None:
        pytest.skip("Ray is installed")
    with pytest.raises(ConfigError, match=r"pip install 'splitsem\[simulation\]'"):
        rounds.simulate(None, None, None, num_cpus=1, num_gpus=0)


def test_two_places_to_run_at_once_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="two places to run"):
        rounds.run(settings("federated.superlink=here"), tmp_path)
    with pytest.raises(ConfigError, match="client_processes is for clients of this process"):
        rounds.run(settings("federated.client_processes=2"), tmp_path)
