"""Many releases in one call are the same as each by itself."""

from __future__ import annotations

import pytest

from raysaga.actors.bulk_release import MANY, PARTS_MAX, Gathering, failed_in, parts_of
from raysaga.statemachines.calls import (
    ACTION,
    RELEASE,
    Code,
    Outcome,
    StepCall,
    StepReply,
    reply_to,
)


def bulk(rows: object, verb: int = RELEASE) -> StepCall:
    request = {"rows": rows}
    return StepCall(9, verb, "uuid", MANY, MANY, "release", request, "uuid/shard-0", 3, 1, None, 1)


ROWS = [["order:1", "pay", "charge", "completed"], ["order:2", "pay", "charge", "compensated"]]


def test_a_bulk_release_stands_for_its_rows() -> None:
    first, second = parts_of(bulk(ROWS)) or []
    assert (first.saga_id, first.step, first.operation) == ("order:1", "pay", "charge")
    assert (first.request, second.request) == ({"outcome": "completed"}, {"outcome": "compensated"})
    assert (second.scope, second.epoch, second.verb) == ("uuid/shard-0", 3, RELEASE)


def test_another_call_is_left_alone() -> None:
    assert parts_of(bulk(ROWS, ACTION)) is None
    assert parts_of(bulk(ROWS)._replace(saga_id="order:1")) is None


@pytest.mark.parametrize("rows", [None, [], "ab", [["too", "short"]], [ROWS[0]] * (PARTS_MAX + 1)])
def test_what_cannot_be_read_is_refused(rows: object) -> None:
    with pytest.raises(ValueError, match=r"rows|unpack"):
        parts_of(bulk(rows))


def test_the_whole_is_answered_once_with_what_failed() -> None:
    call = bulk(ROWS)
    answers: list[StepReply] = []
    parts = parts_of(call) or []
    gathering = Gathering(call, len(parts), answers.append)
    gathering.take(reply_to(parts[1], Outcome.UNKNOWN, code=Code.FENCED))
    assert answers == []
    gathering.take(reply_to(parts[0], Outcome.SUCCEEDED))
    (answer,) = answers
    assert (answer.call_id, answer.saga_id, answer.code) == (9, MANY, Code.FENCED)
    assert failed_in(answer) == ["order:2"]


def test_a_lost_answer_tells_nothing_of_any() -> None:
    assert failed_in(reply_to(bulk(ROWS), Outcome.UNKNOWN, code=Code.TIMEOUT)) is None
