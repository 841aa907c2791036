"""Workflow federated: training in this process, in Flower's simulation or in Flower's deployment."""
