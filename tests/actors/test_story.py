"""What people are told of a saga: each event by its name, no payloads, each at its level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from raysaga.actors.story import event_facts, event_name, history_rows
from raysaga.statemachines.events import EVENT_TYPES
from raysaga.statemachines.order import order_saga

from .toy_services import Fate, fates
from .virtual_time import in_virtual_time
from .world import World

SAMPLE: dict[str, Any] = {
    "step": 1,
    "undo": False,
    "remaining": (0, 1),
    "net_effect": (2,),
    "input": {"secret": "of the customer"},
    "result": {"secret": "of the participant"},
    "results": ({"secret": "of all"}, None, None, None),
    "statuses": ("applied", "nothing", "nothing", "nothing"),
}


def sample_events() -> Iterator[Any]:
    """Yield one event of each type."""
    for cls in EVENT_TYPES.values():
        fields = {name: SAMPLE.get(name, 1) for name in cls.__struct_fields__}
        if cls.__name__ == "CompensationStarted":
            fields["undo"] = (0, 1)
        yield cls(**fields)


@pytest.mark.parametrize("event", list(sample_events()), ids=event_name)
def test_no_payload_is_told_unless_it_is_asked_for(event: Any) -> None:
    told = event_facts(order_saga, event, with_payloads=False)
    assert "secret" not in str(told)
    whole = event_facts(order_saga, event, with_payloads=True)
    assert ("secret" in str(whole)) == any(
        name in SAMPLE and "secret" in str(SAMPLE[name]) for name in event.__struct_fields__
    )


@pytest.mark.parametrize("event", list(sample_events()), ids=event_name)
def test_steps_are_told_by_their_names(event: Any) -> None:
    told = event_facts(order_saga, event, with_payloads=False)
    if "step" in told:
        assert told["step"] == "process_payment"
    for name in ("remaining", "net_effect", "undo"):
        if name in told:
            assert all(isinstance(step, str) for step in told[name])


def test_every_event_has_a_name_of_its_own() -> None:
    names = [event_name(event) for event in sample_events()]
    assert len(set(names)) == len(EVENT_TYPES)
    assert "step_succeeded" in names


def test_a_history_is_told_in_order_with_the_instant_of_each_event() -> None:
    events = list(sample_events())
    rows = history_rows(order_saga, events)
    assert [row["event"] for row in rows] == [event_name(event) for event in events]
    assert all(row["at_ms"] == 1 for row in rows)


@pytest.fixture
def _usual_log() -> Iterator[None]:
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("_usual_log")
@in_virtual_time
async def test_a_saga_that_goes_well_is_told_at_debug_and_its_trouble_above(
    fast_folder: Path,
) -> None:
    with capture_logs() as told:
        world = await World(fast_folder).start()
        await world.outcome(await world.submit("1"))
        world.services.script.refuses["schedule_shipping"] = "NO"
        world.services.script.refuses_undo.add("reserve_inventory")
        world.services.fate = fates({("process_payment", 0): [Fate.LOST]})
        await world.outcome(await world.submit("2"))
        await world.order("skip", "order:2", "by hand")
        await world.finish()
    first = [line for line in told if line.get("saga_id") == "order:1"]
    assert {line["log_level"] for line in first} == {"debug"}
    levels = {line["event"]: line["log_level"] for line in told if line.get("saga_id") == "order:2"}
    assert levels["attempt_failed"] == "warning"
    assert levels["saga_parked"] == "error"
    assert levels["step_skipped"] == "warning"
    assert levels["compensation_started"] == "info"
    given = next(line for line in told if line["event"] == "order_given")
    assert (given["by"], given["note"], given["order"]) == ("op", "by hand", "skip")
    assert "tok-1" not in str(told)
    for line in told:
        if line.get("saga_id"):
            assert line["scope"]
            assert line["epoch"] == 1
