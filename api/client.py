"""The Python client: asyncio here, the same for threads in `blocking`.

```python
async with raysaga.connect() as sagas:
    handle = await sagas.submit(order_saga, order, key=order.order_id)
    outcome = await handle.result(timeout_s=30)
```

A submission is answered once the saga is on disk. Repeating it, from this
process or another, gives the same saga; with another body it is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from raysaga.actors.archive import Archive
from raysaga.actors.errors import OverloadedError, ResultTimeoutError
from raysaga.actors.gateway import Engine, EnginePlan, EngineSettings, Gateway, Submission
from raysaga.api.defaults import DATA_FOLDER, ORDER_PARTICIPANTS
from raysaga.api.order_setup import usual_services
from raysaga.api.outcome import Outcome
from raysaga.api.served import served_otherwise
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import SagaError
from raysaga.statemachines.ids import SagaId

if TYPE_CHECKING:
    from raysaga.api.traces.otel import SubmissionMarks


@runtime_checkable
class Request(Protocol):
    """What knows itself as plain data, such as an `Order`."""

    def to_request(self) -> dict[str, Any]:
        """Return plain data."""


class SagaHandle:
    """A saga, from any process on the cluster; can be pickled.

    Attributes:
        saga_id: The saga.
        is_new: Whether this submission made the saga. Of all that use a key one at most is told
            so; none, if the answer to the one that made it was lost, and it was sent again.
    """

    def __init__(self, saga_id: str, gateway: Gateway, submission: Submission | None) -> None:
        self.saga_id = SagaId(saga_id)
        self.is_new = submission is not None and submission.is_new
        self._gateway = gateway
        self._submission = submission

    async def result(self, timeout_s: float | None = None) -> Outcome:
        """Return how the saga ended, once that is on disk; or that it is parked, and why.

        Raises:
            ResultTimeoutError: If it has not ended in that time; it goes on.
            SagaNotFoundError: If there is none.
        """
        timeout_ms = None if timeout_s is None else int(timeout_s * 1_000)
        submission, self._submission = self._submission, None
        if submission is not None:
            data = await submission.ended(timeout_ms)
            if data is None:
                self._submission = submission
        else:
            data = await self._gateway.outcome(self.saga_id, timeout_ms)
        if data is None:
            raise ResultTimeoutError(self.saga_id, timeout_ms or 0)
        return Outcome.from_data(data)

    def __reduce__(self) -> tuple[Any, tuple[str, dict[str, Any]]]:
        plan = self._gateway.engine.plan.model_dump(mode="json")
        return _handle_elsewhere, (self.saga_id, plan)


def _handle_elsewhere(saga_id: str, plan: Mapping[str, Any]) -> SagaHandle:
    """Return a handle in a process that is on the same Ray cluster."""
    engine = Engine(EnginePlan.model_validate(plan), None, owns_ray=False)
    return SagaHandle(saga_id, Gateway(engine), None)


class Sagas:
    """An open connection to one engine; use it in one event loop."""

    def __init__(self, gateway: Gateway, marks: SubmissionMarks | None = None) -> None:
        """Make a client.

        Args:
            gateway: Its way to the engine.
            marks: Marks submissions in traces; None for none.
        """
        self.gateway = gateway
        self._marks = marks

    async def submit(
        self,
        definition: SagaDefinition,
        request: Mapping[str, Any] | Request,
        *,
        key: str,
        deadline_s: float | None = None,
        dedicated: bool = False,
    ) -> SagaHandle:
        """Begin a saga; it is on disk when this returns (see `Durability` for the exception).

        Args:
            definition: Its recipe.
            request: Its input: plain data, or something with `to_request`.
            key: Names it for ever: 1 to 100 of `A-Z a-z 0-9 . _ : -`.
            deadline_s: Time after which it turns back if it still can; None for the
                definition's.
            dedicated: Whether it gets a Ray actor of its own.

        Raises:
            ValidationError: If the key or the input is no such thing.
            IdempotencyConflictError: If the key is in use for another body.
            OverloadedError: If no more are admitted for now; try again later.
            StorageFullError: If the journal has no room for new sagas.
        """
        submitting = self.gateway.submit(
            definition,
            plain(request),
            key=key,
            deadline_ms=None if deadline_s is None else int(deadline_s * 1_000),
            dedicated=dedicated,
        )
        if self._marks is not None:
            submitting = self._marks.around(definition.name, key, submitting)
        submission = await submitting
        return SagaHandle(submission.saga_id, self.gateway, submission)

    async def submit_many(
        self,
        definition: SagaDefinition,
        requests: Iterable[tuple[str, Mapping[str, Any] | Request]],
        *,
        in_flight_max: int = 512,
        dedicated: bool = False,
    ) -> AsyncIterator[tuple[str, Outcome | SagaError]]:
        """Yield `(key, outcome)` for each `(key, request)` as they end, not in their order.

        Keeps at most `in_flight_max` sagas under way, waits as long as the engine asks it
        to when it is overloaded, and yields an error instead of an outcome for a request
        that was refused at the door.

        Args:
            definition: Their recipe.
            requests: Key and input of each; taken one by one, as there is room.
            in_flight_max: How many may be under way.
            dedicated: Whether each gets a Ray actor of its own.
        """
        waiting = iter(requests)
        under_way: set[asyncio.Task[tuple[str, Outcome | SagaError]]] = set()
        while True:
            while len(under_way) < in_flight_max:
                pair = next(waiting, None)
                if pair is None:
                    break
                under_way.add(asyncio.ensure_future(self._one(definition, *pair, dedicated)))
            if not under_way:
                return
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()

    async def _one(
        self,
        definition: SagaDefinition,
        key: str,
        request: Mapping[str, Any] | Request,
        dedicated: bool,
    ) -> tuple[str, Outcome | SagaError]:
        while True:
            try:
                handle = await self.submit(definition, request, key=key, dedicated=dedicated)
                return key, await handle.result()
            except OverloadedError as overloaded:
                await asyncio.sleep(overloaded.retry_after_ms / 1_000)
            except SagaError as error:
                return key, error

    def handle(self, saga_id: str) -> SagaHandle:
        """Return a handle to a saga that exists already."""
        return SagaHandle(saga_id, self.gateway, None)

    async def status(self, saga_id: str) -> dict[str, Any]:
        """Return where a saga stands, as far as it is decided; what callers are told is on disk.

        Returns:
            `saga_id`, `definition`, `definition_hash`, `phase`; `code`, `message` and `step` of
            the reason, empty if none; `results` by step; `remaining` as in `Outcome`;
            `accepted_at_ms`, `deadline_at_ms` and `due_at_ms` (its next timer), Unix time or
            None; `recoveries` without progress; and `steps`, a list with `name`, `kind`,
            `participant`, `status`, `attempts` and `undo_attempts` of each.

        Raises:
            SagaNotFoundError: If there is none.
        """
        status: dict[str, Any] = await self.gateway.ask(SagaId(saga_id), "status")
        return status

    async def history(self, saga_id: str, *, payloads: bool = False) -> list[dict[str, Any]]:
        """Return what has happened to a saga, oldest first: `{"event", "at_ms", …}` each.

        Args:
            saga_id: The saga.
            payloads: Whether input and results are told as well; they may hold names and
                addresses.

        Raises:
            SagaNotFoundError: If there is none.
            RecordCorruptError: If its records are not what was written.
        """
        rows: list[dict[str, Any]] = await self.gateway.ask(
            SagaId(saga_id), "history", payloads=payloads
        )
        return rows

    async def list(
        self,
        *,
        phases: Iterable[str] | None = None,
        reason: str | None = None,
        step: str | None = None,
        definition: str | None = None,
        accepted_before_ms: int | None = None,
        accepted_from_ms: int | None = None,
        limit: int = 100,
    ) -> list[dict[str, Any]]:
        """Return sagas that meet every condition, newest first, at most `limit` in all.

        Args:
            phases: Any of these; None for all.
            reason: Code of the reason why it was undone or parked.
            step: Name of the step that the reason is about.
            definition: Name of the definition.
            accepted_before_ms: Unix time.
            accepted_from_ms: Unix time.
            limit: Rows at most, over all shards.

        Returns:
            A row each: `saga_id`, `definition`, `phase`, `reason`, `step`, `accepted_at_ms`,
            `changed_at_ms`, `due_at_ms` (None if no timer runs) and `scope`.

        Raises:
            ValidationError: If a phase is none.
        """
        pages = await self.gateway.ask_all(
            "list",
            phases=None if phases is None else sorted(phases),
            reason=reason,
            step=step,
            definition=definition,
            accepted_before_ms=accepted_before_ms,
            accepted_from_ms=accepted_from_ms,
            limit=limit,
        )
        rows = [row for page in pages for row in page]
        rows.sort(key=lambda row: row["accepted_at_ms"], reverse=True)
        return rows[:limit]

    async def cancel(self, saga_id: str, *, by: str = "caller", note: str = "") -> None:
        """Have a saga undone; returns once its turning back is on disk.

        Raises:
            SagaNotFoundError: If there is none.
            CancelTooLateError: If it can no longer turn back.
            OperatorRefusedError: If it is parked; an operator can force it back.
            EngineUnavailableError: If the order may or may not have arrived.
        """
        await self.gateway.ask(SagaId(saga_id), "cancel", by=by, note=note)

    async def retry(self, saga_id: str, *, by: str, note: str = "") -> None:
        """Send a parked saga on, the way it faces.

        Raises:
            SagaNotFoundError: If there is none.
            OperatorRefusedError: If it is not parked.
            EngineUnavailableError: If the order may or may not have arrived.
        """
        await self.gateway.ask(SagaId(saga_id), "retry", by=by, note=note)

    async def skip(self, saga_id: str, *, by: str, note: str) -> None:
        """Let a parked saga go on without the step, or the undo, that holds it.

        Raises:
            ValidationError: If there is no note that says why.
            SagaNotFoundError: If there is none.
            OperatorRefusedError: If it is not parked, or nothing can be skipped.
            EngineUnavailableError: If the order may or may not have arrived.
        """
        await self.gateway.ask(SagaId(saga_id), "skip", by=by, note=note)

    async def force(self, saga_id: str, *, by: str, note: str) -> None:
        """Turn a saga back that has not passed the point of no return, parked or not.

        Raises:
            SagaNotFoundError: If there is none.
            CancelTooLateError: If it has.
            EngineUnavailableError: If the order may or may not have arrived.
        """
        await self.gateway.ask(SagaId(saga_id), "force", by=by, note=note)

    async def stop_engine(self) -> None:
        """End the engine for every caller; what is under way goes on when it is next opened.

        An engine that was started for this connection is ended with it anyway.
        """
        await self.gateway.stop_engine()

    async def stats(self) -> Sequence[dict[str, Any]]:
        """Return each shard's counts since its host started, and where it stands now.

        Returns:
            By shard: `accepted`, `repeated`, `finished`, `recovered`, `commits`, `queued`,
            `map_used` and `map_cap` in bytes, `phases` (how many sagas are in each), and
            `participants` (by name: calls sent, under way and queued, the circuit), and more.
        """
        return await self.gateway.ask_all("stats")

    async def participant_stats(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the counts of each participant that answers, by name."""
        return await self.gateway.engine.participant_stats()


class Connection:
    """What `connect` returns: opened by `async with`."""

    def __init__(self, *, traces: bool = False, **options: Any) -> None:
        self._traces = traces
        self._options = options
        self._gateway: Gateway | None = None

    async def __aenter__(self) -> Sagas:
        self._gateway = await Gateway.open(**self._options)
        try:
            await served_otherwise(self._gateway.engine, self._options["participants"])
        except BaseException:
            await self._gateway.close()
            raise
        if not self._traces:
            return Sagas(self._gateway)
        # Imported here: who does not trace need not have it, nor wait for it.
        from raysaga.api.traces.otel import SubmissionMarks

        with Archive.open(self._options["folder"]) as archive:
            return Sagas(self._gateway, SubmissionMarks(archive.folder.uuid))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._gateway is not None
        await self._gateway.close()


def connect(
    data: str | Path = DATA_FOLDER,
    *,
    address: str | None = None,
    shards: int | None = None,
    settings: EngineSettings | None = None,
    participants: Mapping[str, str] | None = None,
    services: Mapping[str, Any] | None = None,
    traces: bool = False,
) -> Connection:
    """Return a connection to the engine of a data folder, to be opened by `async with`.

    The engine is started if it does not run: on the Ray cluster that this process is
    connected to; else on the one at `address`, the local one that serves the folder already,
    the one that the environment's `RAY_ADDRESS` names, or a new local one, which ends with
    this connection. On a cluster that was joined the engine goes on without its callers.

    Args:
        data: The data folder; made if missing.
        address: Of a Ray cluster.
        shards: Number of shards of a new folder (default 1); must agree with an old one.
        settings: Bounds and defaults.
        participants: Name to `module:function`, see the guide on participants; they join
            those that the folder notes from earlier engines, and the four of the order saga.
        services: Settings of the services, by name; they come before those that the folder
            notes. None for those, or `ORDER_SERVICES`, or what a folder that has an inventory
            already is stocked with.
        traces: Whether each submission is marked in the trace that it is part of, by the
            OpenTelemetry provider of this process. Spans of sagas come from `raysaga traces`.

    Raises, when opened:
        DataFolderError: If the folder cannot be used.
        EngineUnavailableError: If Ray or the engine does not start.
        ParticipantNotServedError: If an engine runs already, without one of `participants`.
    """
    return Connection(
        traces=traces,
        folder=Path(data),
        address=address,
        shard_count=shards,
        settings=settings,
        participants=dict(participants or {}),
        services=dict(services or {}),
        usual_participants=ORDER_PARTICIPANTS,
        usual_services=usual_services(Path(data)) if services is None else {},
    )


def plain(request: Mapping[str, Any] | Request) -> Mapping[str, Any]:
    """Return a request as plain data."""
    # A mapping first: to ask for the protocol takes ten microseconds.
    if isinstance(request, Mapping) or not isinstance(request, Request):
        return request
    return request.to_request()
