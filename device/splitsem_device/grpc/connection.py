"""How gRPC's ends connect: TLS, mutual TLS and bearer token, a heartbeat, and a diagnosis when connecting fails."""

import hmac
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import grpc

from splitsem_device.errors import ConfigError, SecurityError

_HEALTH = "/grpc.health.v1.Health/"


@dataclass(frozen=True)
class Security:
    """Proofs of identity of an end. All paths are PEM files; ``make certs`` makes a set for trying out.

    Attributes:
        ca: certificate authority that the other end's certificate must come from. On the server, ``ca`` makes client
            certificates mandatory (mutual TLS); on the edge, ``ca`` turns TLS on.
        cert: this end's certificate chain; on the server, ``cert`` and ``key`` turn TLS on.
        key: private key of ``cert``.
        token_file: file that holds a secret; the edge shows the secret, the server demands it.
        insecure: allow addresses other than this machine's own without TLS.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    token_file: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError(f"cert and key come together, got cert={self.cert} and key={self.key}")

    def server_credentials(self, host: str) -> grpc.ServerCredentials | None:
        """Credentials to bind with; None for plain TCP. Raises SecurityError where plain TCP is not allowed."""
        if self.cert and self.key:
            ca = _read(self.ca) if self.ca else None
            return grpc.ssl_server_credentials([(_read(self.key), _read(self.cert))], ca, bool(ca))
        if self.ca:
            raise SecurityError("ca at a server asks for client certificates: give cert and key of its security, too")
        self._check_clear(host, f"refusing to serve on {host} without TLS")
        return None

    def channel_credentials(self, host: str) -> grpc.ChannelCredentials | None:
        """Credentials to connect with; None for plain TCP. Raises SecurityError where plain TCP is not allowed."""
        if self.ca:
            chain = (_read(self.key), _read(self.cert)) if self.key and self.cert else (None, None)
            return grpc.ssl_channel_credentials(_read(self.ca), *chain)
        if self.cert:
            raise SecurityError("an edge's cert needs ca, the authority that signed the server's certificate")
        self._check_clear(host, f"refusing to send to {host} without TLS")
        return None

    def check_server(self, bind: str) -> None:
        """Raise SecurityError for what keeps a server from starting on ``bind``, before it has anything to serve."""
        self.server_credentials(host_port(bind)[0])
        self.interceptors()
        check_free(bind)

    def check_edge(self, target: str) -> None:
        """Raise SecurityError for what keeps an edge from calling ``target``, before it has anything to send."""
        self.channel_credentials(host_port(target)[0])
        self.metadata()

    def metadata(self) -> list[tuple[str, str]]:
        """Metadata that the edge sends with each call."""
        return [("authorization", f"Bearer {self._token()}")] if self.token_file else []

    def interceptors(self) -> list[grpc.ServerInterceptor]:
        """Interceptors by which the server checks each call."""
        return [_TokenCheck(self._token())] if self.token_file else []

    def _token(self) -> str:
        token = _read(self.token_file or "").decode(errors="replace").strip()
        if not token or not token.isascii() or not token.isprintable():
            raise SecurityError(f"expected one line of ASCII in {self.token_file}")
        return token

    def _check_clear(self, host: str, refusal: str) -> None:
        if not self.insecure and not is_loopback(host):
            raise SecurityError(
                f"{refusal}: give cert, key and ca of its security (`make certs` makes some to try), or insecure=true"
            )


class _TokenCheck(grpc.ServerInterceptor):
    """Turns away every call without the token; the health service stays open for probes."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        """See grpc.ServerInterceptor."""
        shown = dict(details.invocation_metadata).get("authorization", "")
        shown = shown.encode() if isinstance(shown, str) else shown
        if details.method.startswith(_HEALTH) or hmac.compare_digest(shown, self._expected):
            return continuation(details)
        return grpc.stream_stream_rpc_method_handler(_turn_away)


def is_loopback(host: str) -> bool:
    """Whether the name or address stays on this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_free(address: str) -> None:
    """Raise ConfigError where nothing can listen on ``host:port``."""
    host, port = host_port(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except OSError as exc:
        raise ConfigError(f"cannot listen on {address}: {exc.strerror or exc}; name another, e.g. port 0") from exc


def host_port(address: str) -> tuple[str, int]:
    """The parts of ``host:port`` or ``[address]:port``. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535 or (":" in host and host[0] != "["):
        raise ValueError(f"an address must be host:port with a port of 0…65535, got {address!r}")
    return host, int(port)


def _turn_away(_: Any, context: grpc.ServicerContext) -> Any:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong or missing token: give both ends the same token_file")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise SecurityError(f"cannot read {path}: {exc.strerror}") from exc


_STEP_S = 3.0


def diagnose(target: str, security: Security, code: grpc.StatusCode, details: str) -> str:
    """One line that names the first step that fails on the way to ``target``, or else repeats gRPC's own words."""
    host, port = host_port(target)
    host = host.strip("[]")
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        return f"the name {host} cannot be resolved ({exc}): check the address"
    try:
        connection = socket.create_connection((host, port), timeout=_STEP_S)
    except ConnectionRefusedError:
        return f"{target} refuses connections: is the server running, and on this port?"
    except TimeoutError:
        return f"{target} does not answer: is it the right address, and does a firewall let the port through?"
    except OSError as exc:
        return f"{target} cannot be reached: {exc.strerror or exc}"
    with connection:
        return _tls_trouble(connection, host, security) or _status(target, code, details)


def _tls_trouble(connection: socket.socket, host: str, security: Security) -> str:
    """What is wrong with TLS, in words; empty when nothing is wrong."""
    context = ssl.create_default_context(cafile=security.ca)
    context.set_alpn_protocols(["h2"])
    if security.ca is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        if security.cert and security.key:
            context.load_cert_chain(security.cert, security.key)
        encrypted = context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as exc:
        return f"TLS: the server's certificate is not accepted ({exc.verify_message}); does the edge's ca fit it?"
    except (ssl.SSLError, OSError):
        return "TLS: the server does not speak it; start it with cert and key of its security" if security.ca else ""
    with encrypted:
        if not security.ca:
            return "TLS: the server speaks it and the edge does not: give ca of its security"
        try:
            is_welcome = bool(encrypted.recv(1))  # a server refuses a missing client certificate only now
        except OSError:
            is_welcome = False
    return "" if is_welcome else "TLS: the server hangs up: does it ask for a client certificate (cert and key)?"


def _status(target: str, code: grpc.StatusCode, details: str) -> str:
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{target} serves gRPC but not this version of splitsem's service: update one of the two ends"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{target} is connected but did not answer in time"
    return f"{code.name}: {details}"


HEARTBEAT_S = 10.0


def heartbeat_options(heartbeat_s: float) -> list[tuple[str, int]]:
    """gRPC's options for either end: an end gives up a silent peer after at most ``2 · heartbeat_s``.

    An end pings its peer when nothing was read for ``heartbeat_s``, also while no call is open. After another
    ``heartbeat_s`` without an answer, the end closes the connection, and its calls end with UNAVAILABLE.

    Raises:
        ValueError: ``heartbeat_s`` is below gRPC's own second (on a client) or not finite.
    """
    if not (isfinite(heartbeat_s) and heartbeat_s >= 1):
        raise ValueError(f"heartbeat_s must be at least 1 and finite, got {heartbeat_s}")
    ms = int(1000 * heartbeat_s)
    return [
        ("grpc.keepalive_time_ms", ms),
        ("grpc.keepalive_timeout_ms", ms),
        ("grpc.http2.ping_timeout_ms", ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # no limit: an answer may take longer than two heartbeats
        ("grpc.min_reconnect_backoff_ms", 2 * ms),  # longest time to connect to a silent peer
        ("grpc.http2.min_ping_interval_without_data_ms", 500),  # a server treats more frequent pings as an attack
    ]
