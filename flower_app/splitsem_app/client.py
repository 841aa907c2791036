"""Flower's ClientApp of a deployment."""

from splitsem.workflows.federated.deployment import make_client_app

app = make_client_app()
