"""SSH start without a network: the inventory, the command lines and what each trouble is called."""

import subprocess
from pathlib import Path

import pytest

from splitsem.errors import ConfigError, LinkError
from splitsem.remote import ssh_server, ssh_session
from splitsem.remote.ssh_inventory import NO_FOLDER, NO_PYTHON, Host, Start, load, login_command, server_command
from tests.conftest import ROOT


@pytest.fixture
def inventory(tmp_path):
    path = tmp_path / "hosts.yaml"

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    return write


def test_the_example_inventory_is_a_valid_one():
    hosts = load(ROOT / "hosts.example.yaml")
    assert [host.connect for host in hosts.values()] == ["tunnel", "direct", "tunnel"]
    assert hosts["lab"].strict_host_key_checking == "yes"
    assert hosts["board"].settings["device.accelerator"] == "cpu"
    assert hosts["pi"].settings == {}  # a copy with an address of one's own changes nothing else


def test_a_host_needs_only_its_address_and_leaves_the_rest_to_ssh(inventory):
    host = load(inventory("lab: {address: lab.example}"))["lab"]
    command = login_command(host, Path("socket"), server_command(host))
    assert command[-2] == "lab.example"
    assert not {"-l", "-p", "-i", "-F"} & set(command)
    assert not [part for part in command if "StrictHostKeyChecking" in part]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lab: {adress: lab.example}", "unknown key adress; known: address, user, port"),
        ("lab: {user: me}", "address is missing"),
        ("lab: {address: -oProxyCommand=evil}", "must be text that does not begin with"),
        ("lab: {address: a, user: -x}", "user must be text"),
        ("lab: {address: a, port: 70000}", "port must be 1…65535, got 70000"),
        ("lab: {address: a, connect: cable}", "connect must be tunnel or direct, got 'cable'"),
        ("lab: {address: a, strict_host_key_checking: maybe}", "yes, accept-new or no"),
        ("lab: {address: a, settings: [x]}", "settings must be dotted names"),
        ("lab: {address: a, start_timeout_s: 0}", "start_timeout_s must be positive"),
        ("lab", "must hold names of hosts"),
        ("lab: [", "is not YAML"),
        ("lab: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_a_wrong_inventory_is_told_in_one_line(text, said, inventory):
    with pytest.raises(ConfigError, match=said) as told:
        load(inventory(text))
    assert "\n" not in str(told.value)


def test_no_start_needs_no_inventory():
    assert Start(inventory="/nowhere").chosen() is None


@pytest.mark.parametrize(
    ("how", "host", "said"),
    [
        ("ssh", "other", "no host 'other'; .* knows: lab, board"),
        ("ssh", None, "start=ssh needs host; .* knows: lab, board"),
        ("telnet", "lab", "must be null or ssh, .* got 'telnet'"),
        (None, "lab", "host needs start=ssh; host=lab"),
    ],
)
def test_a_wrong_choice_of_host_lists_what_is_known(how, host, said, inventory):
    path = inventory("lab: {address: a}\nboard: {address: b}")
    with pytest.raises(ConfigError, match=said):
        Start(how, host, str(path)).chosen()


def test_a_missing_inventory_names_the_example(tmp_path):
    with pytest.raises(ConfigError, match=r"hosts\.example\.yaml"):
        Start("ssh", "lab", str(tmp_path / "hosts.yaml")).chosen()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_remote_shell_sees_names_as_they_are(shell, tmp_path):
    folder = tmp_path / 'it\'s a "folder"; $(exit 3) `x`'
    folder.mkdir()
    python = folder / "my python"
    python.write_text('#!/bin/sh\npwd; echo "$@"\n')
    python.chmod(0o755)

    def run(host: Host) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        command = [shell, "-c", server_command(host)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    for name in (folder.name, f"~/{folder.name}", str(folder)):
        done = run(Host("lab", "a", folder=name, python="./my python"))
        assert done.stdout.splitlines() == [str(folder), "-m splitsem.workflows.serve_attached"], done.stderr
    assert run(Host("lab", "a", folder="none")).returncode == NO_FOLDER
    assert run(Host("lab", "a", folder=folder.name, python="./none")).returncode == NO_PYTHON
    assert run(Host("lab", "a", folder=folder.name, python="no-such-python")).returncode == NO_PYTHON


@pytest.mark.parametrize(
    ("returncode", "line", "kind", "said"),
    [
        (255, "ssh: Could not resolve hostname a: Name or service not known", LinkError, "cannot be resolved"),
        (255, "ssh: connect to host a port 22: Connection timed out", LinkError, "does not answer"),
        (255, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", ConfigError, "another machine"),
        (255, "something new", LinkError, "something new"),
        (1, "ModuleNotFoundError: No module named 'torch'", ConfigError, "cannot import"),
        (1, "cannot serve on 127.0.0.1:1: is the port in use?", LinkError, "is the port in use"),
        (-9, "", LinkError, "signal 9"),
    ],
)
def test_each_end_of_the_remote_command_has_its_reason(returncode, line, kind, said):
    host = Host("lab", "a")
    error = ssh_session.explain(host, ssh_server.program(host), returncode, ["before", line])
    assert type(error) is kind
    assert said in str(error)
    assert "host lab" in str(error)


def test_what_login_scripts_print_is_no_message():
    facts = {"serving": "127.0.0.1:1"}
    assert ssh_session.from_line(ssh_session.to_line(facts)) == facts
    for line in (b"Welcome!\n", b'{"serving": 1}\n', b"splitsem: [\n", b"splitsem: []\n", b""):
        assert ssh_session.from_line(line) is None
