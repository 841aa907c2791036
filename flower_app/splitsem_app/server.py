"""Flower's ServerApp of a deployment."""

from splitsem.workflows.federated.deployment import make_server_app

app = make_server_app()
