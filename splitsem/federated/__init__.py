"""Federated training: Flower apps, the codec of updates, and what decides how much of an update travels."""
