"""Channels: what damages bits on their way, bit by bit and seeded."""
