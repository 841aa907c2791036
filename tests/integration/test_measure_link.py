"""workflow=measure_link against real servers: what it finds is true, is read again, and a bad target is one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate

from harness.line import SERVER_ADDRESS, NoNamespacesError, rate_limited_line
from splitsem.errors import ConfigError, LinkError
from splitsem.federated.rate_controller import Observation, RateController
from splitsem.links.recorded import RecordedLink, read_link_metrics, write_link_metrics
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.grpc.transport import Grpc
from splitsem.remote.link_probe import ProbeSettings
from splitsem.remote.tail_engine import TailEngine
from splitsem.workflows import measure_link
from splitsem.workflows.measure_link import measure
from splitsem_device.grpc.connection import Security
from splitsem_device.plan import Plan
from tests.conftest import ENVIRONMENT, ROOT
from tests.integration.conftest import QUICK
from tests.integration.network import small_network
from tests.integration.udp_ends import bad_network, serving, udp_transport

BRIEF = ProbeSettings(num_rtts=20, pause_s=0.0, enough_s=0.02, most_bytes=1 << 20, num_loss_packets=600)


def grpc(target: str) -> Grpc:
    return Grpc(target, "127.0.0.1:0", 8, QUICK, Security(), Limits())


def test_a_link_is_measured_without_a_network_and_written_for_those_who_read_it(server, tmp_path):
    found = measure(grpc(server.address), "grpc", BRIEF)
    assert 0 < found.rtt_s <= found.rtt_p95_s < 1
    assert min(found.up_bps, found.down_bps) > 1e6
    assert found.loss is None
    for work in (found.edge_work, found.server_work):
        assert 1e-5 < work.fixed_s < 0.05
        assert work.frame_s(1 << 20) >= work.fixed_s  # a busy machine hides what bytes cost
    path = tmp_path / "link.json"
    write_link_metrics(found, path)
    assert read_link_metrics(path) == found
    link = RecordedLink(str(path))
    assert link.send(bytes(1000)).link_s == pytest.approx(found.rtt_s / 2 + 8000 / found.up_bps)
    assert Observation.from_file(str(path)) == Observation(found.rtt_s, 0.0, found.up_bps, found.down_bps)
    assert RateController(60.0, link=str(path)).choose("new", 10_000).bit_width == 8


def test_loss_is_measured_by_datagrams_that_do_not_arrive():
    with serving() as (server, address), bad_network(server, seed=3, loss=0.1) as relay:
        found = measure(udp_transport(address, datagram_target=relay.address), "udp", BRIEF)
    assert found.num_packets >= 600
    assert found.loss == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / 600) ** 0.5)


@pytest.mark.parametrize("transport", ["grpc", "udp"])
def test_a_target_where_nobody_is_is_one_clear_line(transport):
    nobody = "127.0.0.1:9"
    chosen = grpc(nobody) if transport == "grpc" else udp_transport(nobody)
    with pytest.raises(LinkError) as failure:
        measure(chosen, transport, BRIEF)
    assert nobody in str(failure.value)
    assert "\n" not in str(failure.value)


def test_probes_without_a_network_still_need_the_same_protocol():
    engine = TailEngine(small_network()[1], weights="any")
    engine.open(Plan.of_probes(10))
    with pytest.raises(ConfigError, match="protocol_version"):
        engine.open(Plan("", "", "@probe/10", "", "", "", protocol_version=0))
    with pytest.raises(ConfigError, match="fingerprint"):
        engine.open(Plan("", "", "stage1", "", "", ""))


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        ({"schema": "other/1"}, "schema"),
        ({"up_bps": -1}, "up_bps"),
        ({"loss": "much"}, "loss"),
        ({"schema": "splitsem.link/1"}, "'splitsem.link/1'; measure the link anew by workflow=measure_link"),
        ({"rtt_s": {"median": 1}}, "p95"),
        ({"edge_work": {"fixed_s": -1, "s_per_byte": 0}}, "fixed_s"),
    ],
)
def test_a_file_that_is_not_one_is_refused_with_the_reason(change, trouble, tmp_path):
    facts = {"schema": "splitsem.link/2", "date": "", "target": "", "transport": "grpc", "loss": None, "up_bps": 1.0}
    facts |= {"rtt_s": {"median": 1, "p95": 2}, "down_bps": 1, "num_rtts": 1, "num_packets": 0, "versions": {}}
    facts |= {name: {"fixed_s": 0, "s_per_byte": 0} for name in ("edge_work", "server_work")}
    path = tmp_path / "link.json"
    path.write_text(json.dumps(facts))
    assert read_link_metrics(path).up_bps == 1
    path.write_text(json.dumps(facts | change))
    with pytest.raises(ConfigError, match=trouble):
        read_link_metrics(path)
    with pytest.raises(ConfigError, match="measure_link"):
        read_link_metrics(tmp_path / "none.json")


def test_the_workflow_leaves_the_file_that_the_transport_takes(server, tmp_path):
    brief = ("workflow.num_rtts=10", "workflow.enough_s=0.02", "workflow.most_bytes=1048576")
    chosen = ["workflow=measure_link", f"transport.target={server.address}", *brief]
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", chosen, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        result = measure_link.run(cfg, tmp_path)
        path = tmp_path / "link.json"
        link = instantiate(compose("config", ["transport=recorded", f"transport.path={path}"]).transport)
    found = read_link_metrics(path)
    assert (found.target, found.transport) == (server.address, "grpc")
    assert found.versions["torch"]
    assert result.metrics["up_bps"] == found.up_bps == link.bandwidth_bps
    assert str(path) in result.headline


@pytest.mark.slow  # network namespaces, a process that imports torch in each, and seconds of a slow line
def test_a_rate_limited_line_is_measured_as_such(tmp_path: Path):
    rate_bps = 8e6
    try:
        with rate_limited_line("splitsem-link", rate_bps) as line:
            folder = tmp_path / "server"
            folder.mkdir()
            settings = {"bind": f"{SERVER_ADDRESS}:0", "security": {"insecure": True}}
            code = "from pathlib import Path; from tests.integration import tail_server; "
            code += f"tail_server.main({settings!r}, Path({str(folder)!r}))"
            options = {"cwd": ROOT, "env": os.environ | ENVIRONMENT}
            server = line.start(line.server, [sys.executable, "-c", code], **options)
            try:
                address = folder / "address.txt"
                while not (address.exists() and address.read_text().endswith("\n")):
                    assert server.poll() is None
                    with pytest.raises(subprocess.TimeoutExpired):
                        server.wait(0.1)
                overrides = [f"transport.target={address.read_text().strip()}", "transport.security.insecure=true"]
                command = [sys.executable, "run.py", "workflow=measure_link", *overrides, f"hydra.run.dir={tmp_path}"]
                device = line.start(line.device, command, **options)
                assert device.wait(120) == 0
            finally:
                server.terminate()
                server.wait(30)
    except NoNamespacesError as exc:
        pytest.skip(str(exc))
    found = read_link_metrics(tmp_path / "link.json")
    assert found.up_bps == pytest.approx(line.tcp_capacity_bps, rel=0.1)
    assert found.down_bps > 2 * rate_bps  # the way back is not held back
