"""What workflow=serve refuses to show, and to whom."""

import socket

import pytest

from splitsem.errors import ConfigError
from splitsem.remote.server_metrics import ServerMetrics
from splitsem.workflows.serve import show_metrics


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "10.1.2.3:9464", "example.org:9464"])
def test_metrics_are_not_shown_beyond_this_machine_unless_asked_for(bind):
    with pytest.raises(ConfigError, match="metrics_insecure=true"):
        show_metrics(ServerMetrics(), bind)


@pytest.mark.parametrize("bind", ["", "9464", "127.0.0.1", "127.0.0.1:99999"])
def test_what_is_no_address_is_named(bind):
    with pytest.raises(ConfigError, match="metrics_bind"):
        show_metrics(ServerMetrics(), bind)


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"cannot show metrics on {bind}: Address already in use"):
            show_metrics(ServerMetrics(), bind)
