"""Names and sockets: from ``HOST:PORT`` to a UDP socket, loopback only unless told otherwise."""

import ipaddress
import socket
from typing import Any

from splitsem.errors import ConfigError, LinkError

_IN_THE_CLEAR = "datagrams travel in the clear; insecure=true allows it, transport=grpc with TLS avoids it"


def host_and_port(text: str, name: str) -> tuple[str, int]:
    """The parts of ``HOST:PORT``; an IPv6 address may stand in brackets. Raises ConfigError, which names the setting.

    >>> host_and_port("[::1]:50052", "transport.bind")
    ('::1', 50052)
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{name} must be HOST:PORT, got {text!r}")
    return host.strip("[]"), int(port)


def connect(target: str, insecure: bool) -> socket.socket:
    """A socket that sends to ``HOST:PORT`` only.

    Raises:
        ConfigError: not of that form, or not on this machine without ``insecure``.
        LinkError: no such name.
    """
    family, address = _resolve(*host_and_port(target, "transport.target"))
    check_secure(f"send to {target}", address, insecure)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.connect(address)
    except OSError as exc:
        sock.close()
        raise LinkError(f"{target} cannot be reached: {exc.strerror}") from exc
    return sock


def bind(host: str, port: int, insecure: bool) -> socket.socket:
    """A socket that listens there; port 0 takes a free one.

    Raises:
        ConfigError: the address is not on this machine, in use, or public without ``insecure``.
        LinkError: no such name.
    """
    family, address = _resolve(host, port)
    check_secure(f"listen on {host}", address, insecure)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind(address)
    except OSError as exc:
        sock.close()
        raise ConfigError(f"cannot listen on {host}:{port} over UDP: {exc.strerror}") from exc
    return sock


def check_secure(what: str, address: tuple[Any, ...], insecure: bool) -> None:
    """Raise ConfigError for an address beyond this machine unless ``insecure``."""
    if not insecure and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise ConfigError(f"refusing to {what}: {_IN_THE_CLEAR}")


def _resolve(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    except (socket.gaierror, UnicodeError) as exc:
        raise LinkError(f"cannot resolve the name {host!r}: {exc}") from exc
    return family, address
