"""Workflow federated: in this process, by Flower's simulation or by its deployment."""
