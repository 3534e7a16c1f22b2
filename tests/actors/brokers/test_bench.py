"""The bench measures over a real broker, and judges what it measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysaga.bench.brokers import measured_over

from .rabbit_process import RabbitProcess


@pytest.mark.cluster
def test_orders_over_a_broker_are_measured_and_audited(
    rabbit: RabbitProcess, tmp_path: Path
) -> None:
    """Four services in processes of their own; no address with its password in the line."""
    (line,) = measured_over(
        rabbit.url + "/", [2], seconds=0.3, repetitions=1, folder=tmp_path / "data"
    )
    assert (line["transport"], line["in_flight"], line["audited"]) == ("amqp", 2, True)
    assert line["completed"] >= 1
    assert "guest" not in str(line)
