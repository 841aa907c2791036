"""The two apps as Flower loads them; what they do is in splitsem.workflows.federated.deployment."""
