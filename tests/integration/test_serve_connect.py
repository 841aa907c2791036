"""serve and connect: functions and networks behind a real server, from threads, asyncio and a process without torch."""

import asyncio
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

import splitsem
from splitsem.errors import ConfigError, FunctionError, LinkError, PayloadError
from splitsem.trees import is_same
from splitsem_device import remotes
from tests.conftest import ROOT
from tests.integration.tcp_relay import TcpRelay
from tests.integration.test_grpc_security import needs_openssl

ONCE = splitsem.NoRetry(deadline_s=10.0)


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 6, 5)
    return splitsem.split(torch.nn.Sequential(*layers), torch.rand(1, 3, 8, 8))


@pytest.fixture(scope="module")
def doubling():
    with splitsem.serve(lambda *args, **_: {"sum": sum(args) * 2, "n": len(args)}) as server:
        yield server


def test_a_function_takes_and_returns_structures_as_what_it_was_given(doubling):
    with splitsem.connect(doubling.address, retry=ONCE) as remote:
        assert is_same(remote.compute(torch.ones(2), 1), {"sum": torch.full((2,), 4.0), "n": 2})
        found = remote.compute(np.ones(2, np.float16))
        assert isinstance(found["sum"], np.ndarray)
        assert found["sum"].dtype == np.float16
        assert remote.compute(2, 3) == {"sum": 10, "n": 2}


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_stream_gives_results_in_order(doubling, compression):
    with splitsem.connect(doubling.address, compression=compression, retry=ONCE) as remote:
        samples = [torch.full((1000,), float(i)) for i in range(20)]
        found = [result["sum"][0].item() for result in remote.stream(iter(samples), window=4)]
        assert found == [2.0 * i for i in range(20)]
        assert [result["n"] for result in remote.stream([(1, 2), 3])] == [2, 1]
        facts = remote.statistics()
        assert facts.calls == 22
        assert 0 < facts.total_s.p50 <= facts.total_s.p95 <= facts.total_s.p99
        assert facts.to_dict()["server_s"]["p50"] > 0
        assert facts.sent_bytes > 0
        assert "22 calls" in repr(facts)


def test_compression_is_what_both_ends_use(doubling):
    sizes = {}
    for compression in ("none", "zstd"):
        with splitsem.connect(doubling.address, compression=compression, retry=ONCE) as remote:
            remote.compute(torch.zeros(100_000))
            sizes[compression] = remote.statistics().sent_bytes, remote.statistics().received_bytes
    assert min(sizes["none"]) > 400_000
    assert max(sizes["zstd"]) < 2_000
    with pytest.raises(ConfigError, match="compression must be none or zstd"):
        splitsem.connect(doubling.address, compression="gzip", retry=ONCE)


def test_a_function_that_raises_tells_its_client_is_not_called_again_and_leaves_the_server_alive():
    calls = []

    def fails(z):
        calls.append(z)
        raise ValueError("shapes differ:\n(3,) and (4,)")

    with splitsem.serve(fails) as server, splitsem.connect(server.address) as remote:
        with pytest.raises(FunctionError, match="the function raised ValueError: shapes differ") as caught:
            remote.compute(torch.ones(3))
        assert "\n" not in str(caught.value).split(":", 1)[0]
        assert len(calls) == 1
        with pytest.raises(FunctionError, match="ValueError"):
            list(remote.stream([torch.ones(3)]))
        assert len(calls) == 2
        assert remote.health()
        assert remote.statistics().retries == 0


def test_a_function_that_exits_is_an_error_of_its_own_and_the_server_lives():
    def leaves(z):
        raise SystemExit(3)

    with splitsem.serve(leaves) as server, splitsem.connect(server.address) as remote:
        with pytest.raises(FunctionError, match="SystemExit: 3"):
            remote.compute(torch.ones(3))
        assert remote.health()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"onward": ["output"]}, "onward must be pairs of names"),
        ({"onward": "abc"}, "onward must be pairs of names"),
        ({"codec": "quant8"}, r'splitsem\.codec\("quant8"\)'),
        ({"retry": 3}, "Backoff"),
    ],
)
def test_arguments_of_another_kind_are_one_line(settings, line):
    with pytest.raises(ConfigError, match=line):
        splitsem.connect("127.0.0.1:1", **settings)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda z: object(), "result cannot travel: the value is a object"),
        (lambda z: z.to("meta"), "result cannot travel: a tensor .* is on meta"),
    ],
)
def test_a_result_that_cannot_travel_is_the_functions_fault(function, says):
    with splitsem.serve(function) as server, splitsem.connect(server.address, retry=ONCE) as remote:
        with pytest.raises(FunctionError, match=says):
            remote.compute(torch.ones(2))
        assert remote.health()


def test_one_call_that_fails_hurts_no_other_of_the_same_connection():
    def slow_or_wrong(z):
        if z.item() < 0:
            raise ValueError("negative")
        time.sleep(0.3)
        return z

    with splitsem.serve(slow_or_wrong) as server, splitsem.connect(server.address, retry=ONCE) as remote:
        found = []
        threads = [
            threading.Thread(target=lambda i=i: found.append(remote.compute(torch.tensor(i)).item())) for i in range(8)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        with pytest.raises(FunctionError):
            remote.compute(torch.tensor(-1))
        for thread in threads:
            thread.join()
        assert sorted(found) == list(range(8))


def test_a_call_that_a_broken_connection_interrupts_is_computed_once():
    calls = []

    def slow(z):
        calls.append(z)
        return z

    with splitsem.serve(slow) as server:
        relay = TcpRelay(server.address)
        relay.cut_at_next_reply(20_000)
        retry = splitsem.Backoff(first_s=0.01, most_s=0.05, patience_s=20.0)
        with splitsem.connect(relay.address, retry=retry) as remote:
            found = remote.compute(torch.full((10_000,), 7.0))
            assert found.sum() == 70_000
            assert len(calls) == 1
            assert relay.num_cuts == 1
            assert remote.statistics().retries >= 1
        relay.close()


def test_any_point_and_codec_of_a_network_answers_batches_too(graph):
    x = torch.rand(3, 3, 8, 8)
    with splitsem.serve(graph) as server:
        for point in graph.points:
            cut = graph.cut(point)
            with splitsem.connect(server.address, cut=cut, retry=ONCE) as remote:
                assert torch.equal(remote.compute(*cut.head(x)), graph.model(x))
        cut = graph.cut(1)
        with splitsem.connect(server.address, cut=cut, codec=splitsem.codec("quant8"), retry=ONCE) as remote:
            found = list(remote.stream(cut.head(x[i : i + 1]) for i in range(3)))
            assert torch.cat(found).sub(graph.model(x)).abs().max() < 0.05
            with pytest.raises(ConfigError, match=r"give what cut\.head returns"):
                remote.compute(x, x)
            assert remote.info().points[0] == graph.points[0].name


def test_ends_that_do_not_fit_are_told_before_the_first_frame(graph, doubling):
    with pytest.raises(ConfigError, match="this server offers a function"):
        splitsem.connect(doubling.address, cut=graph.cut(1), retry=ONCE)
    with splitsem.serve(graph) as server, pytest.raises(ConfigError, match="this server offers a network"):
        splitsem.connect(server.address, retry=ONCE)
    with pytest.raises(ConfigError, match="a codec codes what crosses at a cut"):
        splitsem.connect(doubling.address, codec=splitsem.codec("quant8"))


def test_mistakes_have_one_line(doubling):
    with pytest.raises(ConfigError, match=r"cannot (serve|listen) on"):
        splitsem.serve(len, bind=doubling.address)
    with pytest.raises(ConfigError, match=r"serve takes what splitsem\.split makes, or a function, got a int"):
        splitsem.serve(3)
    with pytest.raises(ConfigError, match="tensors must be 'torch' or 'numpy'"):
        splitsem.serve(len, tensors="jax")
    with pytest.raises(ConfigError, match="an address must be host:port"):
        splitsem.connect("nowhere")
    with pytest.raises(ConfigError, match=r"refusing to serve on 0\.0\.0\.0"):
        splitsem.serve(len, bind="0.0.0.0:0")
    with pytest.raises(LinkError, match="refuses connections"):
        splitsem.connect("127.0.0.1:1", retry=ONCE)
    remote = splitsem.connect(doubling.address, retry=ONCE)
    remote.close()
    with pytest.raises(ConfigError, match="the connection is closed: connect again"):
        remote.compute(1)
    with pytest.raises(ConfigError, match="is closed"):
        remote.health()


def test_a_payload_beyond_the_servers_limit_is_refused():
    limits = splitsem.Limits(max_payload_bytes=1 << 20)
    with splitsem.serve(lambda z: z, limits=limits) as server:
        with splitsem.connect(server.address, retry=ONCE) as remote:
            with pytest.raises(PayloadError):
                remote.compute(torch.zeros(1 << 20))
            assert len(remote.compute(torch.zeros(10))) == 10
        with (
            splitsem.connect(server.address, compression="zstd", retry=ONCE) as remote,
            pytest.raises(PayloadError, match="expected arrays of at most 1048576 bytes"),
        ):
            remote.compute(torch.zeros(1 << 20))


def test_a_token_is_asked_for(tmp_path):
    tokens = tmp_path / "right", tmp_path / "wrong"
    for path in tokens:
        path.write_text(path.name)
    right, wrong = (splitsem.Security(token_file=str(path)) for path in tokens)
    with splitsem.serve(lambda z: z, security=right) as server:
        with splitsem.connect(server.address, security=right, retry=ONCE) as remote:
            assert remote.compute(1) == 1
        for security in (wrong, None):
            with pytest.raises(LinkError, match="wrong or missing token"):
                splitsem.connect(server.address, security=security, retry=ONCE)


@needs_openssl
@pytest.mark.parametrize("is_mutual", [False, True])
def test_tls_is_spoken_with_those_who_trust_it_and_with_certified_clients_only(certs, is_mutual):
    ca, chain = str(certs / "ca.pem"), [str(certs / name) for name in ("server.pem", "server.key")]
    mine = dict(zip(("cert", "key"), (str(certs / f"device.{end}") for end in ("pem", "key")), strict=True))
    security = splitsem.Security(cert=chain[0], key=chain[1], ca=ca if is_mutual else None)
    with splitsem.serve(lambda z: z, security=security) as server:
        trusting = splitsem.Security(ca=ca, **(mine if is_mutual else {}))
        with splitsem.connect(server.address, security=trusting, retry=ONCE) as remote:
            assert remote.compute(1) == 1
        for other in (None, splitsem.Security(ca=ca)) if is_mutual else (None,):
            with pytest.raises(LinkError, match="TLS"):
                splitsem.connect(server.address, security=other, retry=ONCE)


def test_asyncio_waits_for_many_calls_and_streams_from_asynchronous_sources(doubling):
    async def samples():
        for i in range(5):
            await asyncio.sleep(0.001)
            yield torch.tensor(float(i))

    async def main():
        async with splitsem.connect_async(doubling.address, retry=ONCE) as remote:
            many = await asyncio.gather(*(remote.compute(torch.tensor(i)) for i in range(10)))
            assert [result["sum"].item() for result in many] == [2 * i for i in range(10)]
            assert [result["sum"].item() async for result in remote.stream(samples(), window=2)] == [0, 2, 4, 6, 8]
            async for result in remote.stream([1, 2, 3]):  # leaving early leaves the connection usable
                assert result == {"sum": 2, "n": 1}
                break
            with pytest.raises(FunctionError):
                await remote.compute("a", 1)
            assert await remote.health()
            assert (await remote.info()).points == ()
            assert remote.statistics().calls >= 16

    asyncio.run(main())


def test_a_client_and_a_server_of_arrays_import_no_torch(doubling):
    code = f"""
import sys, numpy as np, splitsem
from splitsem_device.remotes import connect
with splitsem.serve(lambda z: z + 1, tensors="numpy") as server:
    for address, one in ((server.address, 1), ({doubling.address!r}, 2)):
        with connect(address) as remote, splitsem.connect(address) as other:
            found = remote.compute(np.ones(3)), other.compute(np.ones(3))
            assert [np.sum(f["sum"] if one == 2 else f) for f in found] == [6, 6], found
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_device_remote_has_the_same_defaults(doubling):
    with remotes.connect(doubling.address) as remote:
        assert remote.compute(np.ones(1))["n"] == 1
        assert "arrays(none)" in repr(remote)
