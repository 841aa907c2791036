"""The two apps that Flower loads; splitsem.workflows.federated.deployment makes both."""
