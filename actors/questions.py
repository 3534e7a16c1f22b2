"""Asks participants what they hold, before a saga of a restored journal goes on.

Nothing is sent on a guess: a question without a final answer is asked again,
for as long as it takes. Then the saga restarts from the facts, as after a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from raysaga.actors.clock import Clock
from raysaga.actors.dispatcher import Dispatcher
from raysaga.actors.running import Running, Told
from raysaga.actors.settings import EngineSettings
from raysaga.statemachines.calls import QUESTION, Code, LedgerStatus, Outcome, StepCall, StepReply
from raysaga.statemachines.ids import Epoch
from raysaga.statemachines.inputs import HostRestarted, Input, LedgersAnswered
from raysaga.statemachines.saga import Saga

FINAL = frozenset(status.value for status in LedgerStatus) - {LedgerStatus.PENDING.value}
"""What a ledger can hold that no provider will change any more."""


class Asker(Protocol):
    """A host, as far as questions are concerned."""

    settings: EngineSettings
    epoch: Epoch
    clock: Clock

    def make_call(
        self, saga: Saga, i: int, verb: int, operation: str, attempt: int
    ) -> StepCall | None:
        """Return a call to step `i`; None if the host no longer owns the saga."""

    def dispatcher(self, participant: str) -> Dispatcher:
        """Return the way to a participant."""

    def fenced(self) -> None:
        """Stop, since a participant has heard a newer owner."""

    def give(self, running: Running, given: Input, told: Told | None = None) -> None:
        """Put an input into the saga's mailbox."""


def ask_ledgers(host: Asker, running: Running) -> None:
    """Ask every participant of the saga; it goes on when all have given a final answer."""
    running.asked = {}
    for i in range(len(running.saga.steps)):
        _ask(host, running, i, 0)


def _ask(host: Asker, running: Running, i: int, delay_ms: int) -> None:
    step = running.saga.definition.steps[i]
    call = host.make_call(running.saga, i, QUESTION, step.action, 1)
    if call is None:
        return

    def answered(reply: StepReply) -> None:
        _answered(host, running, i, reply)

    dispatcher = host.dispatcher(step.participant)
    asyncio.get_running_loop().call_later(delay_ms / 1_000, dispatcher.send, call, answered)


def _answered(host: Asker, running: Running, i: int, reply: StepReply) -> None:
    assert running.asked is not None
    result: Mapping[str, Any] = reply.result or {}
    status = result.get("status")
    if reply.code == Code.FENCED:
        host.fenced()
        return
    # That nobody will ever know is a final answer, too.
    if reply.outcome != Outcome.SUCCEEDED or status not in FINAL:
        _ask(host, running, i, host.settings.reconcile_ms)
        return
    running.asked[i] = (status, result.get("result"))
    count = len(running.saga.steps)
    if len(running.asked) < count:
        return
    answers = [running.asked[j] for j in range(count)]
    running.asked = None
    statuses = [status for status, _ in answers]
    host.give(running, LedgersAnswered(statuses, [result for _, result in answers]))
    host.give(running, HostRestarted(host.epoch, False, host.settings.recoveries_max))
