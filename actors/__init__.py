"""Moves: hosts, group commit, dispatch, timers, recovery, services, and the Ray shells."""
