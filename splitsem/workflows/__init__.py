"""Workflows: what a user runs."""
