"""Workflow splitfed: clients with heads, a server with their tail."""
