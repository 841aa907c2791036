"""Federated training with Flower: apps, the grid that carries updates as payloads, faults and checkpoints."""
