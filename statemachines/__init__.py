"""Decides: definitions, state machines and the pure core; no I/O, no clock, no chance."""
