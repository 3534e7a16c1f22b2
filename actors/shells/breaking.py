"""Breaks actors on purpose, the way Ray offers; for chaos and for nobody else."""

from __future__ import annotations

import ray


def kill_actor(name: str, namespace: str, *, no_restart: bool) -> None:
    """Have Ray kill the actor `name`; with `no_restart` it is gone for good, and so is its name.

    Raises:
        ValueError: If there is no such actor.
    """
    ray.kill(ray.get_actor(name, namespace=namespace), no_restart=no_restart)
