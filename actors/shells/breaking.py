"""Breaks actors on purpose, the way Ray offers; for chaos and for nobody else."""

from __future__ import annotations

from pathlib import Path

import ray


def kill_actor(name: str, namespace: str, *, no_restart: bool) -> None:
    """Have Ray kill the actor `name`; with `no_restart` it is gone for good, and so is its name.

    Raises:
        ValueError: If there is no such actor.
    """
    ray.kill(ray.get_actor(name, namespace=namespace), no_restart=no_restart)


def log_folder() -> Path:
    """Return where the Ray that this process is connected to keeps its logs."""
    return Path(ray._private.worker.global_worker.node.get_logs_dir_path())
