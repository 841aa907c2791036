"""The inventory, a YAML file of machines where a server or a device can be started, and the ssh commands for them."""

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
        folder: relative to the home folder there; a server's checkout (None: ``splitsem``), or where a board keeps what
            it was sent (None: ``splitsem-device``).
        python: the interpreter there: a command, or a path relative to a server's ``folder`` and a board's home. None:
            ``.venv/bin/python`` of a server, ``python3`` of a board.
        connect: ``tunnel``: frames go through ssh and nothing else listens to the network; ``direct``: a server listens
            on ``transport.bind``, and a board connects to ``transport.target``.
        settings: dotted names of the configuration → values on this machine.
        start_timeout_s: longest wait for a message of what is started there, until it runs.
    """

    name: str
    address: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    ssh_config: str | None = None
    strict_host_key_checking: str | None = None
    folder: str | None = None
    python: str | None = None
    connect: str = "tunnel"
    settings: Mapping[str, Any] = field(default_factory=dict)
    start_timeout_s: float = 180.0

    def __post_init__(self) -> None:
        for name in ("address", "user", "identity_file", "ssh_config", "folder", "python"):
            value = getattr(self, name)
            if not (name != "address" and value is None) and (
                not isinstance(value, str) or not value or value[0] == "-"
            ):
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
            given = f"host={self.host}" if self.how is None else f"got {self.how!r}"
            raise ConfigError(f"start must be null or ssh, and host needs start=ssh; {given}")
        return find(self.inventory, self.host, "start=ssh needs host")


def find(inventory: str, name: str | None, needed: str) -> Host:
    """The host of that name. Raises ConfigError, which lists the known ones; for no name, it begins with ``needed``."""
    hosts = load(Path(inventory))
    if name is None or name not in hosts:
        missing = needed if name is None else f"no host {name!r}"
        raise ConfigError(f"{missing}; {inventory} knows: {', '.join(hosts) or 'none'}")
    return hosts[name]


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


def login_command(host: Host, control: Path, remote: str) -> list[str]:
    """The command that logs in and runs ``remote``, connected by its stdin and stdout.

    Args:
        host: where to log in.
        control: path for the socket of this connection.
        remote: command for the login shell there.
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
    return [*command, "--", host.address, remote]


def server_command(host: Host) -> str:
    """The command for the login shell there that runs a server: one ``sh -c`` of quoted parts, for any shell."""
    folder, python = _path(server_folder(host)), _path(server_python(host))
    script = (
        f"cd -- {folder} 2>/dev/null || exit {NO_FOLDER}; "
        f"command -v {python} >/dev/null || exit {NO_PYTHON}; "
        f"exec {python} -m splitsem.workflows.serve_attached"
    )
    return f"exec sh -c {shlex.quote(script)}"


def board_command(host: Host, num_bytes: int) -> str:
    """The command for the login shell there: its Python runs the ``num_bytes`` of source that stdin begins with.

    They are read without a buffer, so that the source finds on stdin what comes after it.
    """
    python = _path(board_python(host))
    reader = (
        f"import os; n, code = {num_bytes}, b''\nwhile len(code) < n: code += os.read(0, n - len(code)) or exit(1)\n"
        "exec(compile(code, 'board_end', 'exec'))"
    )
    script = f"command -v {python} >/dev/null || exit {NO_PYTHON}; exec {python} -I -c {shlex.quote(reader)}"
    return f"exec sh -c {shlex.quote(script)}"


def server_folder(host: Host) -> str:
    """The checkout there."""
    return host.folder or "splitsem"


def server_python(host: Host) -> str:
    """The interpreter of a server."""
    return host.python or ".venv/bin/python"


def board_python(host: Host) -> str:
    """The interpreter of a board."""
    return host.python or "python3"


def tunnel_command(host: Host, control: Path, *forward: str) -> list[str]:
    """The command by which the connection of ``control`` forwards a port, as ssh's ``-L`` or ``-R`` has it."""
    return ["ssh", "-F", "none", "-S", str(control), "-O", "forward", *forward, "--", host.address]


def _path(path: str) -> str:
    """The path quoted for the remote shell, except for a leading ``~/``, which the shell expands only unquoted."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)
