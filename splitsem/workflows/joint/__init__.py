"""Workflow joint: cut and branches, or cut and codec, chosen together under an accuracy constraint."""
