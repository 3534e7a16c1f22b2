"""The process that holds the engine open, and with it the local Ray: the run's driver.

It is killed as well; nothing is lost with it but time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.settings import EngineSettings
from raysaga.actors.shells.breaking import kill_actor, log_folder
from raysaga.api.client import Connection, connect
from raysaga.simulation.chaos.orders import SERVICES
from raysaga.simulation.chaos.talk import Talk


def connection(told: Mapping[str, Any]) -> Connection:
    """Return a connection to the engine that a process of the run is told of."""
    return connect(
        Path(told["workplace"]) / "data",
        address=told["address"],
        shards=told["shards"],
        settings=EngineSettings.model_validate(told["settings"]),
        participants=dict.fromkeys(SERVICES, "raysaga.simulation.chaos.services:serve"),
        services=told["services"],
    )


async def keep() -> None:
    """Open the engine, and close it when told to."""
    talk = Talk()
    told = await talk.begin()
    async with connection(told) as sagas:
        plan = sagas.gateway.engine.plan
        talk.say(ready=True, engine=plan.engine, logs=str(log_folder()))

        async def answer(verb: str, facts: Mapping[str, Any]) -> Any:
            assert verb == "kill_actor", verb
            name = f"{plan.engine}/{facts['role']}"
            await asyncio.to_thread(
                kill_actor, name, plan.namespace, no_restart=facts["no_restart"]
            )

        await talk.listen(answer)


if __name__ == "__main__":
    asyncio.run(keep())
