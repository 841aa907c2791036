"""Diagnosis: why a server cannot be reached, found out step by step: name, port, TLS, service."""

import socket
import ssl

import grpc

from splitsem.transport.grpc.security import Security, host_port

_STEP_S = 3.0


def diagnose(target: str, security: Security, code: grpc.StatusCode, details: str) -> str:
    """One line: the first step that fails on the way to ``target``, or else what gRPC itself said."""
    host, port = host_port(target)
    host = host.strip("[]")
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        return f"the name {host} cannot be resolved ({exc}): check transport.target"
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
    """What is wrong with TLS, in words; empty when nothing is."""
    context = ssl.create_default_context(cafile=security.ca)
    context.set_alpn_protocols(["h2"])
    if security.ca is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        if security.cert and security.key:
            context.load_cert_chain(security.cert, security.key)
        encrypted = context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as exc:
        return f"TLS: the server's certificate is not accepted ({exc.verify_message}); does security.ca fit it?"
    except (ssl.SSLError, OSError):
        return "TLS: the server does not speak it; start it with security.cert and key" if security.ca else ""
    with encrypted:
        if not security.ca:
            return "TLS: the server speaks it and the device does not: give security.ca"
        try:
            is_welcome = bool(encrypted.recv(1))  # a client certificate is missed only after the handshake
        except OSError:
            is_welcome = False
    return "" if is_welcome else "TLS: the server hangs up: does it ask for a client certificate (cert and key)?"


def _status(target: str, code: grpc.StatusCode, details: str) -> str:
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{target} serves gRPC but not this version of splitsem's service: update one of the two ends"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{target} is connected but did not answer in time"
    return f"{code.name}: {details}"
