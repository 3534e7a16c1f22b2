"""Tells what an operator, a dashboard and a bench want to know of one shard, as plain values."""

from __future__ import annotations

import os
from typing import Any

from raysaga.actors.desk import Desk
from raysaga.actors.host import SagaHost
from raysaga.actors.reconciler import Reconciler


def shard_stats(shard: int, host: SagaHost, desk: Desk, reconciler: Reconciler) -> dict[str, Any]:
    """Return a shard's counts since its host started, and where it stands now.

    Costs some reads of the journal, each of one row.
    """
    assert host.committer is not None
    usage = host.journal.usage()
    committer = host.committer
    return {
        "shard": shard,
        "pid": os.getpid(),
        "epoch": host.epoch,
        "in_memory": len(host.sagas),
        "accepted": desk.accepted_count,
        "repeated": desk.repeated_count,
        "rejected": {"overloaded": desk.overloaded_count, "storage_full": desk.full_count},
        "finished": host.finished_count,
        "recovered": reconciler.recovered_count,
        "first_sweep_ms": reconciler.first_sweep_ms,
        "overdue_ms": _overdue_ms(host),
        "clock_jumps": host.jumps.jump_count,
        "commits": committer.commit_count,
        "entries": committer.entry_count,
        "queued": committer.queued_count,
        "full": committer.full_count,
        "commit_ms": committer.times.told(),
        "commit_entries": committer.sizes.told(),
        "map_used": usage.used,
        "map_cap": usage.cap,
        "oldest_reader_ms": host.measures.snapshot_age_ms(
            usage.oldest_snapshot, host.clock.monotonic_ms()
        ),
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


def _overdue_ms(host: SagaHost) -> int:
    """Return for how long the saga that should have been looked at first has waited."""
    now_ms = host.clock.now_ms()
    for saga_id in host.journal.due_before(now_ms, 1):
        head = host.journal.head(saga_id)
        if head is not None and head.due_at_ms is not None:
            return max(0, now_ms - head.due_at_ms)
    return 0
