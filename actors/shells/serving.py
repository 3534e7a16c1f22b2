"""Makes an ASGI application a Ray Serve deployment.

Guarantees: replicas run on the node that makes the deployment, since it has the data folder;
what a replica works on and what waits for it is bounded.
Refuses: to do without Ray Serve's own packages (`ImportError`).
Costs: Ray Serve's proxy before each request, some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

REQUESTS_MAX = 1_000
"""Requests that a replica works on, streams and waiting clients among them; Ray's own bound
of 5 would let a few clients with `?wait=` hold up all others."""

WAITING_MAX = 1_000
"""Requests that wait for a replica before Ray answers 503; Ray's own number is no bound."""

CPUS = 0.1
"""Asked of Ray's book-keeping for a replica; it is an event loop that mostly waits."""


def deployment_of(build: Callable[[], Any], *, name: str, replicas: int) -> Any:
    """Return what `serve run` runs.

    Args:
        build: A function that returns the ASGI application; called in each replica.
        name: Of the deployment.
        replicas: How many processes serve it.
    """
    # Imported here: Ray has it only with packages of its own.
    from ray import serve

    node = f"node:{ray.util.get_node_ip_address()}"
    made = serve.deployment(serve.ingress(build)()).options(
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=REQUESTS_MAX,
        max_queued_requests=WAITING_MAX,
        ray_actor_options={"num_cpus": CPUS, "resources": {node: 0.001}},
    )
    return made.bind()
