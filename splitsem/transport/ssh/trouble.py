"""Trouble: why a server could not be started over ssh, or ended, in one line that says what to do."""

from collections.abc import Sequence

from splitsem.errors import ConfigError, LinkError, SplitSemError
from splitsem.transport.ssh.command import NO_FOLDER, NO_PYTHON
from splitsem.transport.ssh.inventory import Host

_SSH_FAILED = 255
_LOGIN: tuple[tuple[str, type[SplitSemError], str], ...] = (  # what ssh says, and what that means
    ("could not resolve", LinkError, "the name {0.address} cannot be resolved: check address"),
    ("connection refused", LinkError, "{0.address} refuses ssh connections: check address and port"),
    ("timed out", LinkError, "{0.address} does not answer: is it on, and does a firewall let ssh through?"),
    ("no route to host", LinkError, "{0.address} cannot be reached: no route to it"),
    ("network is unreachable", LinkError, "{0.address} cannot be reached: no network"),
    ("permission denied", ConfigError, "the login is refused (user {user}): check user, identity_file and agent"),
    ("too many authentication failures", ConfigError, "the login is refused: give identity_file"),
    ("remote host identification has changed", ConfigError, "its host key is not the known one: another machine?"),
    ("host key verification failed", ConfigError, "its host key is unknown: log in once with ssh, or {accept}"),
)


def explain(host: Host, returncode: int, lines: Sequence[str]) -> SplitSemError:
    """The error for a remote command that ended.

    Args:
        host: where it ran.
        returncode: ssh's exit code; negative: the signal that killed ssh.
        lines: the last lines that ssh and the command wrote.
    """
    said = " ".join(lines).lower()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if returncode < 0:
        return LinkError(f"host {host.name}: the ssh connection was ended by signal {-returncode}")
    if returncode == NO_FOLDER:
        return ConfigError(f"host {host.name}: there is no folder {host.folder}; folder must be the checkout there")
    if returncode == NO_PYTHON:
        return ConfigError(
            f"host {host.name}: there is no {host.python} in {host.folder}; check python, or `make setup`"
        )
    if returncode == _SSH_FAILED:
        for words, kind, meaning in _LOGIN:
            if words in said:
                accept = "strict_host_key_checking: accept-new"
                return kind(
                    f"host {host.name}: " + meaning.format(host, user=host.user or "as ssh has it", accept=accept)
                )
        return LinkError(f"host {host.name}: ssh failed: {last or 'it said nothing'}")
    if "No module named" in last:
        return ConfigError(
            f"host {host.name}: {host.python} there cannot import what is needed ({last.rpartition(': ')[2]}); is "
            f"{host.folder} a checkout as new as this one, and set up?"
        )
    return LinkError(f"host {host.name}: the server ended with {returncode}: {last or 'it said nothing'}")
