"""What is told to Prometheus can be read by it, and is what has happened."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import PIPE
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from promtool import PROMTOOL, needs_promtool
from serving_within import Served, an_order, served, stuck_services

from raysaga.statemachines.calls import StepCall, StepReply


async def samples(server: Served) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return every sample by name and labels, the shard left out."""
    answer = await server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (one.name, frozenset((k, v) for k, v in one.labels.items() if k != "shard")): one.value
        for family in text_string_to_metric_families(answer.text)
        for one in family.samples
    }


async def test_counts_are_what_has_happened(tmp_path: Path) -> None:
    async with served(tmp_path / "data", services=stuck_services()) as server:
        headers = {"Idempotency-Key": "o-1"}
        await server.client.post("/sagas/hasty?wait=10s", json=an_order("o-1"), headers=headers)
        await server.client.post("/orders?wait=10s", json=an_order("o-2"))
        found = await samples(server)
        completed = frozenset({("outcome", "completed")})
        assert found["saga_accepted_total", frozenset()] == 2
        assert found["saga_finished_total", completed] == 1
        assert found["saga_duration_seconds_count", completed] == 1
        assert found["saga_finished_total", frozenset({("outcome", "parked")})] == 1
        assert found["saga_in_flight", frozenset({("state", "parked_backward")})] == 1
        (reason,) = [labels for name, labels in found if name == "saga_parked"]
        assert found["saga_parked", reason] == 1
        parked = frozenset({("state", "parked_backward")})
        assert found["saga_oldest_in_flight_seconds", parked] >= 0
        refund = {("participant", "payment"), ("step", "process_payment")}
        failed = frozenset({*refund, ("direction", "compensation"), ("result", "failed")})
        assert found["saga_step_attempts_total", failed] == 2
        assert found["saga_ambiguous_total", frozenset({("step", "process_payment")})] == 2
        assert found["breaker_state", frozenset({("name", "payment")})] == 0
        assert 0 < found["journal_map_used_ratio", frozenset()] < 1
        assert found["journal_oldest_reader_seconds", frozenset()] >= 0
        assert found["engine_up", frozenset()] == 1
        assert found["shard_recovery_seconds", frozenset()] >= 0
        assert found["outbox_lag_seconds", frozenset()] >= 0
        assert found["journal_errors_total", frozenset({("kind", "full")})] == 0
        commits = found["journal_commits_total", frozenset()]
        assert found["journal_commit_seconds_count", frozenset()] == commits > 0
        entries = found["journal_entries_total", frozenset()]
        assert found["journal_batch_records_sum", frozenset()] == entries >= commits


async def test_buckets_are_summed_up_and_in_order(server: Served) -> None:
    await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    text = (await server.client.get("/metrics")).text
    pattern = r'saga_duration_seconds_bucket\{le="([^"]+)",outcome="completed",shard="0"\} (\S+)'
    buckets = [(float(bound), float(count)) for bound, count in re.findall(pattern, text)]
    assert len(buckets) > 10 and buckets[-1] == (float("inf"), 1.0)
    assert buckets == sorted(buckets)


async def test_what_is_turned_away_or_repeated_is_counted_by_its_reason(tmp_path: Path) -> None:
    async with served(tmp_path / "data", sagas_in_flight_max=1) as server:
        await server.client.post("/orders?wait=10s", json=an_order("o-1"))
        await server.client.post("/orders?wait=10s", json=an_order("o-1"))
        # Another body under the same key is an error, and no repeat.
        await server.client.post("/orders", json=an_order("o-1", customer_id="c-8"))
        object.__setattr__(server.engine.host.settings, "sagas_in_flight_max", 0)
        await server.client.post("/orders", json=an_order("o-2"))
        found = await samples(server)
        assert found["saga_duplicate_requests_total", frozenset()] == 1
        rejected = {
            reason: found["admission_rejected_total", frozenset({("reason", reason)})]
            for reason in ("overloaded", "storage_full")
        }
        assert rejected == {"overloaded": 1, "storage_full": 0}


async def test_a_late_action_and_a_replaced_owner_are_counted_by_their_participant(
    server: Served,
) -> None:
    """Method: a sender of the test's own says what a delayed and a stale message would."""
    payment = server.engine.server("payment")
    answered: asyncio.Queue[StepReply] = asyncio.Queue()
    uuid = server.engine.folder.uuid
    undo = StepCall(1, 1, uuid, "order:x", "pay", "refund", {}, "u/other", 2, 1, None, 1_000)
    late = undo._replace(call_id=2, verb=0, operation="charge", expires_at_ms=1 << 50)
    stale = late._replace(call_id=3, saga_id="order:y", epoch=1)
    codes = []
    for call in (undo, late, stale):
        payment.deliver([call], answered.put_nowait)
        codes.append((await asyncio.wait_for(answered.get(), 10)).code)
    assert codes == ["", "CANCELLED_BEFORE_START", "FENCED"]
    found = await samples(server)
    of_payment = frozenset({("name", "payment")})
    assert found["saga_tombstone_refusals_total", of_payment] == 1
    assert found["saga_fenced_total", of_payment] == 1
    assert found["saga_fenced_total", frozenset({("name", "shipping")})] == 0


@needs_promtool
async def test_promtool_has_no_complaint(server: Served) -> None:
    await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    text = (await server.client.get("/metrics")).content
    lint = await asyncio.create_subprocess_exec(
        *(PROMTOOL, "check", "metrics"), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    said = await lint.communicate(text)
    assert (lint.returncode, *said) == (0, b"", b"")


async def test_no_label_names_a_saga_or_a_caller(server: Served) -> None:
    await server.client.post("/orders?wait=10s", json=an_order("secret-order"))
    assert "secret-order" not in (await server.client.get("/metrics")).text
