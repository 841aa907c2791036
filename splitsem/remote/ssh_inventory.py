"""The inventory, a YAML file of machines that a server can be started on, and the ssh commands for such a machine."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from splitsem.errors import ConfigError

_WAYS = ("tunnel", "direct")
_CHECKS = ("yes", "accept-new", "no")


@dataclass(frozen=True)
class Host:
    """A machine that ssh reaches. Only ``address`` is needed; the user's own ssh settings fill in what is missing.

    Attributes:
        name: what the inventory calls it.
        address: name or address, or an alias of the ssh configuration.
        user: name to log in with.
        port: of the ssh server there.
        identity_file: private key; ssh then tries no other key.
        ssh_config: file to use instead of ``~/.ssh/config``.
        strict_host_key_checking: ``yes``, ``accept-new`` or ``no``.
        folder: the checkout there, relative to the home folder.
        python: the interpreter there: a command, or a path relative to ``folder``.
        connect: ``tunnel``: frames go through ssh and nothing else listens to the network; ``direct``: the server
            listens on ``transport.bind``.
        settings: dotted names of the configuration → values on this machine.
        start_timeout_s: longest wait for a message of the server while it starts.
    """

    name: str
    address: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    ssh_config: str | None = None
    strict_host_key_checking: str | None = None
    folder: str = "splitsem"
    python: str = ".venv/bin/python"
    connect: str = "tunnel"
    settings: Mapping[str, Any] = field(default_factory=dict)
    start_timeout_s: float = 180.0

    def __post_init__(self) -> None:
        for name in ("address", "user", "identity_file", "ssh_config", "folder", "python"):
            value = getattr(self, name)
            optional = name not in ("address", "folder", "python")
            if not (optional and value is None) and (not isinstance(value, str) or not value or value[0] == "-"):
                raise ValueError(f"{name} must be text that does not begin with '-', got {value!r}")
        if self.port is not None and (type(self.port) is not int or not 0 < self.port < 65536):
            raise ValueError(f"port must be 1…65535, got {self.port!r}")
        if self.strict_host_key_checking not in (None, *_CHECKS):
            raise ValueError(f"strict_host_key_checking must be {_or(_CHECKS)}, got {self.strict_host_key_checking!r}")
        if self.connect not in _WAYS:
            raise ValueError(f"connect must be {_or(_WAYS)}, got {self.connect!r}")
        if not isinstance(self.settings, Mapping):
            raise ValueError(f"settings must be dotted names and values, got {self.settings!r}")
        if type(self.start_timeout_s) not in (int, float) or not self.start_timeout_s > 0:
            raise ValueError(f"start_timeout_s must be positive, got {self.start_timeout_s!r}")


@dataclass(frozen=True)
class Start:
    """How the server comes to run before the edge connects.

    Attributes:
        how: ``ssh``, or None when the server runs already.
        host: name in the inventory.
        inventory: YAML file of hosts.
    """

    how: str | None = None
    host: str | None = None
    inventory: str = "hosts.yaml"

    def chosen(self) -> Host | None:
        """The machine to start the server on. Raises ConfigError; for an unknown host, it lists the known hosts."""
        if self.how is None and self.host is None:
            return None
        if self.how != "ssh":
            given = f"transport.host={self.host}" if self.how is None else f"got {self.how!r}"
            raise ConfigError(f"transport.start must be null or ssh, and transport.host needs ssh; {given}")
        hosts = load(Path(self.inventory))
        if self.host not in hosts:
            missing = "transport.start=ssh needs transport.host" if self.host is None else f"no host {self.host!r}"
            raise ConfigError(f"{missing}; {self.inventory} knows: {', '.join(hosts) or 'none'}")
        return hosts[self.host]


def load(path: Path) -> dict[str, Host]:
    """The hosts of a YAML file by name. Raises ConfigError; for an unknown key, the error lists the known keys."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as exc:
        raise ConfigError(f"cannot read the inventory {path}: {exc.strerror}; hosts.example.yaml shows one") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the inventory {path} is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(content, dict) or not all(isinstance(facts, dict) for facts in content.values()):
        raise ConfigError(f"the inventory {path} must hold names of hosts, each with its keys: {', '.join(_keys())}")
    return {str(name): _host(path, str(name), facts) for name, facts in content.items()}


def _host(path: Path, name: str, facts: dict[Any, Any]) -> Host:
    unknown = [str(key) for key in facts if key not in _keys()]
    if unknown:
        raise ConfigError(f"{path}, host {name}: unknown key {', '.join(unknown)}; known: {', '.join(_keys())}")
    if "address" not in facts:
        raise ConfigError(f"{path}, host {name}: address is missing")
    if isinstance(facts.get("strict_host_key_checking"), bool):  # yes and no are truth values in YAML
        facts = facts | {"strict_host_key_checking": "yes" if facts["strict_host_key_checking"] else "no"}
    try:
        return Host(name, **{key: value for key, value in facts.items() if value is not None})
    except ValueError as exc:
        raise ConfigError(f"{path}, host {name}: {exc}") from exc


def _keys() -> list[str]:
    return [f.name for f in fields(Host) if f.name != "name"]


def _or(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


NO_FOLDER, NO_PYTHON = 121, 122  # exit codes of the remote command
_OPTIONS = {
    "BatchMode": "yes",  # ssh asks no questions
    "ConnectTimeout": "10",
    "ServerAliveInterval": "10",  # ssh notices a dead line within half a minute
    "ServerAliveCountMax": "3",
    "ControlMaster": "yes",  # the tunnel shares this connection and ends with it
    "ControlPersist": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "LogLevel": "ERROR",
}


def serve_command(host: Host, control: Path) -> list[str]:
    """The command that logs in and runs the server, connected by its stdin and stdout.

    Args:
        host: where to run the server.
        control: path for the socket of this connection.
    """
    options = _OPTIONS | {"ControlPath": str(control)}
    if host.strict_host_key_checking is not None:
        options["StrictHostKeyChecking"] = host.strict_host_key_checking
    if host.identity_file is not None:
        options["IdentitiesOnly"] = "yes"
    command = ["ssh", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    for flag, path in (("-F", host.ssh_config), ("-i", host.identity_file)):
        command += [flag, str(Path(path).expanduser())] if path is not None else []
    for flag, value in (("-l", host.user), ("-p", host.port)):
        command += [flag, str(value)] if value is not None else []
    return [*command, "--", host.address, remote_command(host)]


def remote_command(host: Host) -> str:
    """The command for the login shell there: one ``sh -c`` that any shell understands, with every part quoted."""
    folder, python = _path(host.folder), _path(host.python)
    script = (
        f"cd -- {folder} 2>/dev/null || exit {NO_FOLDER}; "
        f"command -v {python} >/dev/null || exit {NO_PYTHON}; "
        f"exec {python} -m splitsem.workflows.serve_attached"
    )
    return f"exec sh -c {shlex.quote(script)}"


def tunnel_command(host: Host, control: Path, local_port: int, remote_port: int) -> list[str]:
    """The command by which the connection of ``control`` forwards ``local_port`` to the server's loopback port."""
    forward = f"127.0.0.1:{local_port}:127.0.0.1:{remote_port}"
    return ["ssh", "-F", "none", "-S", str(control), "-O", "forward", "-L", forward, "--", host.address]


def _path(path: str) -> str:
    """The path quoted for the remote shell, except for a leading ``~/``, which the shell expands only unquoted."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)
