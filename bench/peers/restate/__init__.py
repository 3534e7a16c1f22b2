"""Restate: its server, and the Python SDK."""
