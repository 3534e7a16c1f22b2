"""Kills as many empty Ray actors as an engine has, and times until Ray has brought them back.

What an engine does when its processes were killed begins after this: so it is the bound of
any recovery below a Ray that stands.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from raysaga.actors.shells.cluster import RAY_ENVIRONMENT
from raysaga.bench.bed import SERVICES

ACTORS = len(SERVICES) + 2
"""Four services, a shard and the supervisor."""

_PROGRAM = f"""
import json, os, signal, sys, time
import ray
ray.init(address="local", include_dashboard=False, num_cpus=max(os.cpu_count(), 4),
         log_to_driver=False, logging_level="ERROR", object_store_memory=100 << 20)

@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Bare:
    async def pid(self):
        return os.getpid()

actors = [Bare.remote() for _ in range({ACTORS})]
before = ray.get([actor.pid.remote() for actor in actors])
for pid in before:
    os.kill(pid, signal.SIGKILL)
began_at = time.perf_counter()
after = ray.get([actor.pid.remote() for actor in actors])
took_s = time.perf_counter() - began_at
assert not set(before) & set(after)
open(sys.argv[1], "w").write(json.dumps(took_s))
"""


def run_bare_actors() -> dict[str, Any]:
    """Return how long Ray took to bring the actors back, in a Ray of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as told:
        # Ray prints where it likes; the figure goes elsewhere.
        subprocess.run(
            [sys.executable, "-c", _PROGRAM, told.name],
            env={**RAY_ENVIRONMENT, **os.environ},
            stdout=sys.stderr,
            check=True,
        )
        took_s = json.load(told)
    return {"actors": ACTORS, "seconds_until_all_answer": round(took_s, 3)}
