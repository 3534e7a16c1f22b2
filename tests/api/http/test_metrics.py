"""What is told to Prometheus can be read by it, and is what has happened."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from serving_within import Served, an_order, served, stuck_services


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
        assert found["engine_up", frozenset()] == 1


async def test_buckets_are_summed_up_and_in_order(server: Served) -> None:
    await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    text = (await server.client.get("/metrics")).text
    pattern = r'saga_duration_seconds_bucket\{le="([^"]+)",outcome="completed",shard="0"\} (\S+)'
    buckets = [(float(bound), float(count)) for bound, count in re.findall(pattern, text)]
    assert len(buckets) > 10 and buckets[-1] == (float("inf"), 1.0)
    assert buckets == sorted(buckets)


async def test_no_label_names_a_saga_or_a_caller(server: Served) -> None:
    await server.client.post("/orders?wait=10s", json=an_order("secret-order"))
    assert "secret-order" not in (await server.client.get("/metrics")).text
