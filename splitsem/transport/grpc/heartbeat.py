"""Heartbeat: HTTP/2 pings, by which each end finds out that the other is gone though the connection looks alive."""

from math import isfinite

HEARTBEAT_S = 10.0


def heartbeat_options(heartbeat_s: float) -> list[tuple[str, int]]:
    """gRPC's options, the same for both ends: a silent peer is given up after at most ``2 · heartbeat_s``.

    A connection on which nothing was read for ``heartbeat_s`` is pinged, also while no call is open; when another
    ``heartbeat_s`` brings no answer, it is closed, and its calls end with UNAVAILABLE.

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
        ("grpc.http2.max_pings_without_data", 0),  # any number: an answer may take longer than two heartbeats
        ("grpc.min_reconnect_backoff_ms", 2 * ms),  # how long connecting to a peer that says nothing may take
        ("grpc.http2.min_ping_interval_without_data_ms", 500),  # a server takes more frequent pings for an attack
    ]
