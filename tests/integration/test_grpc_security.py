"""TLS, mutual TLS, tokens, and the refusal to serve or send in the clear beyond this machine."""

import shutil
import subprocess

import pytest
import torch

from splitsem.errors import ConfigError, LinkError
from splitsem_device.grpc.connection import Security, host_port, is_loopback
from splitsem_device.retry import Backoff
from tests.conftest import ROOT
from tests.integration.network import output_of

ONCE = Backoff(retries=0, deadline_s=3.0)
needs_openssl = pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("make")), reason="no openssl or make")


def end(certs, name, *, ca):
    pair = {"cert": str(certs / f"{name}.pem"), "key": str(certs / f"{name}.key")}
    return pair | ({"ca": str(certs / "ca.pem")} if ca else {})


def answers_well(tail, plan, frames):
    tail.open(plan)
    outputs = [output_of(answer) for answer in tail.stream(frames[0][:20])]
    return len(outputs) == 20 and all(map(torch.equal, outputs, frames[1]))


@needs_openssl
def test_tls_answers_who_trusts_the_ca_and_tells_others_why_not(start_server, connect, plan, frames, certs, tmp_path):
    server = start_server(security=end(certs, "server", ca=False))
    assert answers_well(connect(server.address, ca=str(certs / "ca.pem")), plan, frames)
    with pytest.raises(LinkError, match=r"the server speaks it and the edge does not: give ca of its security"):
        connect(server.address, retry=ONCE).open(plan)
    subprocess.run(["make", "certs", f"CERTS={tmp_path / 'other'}"], cwd=ROOT, check=True, capture_output=True)
    with pytest.raises(LinkError, match="certificate is not accepted"):
        connect(server.address, retry=ONCE, ca=str(tmp_path / "other" / "ca.pem")).open(plan)


@needs_openssl
def test_mutual_tls_answers_only_clients_with_a_certificate(start_server, connect, plan, frames, certs):
    server = start_server(security=end(certs, "server", ca=True))
    assert answers_well(connect(server.address, **end(certs, "device", ca=True)), plan, frames)
    with pytest.raises(LinkError, match=r"TLS: .*client certificate"):
        connect(server.address, retry=ONCE, ca=str(certs / "ca.pem")).open(plan)


@needs_openssl
def test_a_server_without_tls_is_said_to_be_one(server, connect, plan, certs):
    with pytest.raises(LinkError, match="the server does not speak it"):
        connect(server.address, retry=ONCE, ca=str(certs / "ca.pem")).open(plan)


def test_only_the_right_token_opens(start_server, connect, plan, frames, tmp_path):
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("open sesame\n")
    wrong.write_text("open barley\n")
    server = start_server(security={"token_file": str(right)})
    assert answers_well(connect(server.address, token_file=str(right)), plan, frames)
    for security in ({}, {"token_file": str(wrong)}):
        tail = connect(server.address, **security)
        with pytest.raises(LinkError, match="wrong or missing token"):
            tail.open(plan)
        assert tail.counters.retries == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.1.2.3", "example.org"])
def test_the_clear_is_refused_beyond_this_machine_unless_asked_for(host):
    with pytest.raises(ConfigError, match="insecure=true"):
        Security().server_credentials(host)
    with pytest.raises(ConfigError, match="insecure=true"):
        Security().channel_credentials(host)
    assert Security(insecure=True).server_credentials(host) is None
    assert Security(insecure=True).channel_credentials(host) is None


def test_this_machine_needs_no_tls():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "[::1]", "localhost")))
    assert Security().server_credentials("127.0.0.1") is None


def test_half_a_key_pair_is_refused():
    with pytest.raises(ValueError, match="cert and key come together"):
        Security(cert="x.pem")


@pytest.mark.parametrize("text", ["", "two\nlines", "käse"])
def test_a_token_is_one_line_of_ascii(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigError, match="one line of ASCII"):
        Security(token_file=str(tmp_path / "token")).metadata()


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match="cannot read nowhere/token"):
        Security(token_file="nowhere/token").interceptors()


@pytest.mark.parametrize("address", ["localhost", ":50051", "localhost:", "localhost:70000", "::1:50051", "a:b"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="host:port"):
        host_port(address)
