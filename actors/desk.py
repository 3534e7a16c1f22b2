"""Where callers come to: submit, watch, ask, cancel, and an operator's orders.

A request is `[id, operation, body]`; its answer `[id, "ok", body]` or
`[id, "error", [code, facts]]`, and for a watched saga, later, `[id, "ended", outcome]`.
Admission is bounded: past the bound a submission is answered `OVERLOADED` at
once, and nothing is queued.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from raysaga.actors.errors import (
    CancelTooLateError,
    IdempotencyConflictError,
    OperatorRefusedError,
    OverloadedError,
    SagaNotFoundError,
)
from raysaga.actors.host import SagaHost
from raysaga.actors.lane import Landing
from raysaga.actors.outcome import bare_outcome, outcome_of, status_of
from raysaga.actors.placement import saga_scope
from raysaga.actors.reconciler import Launcher
from raysaga.actors.recovery import Unreadable, load, read_events
from raysaga.actors.running import AT_REST, Running
from raysaga.actors.search import Search, saga_id_given
from raysaga.actors.story import history_rows
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import DefinitionError, SagaError, ValidationError
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    Input,
    RetryOrdered,
    SkipOrdered,
    Submitted,
)
from raysaga.statemachines.saga import Saga
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase
from raysaga.storage.codec import check_value
from raysaga.storage.errors import RecordCorruptError, StorageFailedError, StorageFullError
from raysaga.storage.journal import Head

DEDICATED_POLL_MS = 100
"""How often a shard looks for the end of a saga that has its own actor."""

ORDERS: Mapping[str, Callable[[str, str], Input]] = {
    "cancel": CancelRequested,
    "retry": RetryOrdered,
    "skip": SkipOrdered,
    "force": CompensationForced,
}
"""Operation to the input it becomes; each takes who gives it, and a note."""


class Caller:
    """Whom an answer goes to."""

    __slots__ = ("_landing", "_request_id", "_sender")

    def __init__(self, landing: Landing, sender: str, request_id: int) -> None:
        self._landing = landing
        self._sender = sender
        self._request_id = request_id

    def ok(self, body: Any) -> None:
        """Answer."""
        self._landing.push(self._sender, (self._request_id, "ok", body))

    def error(self, error: SagaError) -> None:
        """Answer with an error: its code, and the facts that its class is made from."""
        facts = list(error.args)
        self._landing.push(self._sender, (self._request_id, "error", (error.code, facts)))

    def saga_ended(self, saga: Saga) -> None:
        """Tell the end of a watched saga of this host."""
        self.ended(outcome_of(saga))

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """Tell the end of a watched saga; without its results if they are too large for it."""
        try:
            self._landing.push(self._sender, (self._request_id, "ended", outcome))
        except ValidationError:
            short = {**outcome, "results": {}}
            self._landing.push(self._sender, (self._request_id, "ended", short))


class Desk:
    """The front of one host."""

    def __init__(
        self, host: SagaHost, *, launcher: Launcher | None, stats: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._host = host
        self._launcher = launcher
        self._stats = stats
        self.landing = Landing(self._received, host.settings)
        # Submissions of sagas that are not on disk yet: who, whether he watches, whether
        # he asked for the same.
        self._births: dict[SagaId, list[tuple[Caller, bool, bool]]] = {}
        self._waiting: dict[SagaId, list[Caller]] = {}
        self._poll: asyncio.Task[None] | None = None
        self._searching = asyncio.Lock()
        self.accepted_count = 0
        self.repeated_count = 0
        self.overloaded_count = 0
        self.full_count = 0

    def _received(self, sender: str, messages: list[list[Any]]) -> None:
        for message in messages:
            if not (isinstance(message, list) and len(message) == 3):
                continue
            request_id, operation, body = message
            caller = Caller(self.landing, sender, request_id)
            try:
                self._serve(caller, operation, body)
            except StorageFailedError as error:
                self._host.stop_at_once(error)
                return
            except SagaError as error:
                caller.error(error)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                caller.error(ValidationError(f"{operation} cannot be read: {error!r}"))

    def _serve(self, caller: Caller, operation: str, body: Any) -> None:
        if operation == "submit":
            self._submit(caller, body)
        elif operation == "watch":
            self._watch(caller, saga_id_given(body["saga_id"]))
        elif operation in ORDERS:
            self._order(caller, operation, body)
        elif operation == "status":
            caller.ok(self.status(saga_id_given(body["saga_id"])))
        elif operation == "history":
            caller.ok(self.history(saga_id_given(body["saga_id"]), bool(body.get("payloads"))))
        elif operation == "list":
            self._list(caller, Search(self._host.journal, body))
        elif operation == "define":
            self._define(caller, body)
        elif operation == "stats":
            caller.ok(dict(self._stats()))
        else:
            raise ValidationError(f"there is no operation {operation!r}")

    # -- submissions ---------------------------------------------------------

    def _define(self, caller: Caller, body: Mapping[str, Any]) -> None:
        definition = SagaDefinition.from_data(body)
        self._host.definitions.add(definition)
        caller.ok(definition.content_hash)

    def _submit(self, caller: Caller, body: list[Any]) -> None:
        saga_id, definition_hash, key, fingerprint, saga_input, deadline_ms, dedicated, watch = body
        if saga_id_given(saga_id).partition(":")[2] != key or not isinstance(fingerprint, str):
            raise ValidationError("it does not name the saga", "key")
        running = self._host.sagas.get(saga_id)
        if running is not None:
            self._submitted_again(caller, running, fingerprint, watch)
            return
        known = self._host.journal.key_record(saga_id)
        if known is not None:
            if known.fingerprint != fingerprint:
                raise IdempotencyConflictError(saga_id)
            self.repeated_count += 1
            caller.ok("already")
            if watch:
                self._watch(caller, saga_id)
            return
        self._admit()
        # What a record cannot hold is refused before the saga exists.
        if not isinstance(saga_input, dict):
            raise ValidationError("must be a mapping", "input")
        check_value(saga_input)
        definition = self._host.definitions.get(definition_hash)
        if definition is None or definition.name != saga_id.partition(":")[0]:
            raise DefinitionError(saga_id, None, "this journal does not know it yet")
        now_ms = self._host.clock.now_ms()
        if deadline_ms is None:
            deadline_ms = definition.deadline_ms
        elif type(deadline_ms) is not int or deadline_ms < 0:
            raise ValidationError("must be a whole number of milliseconds", "deadline_ms")
        given = Submitted(
            key,
            fingerprint,
            saga_scope(self._host.journal.identity.uuid, saga_id)
            if dedicated
            else self._host.scope,
            saga_input,
            None if deadline_ms is None else now_ms + deadline_ms,
        )
        self._begin(caller, saga_id, definition, given, watch)

    def _admit(self) -> None:
        """Refuse what would have to wait without a bound.

        Raises:
            OverloadedError: With the time after which to try again.
        """
        host = self._host
        assert host.committer is not None
        if (
            len(host.sagas) >= host.settings.sagas_in_flight_max
            or host.committer.queued_count >= host.settings.inputs_queued_max
        ):
            self.overloaded_count += 1
            raise OverloadedError(host.settings.overloaded_retry_after_ms)

    def _begin(
        self,
        caller: Caller,
        saga_id: SagaId,
        definition: SagaDefinition,
        given: Submitted,
        watch: bool,
    ) -> None:
        self._births[saga_id] = [(caller, watch, True)]
        dedicated = given.scope != self._host.scope

        def accepted(_answer: Answer) -> None:
            self.accepted_count += 1
            told = "accepted"
            for waiting, watches, is_same in self._births.pop(saga_id):
                if not is_same:
                    waiting.error(IdempotencyConflictError(saga_id))
                    continue
                waiting.ok(told)
                # Who asked for the same meanwhile did not make it.
                told = "already"
                if watches:
                    self._watch(waiting, saga_id)
            if dedicated and self._launcher is not None:
                self._launcher.ensure(saga_id)

        def refused(full: StorageFullError) -> None:
            self.full_count += 1
            for waiting, _, _ in self._births.pop(saga_id):
                waiting.error(full)

        self._host.submit(
            saga_id=saga_id,
            definition=definition,
            given=given,
            accepted=accepted,
            refused=refused,
        )

    def _submitted_again(
        self, caller: Caller, running: Running, fingerprint: str, watch: bool
    ) -> None:
        saga = running.saga
        is_same = saga.fingerprint == fingerprint
        births = self._births.get(saga.saga_id)
        self.repeated_count += is_same
        if births is not None:
            # Not durable yet: this caller must not be answered before the first one.
            births.append((caller, watch, is_same))
            return
        if not is_same:
            raise IdempotencyConflictError(saga.saga_id)
        caller.ok("already")
        if watch:
            self._watch(caller, saga.saga_id)

    # -- waiting -------------------------------------------------------------

    def _watch(self, caller: Caller, saga_id: SagaId) -> None:
        """Tell `caller` when the saga ends or is parked; at once if that is on disk."""
        if saga_id in self._births:
            raise SagaNotFoundError(saga_id)
        running = self._host.sagas.get(saga_id)
        head = None
        if running is not None:
            head = self._head_of(running)
            if head is None:
                running.watch(caller.saga_ended)
                return
        head = head or self._host.journal.head(saga_id)
        if head is None:
            known = self._host.journal.key_record(saga_id)
            if known is None:
                raise SagaNotFoundError(saga_id)
            caller.ended(bare_outcome(known))
        elif head.phase in AT_REST:
            caller.ended(self._outcome(head))
        else:
            self._waiting.setdefault(saga_id, []).append(caller)
            if self._poll is None:
                self._poll = asyncio.get_running_loop().create_task(self._poll_for_ends())

    def _head_of(self, running: Running) -> Head | None:
        """Return the index row of a saga in memory if it rests, and the disk says so as well."""
        if running.barrier or running.saga.phase not in AT_REST:
            return None
        head = self._host.journal.head(running.saga.saga_id)
        return head if head is not None and head.phase is running.saga.phase else None

    def adopted(self, running: Running) -> None:
        """Attach who waits for a saga that has just been taken up from the journal."""
        for caller in self._waiting.pop(running.saga.saga_id, ()):
            running.watch(caller.saga_ended)

    async def _poll_for_ends(self) -> None:
        """Look after sagas that somebody waits for and this host does not drive (yet)."""
        while self._waiting:
            await self._host.clock.sleep_ms(DEDICATED_POLL_MS)
            for saga_id in list(self._waiting):
                self.look_again(saga_id)
        self._poll = None

    def look_again(self, saga_id: SagaId) -> None:
        """Answer who waits for a saga that another host drove, if that has ended or parked it."""
        if saga_id not in self._waiting:
            return
        head = self._host.journal.head(saga_id)
        if saga_id in self._host.sagas or head is None or head.phase in AT_REST:
            for caller in self._waiting.pop(saga_id):
                try:
                    self._watch(caller, saga_id)
                except SagaError as error:
                    caller.error(error)

    # -- orders --------------------------------------------------------------

    def _order(self, caller: Caller, operation: str, body: Mapping[str, Any]) -> None:
        saga_id = saga_id_given(body["saga_id"])
        by, note = str(body["by"]), str(body.get("note", ""))
        if operation == "skip" and not note:
            raise ValidationError("a skip needs a note that says why", "note")
        if saga_id in self._births:
            # Nobody was told that it exists; were its birth dropped, nobody would answer.
            raise SagaNotFoundError(saga_id)
        running = self._host.sagas.get(saga_id)
        if running is None:
            head = self._host.journal.head(saga_id)
            if head is None:
                self._answer_order(caller, saga_id, self._over(saga_id, operation))
                return
            if head.scope != self._host.scope and head.phase not in TERMINAL:
                self._pass_on(caller, saga_id, operation, body)
                return
            running = self._taken_up(head)
        if running is None:
            self._answer_order(caller, saga_id, self._over(saga_id, operation))
            return
        given = ORDERS[operation](by, note)
        self._host.log.info("order_given", saga_id=saga_id, order=operation, by=by, note=note)
        self._host.give(running, given, lambda answer: self._answer_order(caller, saga_id, answer))

    def _taken_up(self, head: Head) -> Running | None:
        """Activate a parked saga for an operator; None if it is over.

        Raises:
            OperatorRefusedError: If its history cannot be read.
        """
        if head.phase in TERMINAL:
            return None
        running = self._host.activate(head)
        if running is None:
            raise OperatorRefusedError(head.saga_id, head.reason or "JOURNAL_CORRUPT")
        if head.phase not in PARKED or self._host.journal.restored_at_ms() is not None:
            self._host.restart(running)
        return running

    def _over(self, saga_id: SagaId, operation: str) -> Answer:
        phase = self._phase(saga_id)
        if operation in ("retry", "skip"):
            return Answer.NOT_PARKED
        return Answer.ALREADY if phase is Phase.COMPENSATED else Answer.CANCEL_TOO_LATE

    def _answer_order(self, caller: Caller, saga_id: SagaId, answer: Answer) -> None:
        if answer in (Answer.ACCEPTED, Answer.ALREADY):
            caller.ok(answer.value)
        elif answer is Answer.CANCEL_TOO_LATE:
            caller.error(CancelTooLateError(saga_id, self._phase(saga_id).value))
        else:
            caller.error(OperatorRefusedError(saga_id, answer.value))

    def _pass_on(
        self, caller: Caller, saga_id: SagaId, operation: str, body: Mapping[str, Any]
    ) -> None:
        if self._launcher is None:
            raise SagaNotFoundError(saga_id)
        launcher = self._launcher

        async def pass_on() -> None:
            try:
                caller.ok(await launcher.tell(saga_id, operation, dict(body)))
            except SagaError as error:
                caller.error(error)

        task = asyncio.get_running_loop().create_task(pass_on())
        task.add_done_callback(lambda done: done.exception())

    # -- questions -----------------------------------------------------------

    def _phase(self, saga_id: SagaId) -> Phase:
        """Return where a saga stands, pruned or not.

        Raises:
            SagaNotFoundError: If there never was one.
        """
        running = self._host.sagas.get(saga_id)
        if running is not None:
            return running.saga.phase
        known = self._host.journal.key_record(saga_id)
        if known is None:
            raise SagaNotFoundError(saga_id)
        return known.phase

    def _head(self, saga_id: SagaId) -> Head:
        head = self._host.journal.head(saga_id)
        if head is None:
            raise SagaNotFoundError(saga_id)
        return head

    def _load(self, saga_id: SagaId) -> Saga:
        """Read a saga, again if a commit came between its index row and its records."""
        head = self._head(saga_id)
        while True:
            loaded = load(self._host.journal, self._host.definitions, head, taken_over=True)
            if not isinstance(loaded, Unreadable):
                return loaded
            before, head = head, self._head(saga_id)
            if head == before:
                raise OperatorRefusedError(saga_id, loaded.code)

    def _outcome(self, head: Head) -> dict[str, Any]:
        loaded = load(self._host.journal, self._host.definitions, head, taken_over=True)
        if isinstance(loaded, Unreadable):
            return bare_outcome(head) | {"message": loaded.detail}
        return outcome_of(loaded)

    def status(self, saga_id: SagaId) -> dict[str, Any]:
        """Return where a saga stands, step by step.

        Raises:
            SagaNotFoundError: If there is none.
        """
        running = self._host.sagas.get(saga_id)
        if running is not None and not running.barrier:
            # An end is told only if it is on disk, or it could still become another one.
            is_end = running.saga.phase in AT_REST
            if not is_end or self._head_of(running) is not None:
                return status_of(running.saga)
        return status_of(self._load(saga_id))

    def history(self, saga_id: SagaId, with_payloads: bool) -> list[dict[str, Any]]:
        """Return what has happened to a saga, oldest first.

        Raises:
            SagaNotFoundError: If there is none.
            RecordCorruptError: If its records are not what was written.
        """
        head = self._head(saga_id)
        definition = self._host.definitions.get(head.definition_hash)
        if definition is None:
            raise OperatorRefusedError(saga_id, "UNKNOWN_DEFINITION")
        while True:
            try:
                events = read_events(self._host.journal, head)
                break
            except RecordCorruptError:
                # A commit may have come between the index row and the records.
                before, head = head, self._head(saga_id)
                if head == before:
                    raise
        running = self._host.sagas.get(saga_id)
        if running is not None and not running.barrier and running.seq == head.seq + 1:
            events = events + running.held
        return history_rows(definition, events, with_payloads=with_payloads)

    def _list(self, caller: Caller, search: Search) -> None:
        """Answer with a page of sagas; a long search goes on in turns, one at a time of all."""
        if search.look():
            caller.ok(search.rows())
            return
        task = asyncio.get_running_loop().create_task(self._look_on(caller, search))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _look_on(self, caller: Caller, search: Search) -> None:
        async with self._searching:
            try:
                is_done = False
                while not is_done:
                    await self._host.clock.sleep_ms(0)
                    is_done = search.look()
                caller.ok(search.rows())
            except StorageFailedError as error:
                self._host.stop_at_once(error)
            except SagaError as error:
                caller.error(error)
