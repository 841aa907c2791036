"""Command lines of the system's ssh client; nothing here runs them, and no shell of this machine sees them."""

import shlex
from pathlib import Path

from splitsem.transport.ssh.inventory import Host

NO_FOLDER, NO_PYTHON = 121, 122  # exit codes of the remote command
_OPTIONS = {
    "BatchMode": "yes",  # never asks
    "ConnectTimeout": "10",
    "ServerAliveInterval": "10",  # notices a dead line within half a minute
    "ServerAliveCountMax": "3",
    "ControlMaster": "yes",  # so that the tunnel shares this connection, and dies with it
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
    """Log in and run the server, its stdin and stdout being ours.

    Args:
        host: where.
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
    """What the login shell there gets: one ``sh -c`` that any shell understands, with every part quoted."""
    folder, python = _path(host.folder), _path(host.python)
    script = (
        f"cd -- {folder} 2>/dev/null || exit {NO_FOLDER}; "
        f"command -v {python} >/dev/null || exit {NO_PYTHON}; "
        f"exec {python} -m splitsem.workflows.serve_attached"
    )
    return f"exec sh -c {shlex.quote(script)}"


def tunnel_command(host: Host, control: Path, local_port: int, remote_port: int) -> list[str]:
    """Let the connection behind ``control`` carry what arrives at ``local_port`` to the server's loopback port."""
    forward = f"127.0.0.1:{local_port}:127.0.0.1:{remote_port}"
    return ["ssh", "-F", "none", "-S", str(control), "-O", "forward", "-L", forward, "--", host.address]


def _path(path: str) -> str:
    """Quoted for the remote shell, which expands a leading ``~/`` only when it is not quoted."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)
