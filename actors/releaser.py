"""Tells participants which sagas are over, so that they may forget their ledger rows.

A participant keeps a row until it is told, since a late call could come. The
end of a saga is durable before it is told here; what was told and not noted is
told again, at no harm.
"""

from __future__ import annotations

from raysaga.actors.bulk_release import PARTS_MAX, failed_in
from raysaga.actors.clock import Clock
from raysaga.actors.committer import RunBlocking
from raysaga.actors.host import SagaHost
from raysaga.statemachines.calls import Code, StepReply
from raysaga.statemachines.ids import SagaId
from raysaga.storage.journal import Head

RELEASE_PAUSE_SWEEPS = 5
"""Pauses between sweeps after which a release that was not confirmed is tried again; each
try asks all participants of up to some hundred sagas, the healthy ones too."""


class _Group:
    """Sagas that are released together."""

    __slots__ = ("answers_left", "failed", "saga_ids")

    def __init__(self, saga_ids: list[SagaId], answers: int) -> None:
        self.saga_ids = saga_ids
        self.answers_left = answers
        self.failed: set[str] = set()


class Releaser:
    """One host's releases."""

    def __init__(self, host: SagaHost, *, clock: Clock, run_blocking: RunBlocking) -> None:
        self._host = host
        self._clock = clock
        self._run_blocking = run_blocking
        self._under_way: set[SagaId] = set()
        self._released: list[SagaId] = []
        self._not_before_ms = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether answers are awaited or not yet noted."""
        return bool(self._under_way)

    def release_some(self) -> None:
        """Tell participants of sagas that are over and were not released yet."""
        host = self._host
        room = host.settings.release_items_max
        if self._clock.monotonic_ms() < self._not_before_ms or len(self._under_way) >= room:
            return
        found = [h for h in host.journal.unreleased(room) if h.saga_id not in self._under_way]
        rows: dict[str, list[list[str]]] = {}
        group: list[SagaId] = []
        for head in found:
            if self._add(head, rows):
                group.append(head.saga_id)
                if max(map(len, rows.values())) >= PARTS_MAX:
                    self._send(group, rows)
                    group, rows = [], {}
        if group:
            self._send(group, rows)

    def _add(self, head: Head, rows: dict[str, list[list[str]]]) -> bool:
        """Add a saga's steps to each participant's rows; False if they cannot be told."""
        self._under_way.add(head.saga_id)
        definition = self._host.definitions.get(head.definition_hash)
        if definition is None:
            # Without its recipe nobody knows whom to tell; its rows stay.
            self._released.append(head.saga_id)
            return False
        for step in definition.steps:
            row = [head.saga_id, step.name, step.action, head.phase.value]
            rows.setdefault(step.participant, []).append(row)
        return True

    def _send(self, saga_ids: list[SagaId], rows: dict[str, list[list[str]]]) -> None:
        host = self._host
        assert host.stamp is not None
        calls = [
            (participant, host.stamp.bulk_release(told[at : at + PARTS_MAX]))
            for participant, told in rows.items()
            for at in range(0, len(told), PARTS_MAX)
        ]
        group = _Group(saga_ids, len(calls))

        def answered(reply: StepReply) -> None:
            self._answered(group, reply)

        for participant, call in calls:
            host.dispatcher(participant).send(call, answered)

    def _answered(self, group: _Group, reply: StepReply) -> None:
        if reply.code == Code.FENCED:
            self._host.fenced()
        failed = failed_in(reply)
        group.failed.update(group.saga_ids if failed is None else failed)
        group.answers_left -= 1
        if group.answers_left:
            return
        self._released += [saga_id for saga_id in group.saga_ids if saga_id not in group.failed]
        if group.failed:
            # They are found again by a later sweep.
            self._under_way.difference_update(SagaId(saga_id) for saga_id in group.failed)
            pause_ms = RELEASE_PAUSE_SWEEPS * self._host.settings.reconcile_ms
            self._not_before_ms = self._clock.monotonic_ms() + pause_ms

    async def note_released(self) -> None:
        """Note what every participant has confirmed."""
        if self._released:
            done, self._released = self._released, []
            # First, so that what cannot be noted for want of room is found again.
            self._under_way.difference_update(done)
            await self._run_blocking(lambda: self._host.journal.mark_released(done))
