"""Tells what an operator, a dashboard and a bench want to know of one shard, as plain values."""

from __future__ import annotations

import os
from typing import Any

from raysaga.actors.desk import Desk
from raysaga.actors.host import SagaHost
from raysaga.actors.reconciler import Reconciler


def shard_stats(shard: int, host: SagaHost, desk: Desk, reconciler: Reconciler) -> dict[str, Any]:
    """Return a shard's counts since its host started, and where it stands now.

    Costs two reads of the journal, each of one row.
    """
    assert host.committer is not None
    usage = host.journal.usage()
    return {
        "shard": shard,
        "pid": os.getpid(),
        "epoch": host.epoch,
        "in_memory": len(host.sagas),
        "accepted": desk.accepted_count,
        "rejected": desk.rejected_count,
        "finished": host.finished_count,
        "recovered": reconciler.recovered_count,
        "commits": host.committer.commit_count,
        "entries": host.committer.entry_count,
        "queued": host.committer.queued_count,
        "map_used": usage.used,
        "map_cap": usage.cap,
        "phases": {phase.value: n for phase, n in host.journal.counts().items()},
        "participants": {
            name: {
                "exchanges": d.exchange_count,
                "sent": d.sent_count,
                "timeouts": d.timeout_count,
                "in_flight": d.in_flight_count,
                "in_flight_max": host.settings.participant_in_flight_max,
                "queued": d.queued_count,
                "circuit": d.breaker.state.value,
            }
            for name, d in host.dispatchers.items()
        },
        "measures": host.measures.told(),
    }
