"""The saga as a DBOS workflow: an asynchronous function whose steps are checkpointed.

Durable: each workflow's start, the output or the error of each step, and its end, each in a
transaction of the system database: SQLite as DBOS sets it up (rollback journal, FULL), or
PostgreSQL (one flush of its log for each). DBOS has no notion of a saga: what was done is
undone in an `except` clause, step by step, the other way round.
Not durable: the participants, which are called inside the steps, in the same process.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID  # type: ignore[import-not-found]

from raysaga.bench.peers.participants import STEPS, UNDOS, Participants, RefusedError, order_of

_participants = Participants()


@DBOS.step()  # type: ignore[untyped-decorator]
async def perform(step: str, order: dict[str, Any]) -> dict[str, Any]:
    """Call one participant."""
    return _participants.do(step, order)


@DBOS.workflow()  # type: ignore[untyped-decorator]
async def order_workflow(order: dict[str, Any]) -> str:
    """Reserve, charge, schedule and send; undo what was done if one is refused."""
    done: list[str] = []
    try:
        for step in STEPS:
            await perform(step, order)
            done.append(step)
    except RefusedError:
        for step in reversed(done):
            await perform(UNDOS[step], order)
        return "compensated"
    return "completed"


class DbosPeer:
    """One DBOS application."""

    def __init__(self, refused_every: int) -> None:
        self._refused_every = refused_every

    async def order(self, number: int) -> str:
        """Run one workflow, named by its order."""
        order = order_of(number, "o", self._refused_every)
        with SetWorkflowID(order["order_id"]):
            return str(await order_workflow(order))

    async def counts(self) -> dict[str, int]:
        """Return the participants' counts."""
        return _participants.counts()

    async def close(self) -> None:
        """End the application."""
        DBOS.destroy()


async def open_peer(folder: Path, plan: dict[str, Any]) -> DbosPeer:
    """Return the peer with a fresh system database."""
    url = plan.get("database_url") or f"sqlite:///{folder / 'dbos.sqlite'}"
    config: DBOSConfig = {
        "name": "raysaga-bench",
        "system_database_url": url,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    logging.getLogger("dbos").setLevel(logging.ERROR)
    return DbosPeer(plan["refused_every"])
