"""Many releases in one call: how a host packs them, and how a participant takes them apart.

An order saga is released at four participants. Sent one by one, that is as many
messages again as its actions are; so a host tells each participant of many ended
sagas at once, and hears which of them it could not release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raysaga.statemachines.calls import RELEASE, Code, Outcome, StepCall, StepReply, reply_to

PARTS_MAX = 1_024
"""Releases in one call; each takes some 100 bytes."""

MANY = "*"
"""Saga and step of a call that is about many."""


def parts_of(call: StepCall) -> list[StepCall] | None:
    """Return the single releases that `call` stands for; None if it is none of this kind.

    Raises:
        ValueError: If it is, and cannot be read.
    """
    if call.verb != RELEASE or call.saga_id != MANY:
        return None
    rows: Any = call.request.get("rows")
    if not isinstance(rows, list) or not 0 < len(rows) <= PARTS_MAX:
        raise ValueError(f"it must have 1 to {PARTS_MAX} rows")
    parts = []
    for number, row in enumerate(rows):
        saga_id, step, operation, outcome = row
        parts.append(
            call._replace(
                call_id=number,
                saga_id=str(saga_id),
                step=str(step),
                operation=str(operation),
                request={"outcome": str(outcome)},
            )
        )
    return parts


class Gathering:
    """Waits for the answers to the parts of one call, and gives one to the whole."""

    def __init__(self, call: StepCall, count: int, answer: Callable[[StepReply], None]) -> None:
        self._call = call
        self._left = count
        self._answer = answer
        self._failed: list[str] = []
        self._code = ""

    def take(self, reply: StepReply) -> None:
        """Note the answer to one part; with the last, answer the whole."""
        self._left -= 1
        if reply.outcome != Outcome.SUCCEEDED:
            self._failed.append(reply.saga_id)
            # A newer owner of the scope is what the sender must hear of first.
            if self._code != Code.FENCED:
                self._code = reply.code
        if self._left == 0:
            result = {"failed": self._failed}
            self._answer(reply_to(self._call, Outcome.SUCCEEDED, result=result, code=self._code))


def failed_in(reply: StepReply) -> Sequence[str] | None:
    """Return the sagas that were not released; None if nothing is known of any."""
    failed = (reply.result or {}).get("failed")
    if reply.outcome != Outcome.SUCCEEDED or not isinstance(failed, list):
        return None
    return failed
