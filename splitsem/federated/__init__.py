"""Federated training: Flower apps, updates as payloads, and what decides how much of an update travels."""
