"""Drives any number of sagas: input, decide, commit, act; plain asyncio, no Ray.

One saga takes one input at a time. What a barrier holds back leaves only after the commit
has returned; meanwhile further inputs to the saga wait in its mailbox. The same host runs
in a Ray actor, in a test on a memory journal, and on a virtual clock.

Refuses to start under `python -O`: the assertions guard what is written.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from raysaga.actors.call_stamp import CallStamp
from raysaga.actors.clock import Clock, JumpGuard
from raysaga.actors.committer import GroupCommitter, RunBlocking
from raysaga.actors.dispatcher import Dispatcher
from raysaga.actors.measures import Measures
from raysaga.actors.questions import ask_ledgers
from raysaga.actors.recovery import Definitions, Unreadable, load, park_unreadable
from raysaga.actors.running import ENDS, Awaited, Ended, Running, Told
from raysaga.actors.settings import EngineSettings
from raysaga.actors.story import log_events
from raysaga.actors.timers import Timers
from raysaga.actors.write_behind import WriteBehind
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    Code,
    StepCall,
    StepReply,
)
from raysaga.statemachines.commands import Answer, AskLedgers, CallStep, Command
from raysaga.statemachines.decide import decide
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.statemachines.inputs import (
    HostRestarted,
    Input,
    StepAnswered,
    Submitted,
    TimeReached,
)
from raysaga.statemachines.saga import Saga, evolve
from raysaga.statemachines.tables import Phase
from raysaga.storage.errors import StaleEpochError, StorageFullError
from raysaga.storage.journal import Head, Journal

Connect = Callable[[str], Callable[[bytes], Awaitable[bytes]] | None]
"""Participant's name to what carries one exchange to it; None if it is not served here."""


class SagaHost:
    """Owns one scope of one journal, and moves the sagas in it."""

    def __init__(
        self,
        *,
        journal: Journal,
        scope: Scope,
        owner: str,
        connect: Connect,
        clock: Clock,
        settings: EngineSettings,
        chance: random.Random,
        run_blocking: RunBlocking,
        fatal: Callable[[BaseException], None],
    ) -> None:
        """Make a host; it owns nothing until `start`.

        Args:
            journal: Where it remembers.
            scope: What it will own.
            owner: Who it is, for people: host name and process id.
            connect: Its way to participants.
            clock: Time.
            settings: Bounds.
            chance: Source of jitter.
            run_blocking: Runs a commit beside the event loop.
            fatal: Called when it must stop: it was fenced out, or a commit's end is unknown.
        """
        if not __debug__:
            raise RuntimeError("raysaga does not run under python -O: assertions guard its journal")
        self.journal = journal
        self.scope = scope
        self.owner = owner
        self.clock = clock
        self.settings = settings
        self.definitions = Definitions(journal)
        self.epoch = Epoch(0)
        self.sagas: dict[SagaId, Running] = {}
        self.dispatchers: dict[str, Dispatcher] = {}
        self.log = structlog.get_logger().bind(scope=str(scope))
        self._connect = connect
        self._chance = chance
        self._run_blocking = run_blocking
        self._fatal = fatal
        self._timers = Timers(clock, self._wake)
        self.jumps = JumpGuard(
            clock, jump_ms=settings.clock_jump_ms, grace_ms=settings.clock_jump_grace_ms
        )
        self._behind = WriteBehind(
            clock=clock, wait_ms=settings.lazy_flush_ms, write=self._write_behind
        )
        self._stopped = False
        self.committer: GroupCommitter | None = None
        self.stamp: CallStamp | None = None
        self._unreadable: set[SagaId] = set()
        self.finished_count = 0
        self.measures = Measures()
        self.ended: Ended | None = None

    # -- life ----------------------------------------------------------------

    async def start(self) -> None:
        """Become the owner of the scope, durably, before anything else is done.

        Raises:
            StorageFullError: If the grant cannot be written.
        """
        now_ms = self.clock.now_ms()
        self.epoch = await self._run_blocking(
            lambda: self.journal.grant_epoch(self.scope, self.owner, now_ms)
        )
        self.log = self.log.bind(epoch=self.epoch)
        self.stamp = CallStamp(self.journal, self.scope, self.epoch, self.clock, self.settings)
        self.committer = GroupCommitter(
            journal=self.journal,
            scope=self.scope,
            epoch=self.epoch,
            clock=self.clock,
            run_blocking=self._run_blocking,
            fatal=self.stop_at_once,
        )
        self.committer.start()
        self.log.info("host_started", owner=self.owner)

    async def stop(self) -> None:
        """Let go: flush what is decided, then send and write nothing more."""
        self.flush()
        if self.committer is not None and not self._stopped:
            wait_s = self.settings.shutdown_wait_ms / 1_000
            try:
                await asyncio.wait_for(self.committer.flushed(), wait_s)
            except TimeoutError:
                self.log.warning("host_stopped_before_flush")
        await self._halt()

    async def _halt(self) -> None:
        self._stopped = True
        self._timers.clear()
        self._behind.stop()
        for dispatcher in self.dispatchers.values():
            await dispatcher.close()
        if self.committer is not None:
            await self.committer.stop()

    def stop_at_once(self, error: BaseException) -> None:
        """Answer nobody any more: what is not known to be on disk never happened."""
        if not self._stopped:
            self._stopped = True
            self.log.critical("host_must_stop", error=str(error), kind=type(error).__name__)
            self._fatal(error)

    # -- inputs --------------------------------------------------------------

    def submit(
        self,
        *,
        saga_id: SagaId,
        definition: SagaDefinition,
        given: Submitted,
        accepted: Told,
        refused: Callable[[StorageFullError], None],
    ) -> None:
        """Begin a saga that is not known yet.

        Exactly one of `accepted` and `refused` is called, once the journal has taken it or not.
        """
        assert saga_id not in self.sagas
        running = self.sagas[saga_id] = Running.newborn(saga_id, definition, given)
        self._take(running, given, accepted, refused)

    def give(self, running: Running, given: Input, told: Told | None = None) -> None:
        """Put an input into a saga's mailbox; it is taken at once if nothing holds it."""
        # One that was let go is back, with its timers; but never beside another of it.
        assert self.sagas.setdefault(running.saga.saga_id, running) is running
        if running.barrier:
            running.keep(given, told)
        else:
            self._take(running, given, told)

    def _take(
        self,
        running: Running,
        given: Input,
        told: Told | None,
        refused: Callable[[StorageFullError], None] | None = None,
    ) -> None:
        """Decide; then commit and act, or act and write behind."""
        if self._stopped:
            return
        try:
            self._move(running, given, told, refused)
        except Exception as error:
            if isinstance(given, HostRestarted) and not running.writes:
                # It would break the next host as early, before that could count anything.
                self._forget(running)
                head = self.journal.head(running.saga.saga_id)
                assert head is not None
                what = f"{type(error).__name__} when it was taken up: {error}"
                self._park_unreadable(head, Unreadable("POISON", what))
                return
            # A bug of ours has left it between two states; what is not on disk never happened.
            self.stop_at_once(error)
            raise

    def _move(
        self,
        running: Running,
        given: Input,
        told: Told | None,
        refused: Callable[[StorageFullError], None] | None,
    ) -> None:
        saga = running.saga
        running.looks = 0
        decision = decide(saga, given, self.clock.now_ms())
        events, commands, answer = decision.events, decision.commands, decision.answer
        for event in events:
            evolve(saga, event)
        if events:
            log_events(self.log, saga, events)
            self.measures.note(saga, events)
            running.held.extend(events)
        if events or isinstance(given, TimeReached):
            due_at_ms = saga.due_at_ms()
            if due_at_ms is not None:
                self._timers.set(saga.saga_id, due_at_ms)
        ends = bool(events) and type(events[-1]) in ENDS
        if decision.durable_first or (running.birth is not None and self._must_wait(saga)):
            running.barrier = True
            self._write(
                running, lambda: self._durable(running, commands, told, answer, ends), refused
            )
            return
        if ends:
            # The definition chose not to wait; people are told when it is on disk all the same.
            self._write(running, lambda: self._written(running, ends=True))
        elif events and len(running.held) == len(events):
            self._behind.put(running)
        self._act(running, commands)
        if told is not None:
            if answer is not None:
                told(answer)
            self._let_go(running)

    def _must_wait(self, saga: Saga) -> bool:
        """Return whether a birth is waited for though its definition does not ask for that.

        The first owner of another scope must find it; and on a full journal it may be void.
        """
        assert self.committer is not None
        return saga.scope != self.scope or self.committer.is_full

    def _durable(
        self,
        running: Running,
        commands: tuple[Command, ...],
        told: Told | None,
        answer: Answer | None,
        ends: bool,
    ) -> None:
        """The barrier is on disk: act, tell, and take what has arrived meanwhile."""
        if self._stopped:
            return
        running.writes -= 1
        running.barrier = False
        if running.saga.scope != self.scope:
            # Born here, but the first owner of its own scope drives it.
            self._forget(running)
            running.mailbox = None
            commands = ()
        if told is not None and answer is not None:
            told(answer)
        self._act(running, commands)
        if ends:
            self._ended(running)
        while running.mailbox and not running.barrier:
            given, told_next = running.mailbox.popleft()
            self._take(running, given, told_next)
        self._let_go(running)

    def _ended(self, running: Running) -> None:
        """Tell whoever waits that a saga is over or parked, now that it is on disk."""
        saga = running.saga
        watchers, running.watchers = running.watchers, None
        for watcher in watchers or ():
            watcher(saga)
        if self.ended is not None:
            self.ended(saga)
        if saga.is_terminal:
            self.finished_count += 1

    def _let_go(self, running: Running) -> None:
        """Let a saga that rests go from memory."""
        if running.is_at_rest:
            self._forget(running)

    def _forget(self, running: Running) -> None:
        saga_id = running.saga.saga_id
        if self.sagas.get(saga_id) is running:
            del self.sagas[saga_id]
            self._timers.forget(saga_id)

    # -- commit --------------------------------------------------------------

    def _write(
        self,
        running: Running,
        done: Callable[[], None],
        refused: Callable[[StorageFullError], None] | None = None,
    ) -> None:
        """Turn the held events into a record and queue it."""
        assert self.committer is not None
        entry = running.take_entry(self.epoch, self.clock.now_ms())
        dropped = None
        if entry.birth is not None and refused is not None and running.barrier:
            # One that was not waited for is known to its caller, and its calls have left.
            dropped = self._dropper(running, refused)
        running.writes += 1
        self.committer.append(entry, done, dropped)

    def _dropper(
        self, running: Running, refused: Callable[[StorageFullError], None] | None
    ) -> Callable[[StorageFullError], None]:
        def drop(full: StorageFullError) -> None:
            """The birth is void: the saga never was."""
            self._forget(running)
            running.mailbox = None
            self.log.warning("saga_not_accepted", saga_id=running.saga.saga_id, code=full.code)
            if refused is not None:
                refused(full)

        return drop

    def flush(self) -> None:
        """Write now what is written behind."""
        self._behind.flush()

    def _write_behind(self, running: Running) -> None:
        if not self._stopped:
            self._write(running, lambda: self._written(running))

    def _written(self, running: Running, *, ends: bool = False) -> None:
        """What was written behind is on disk."""
        running.writes -= 1
        if ends and not self._stopped:
            self._ended(running)
        self._let_go(running)

    # -- act -----------------------------------------------------------------

    def _act(self, running: Running, commands: tuple[Command, ...]) -> None:
        for command in commands:
            if isinstance(command, CallStep):
                self._call(running, command)
            else:
                assert isinstance(command, AskLedgers)
                ask_ledgers(self, running)

    def _call(self, running: Running, command: CallStep) -> None:
        i = command.step
        step = running.saga.definition.steps[i]
        verb = COMPENSATION if command.undo else ACTION
        operation = step.compensation if command.undo else step.action
        assert operation is not None
        call = self.make_call(running.saga, i, verb, operation, command.attempt)
        if call is None:
            return

        running.calls += 1
        dispatcher = self.dispatcher(step.participant)
        dispatcher.send(call, Awaited(self, running, i, command.undo))
        if dispatcher.is_full:
            # It waits for its turn, which is known without looking twice.
            running.saga.fold()

    def make_call(
        self, saga: Saga, i: int, verb: int, operation: str, attempt: int
    ) -> StepCall | None:
        """Return a call to step `i` with a fresh proof of ownership; None if that was lost."""
        assert self.committer is not None and self.stamp is not None
        try:
            self.stamp.prove(self.committer.checked_at_ms)
        except StaleEpochError as error:
            self.stop_at_once(error)
            return None
        request = {} if verb == QUESTION else saga.request_of(i)
        step = saga.definition.steps[i]
        return self.stamp.call(verb, saga.saga_id, step, operation, request, attempt)

    def dispatcher(self, participant: str) -> Dispatcher:
        """Return the way to a participant, made when first needed."""
        found = self.dispatchers.get(participant)
        if found is None:
            assert self.stamp is not None
            found = self.dispatchers[participant] = Dispatcher(
                participant=participant,
                sender=f"{self.scope}@{self.epoch}",
                exchange=self._connect(participant),
                defect=self.stop_at_once,
                renew=self.stamp.renewed,
                clock=self.clock,
                settings=self.settings,
                under_way=lambda: len(self.sagas),
            )
        return found

    def answered(self, running: Running, step: int, undo: bool, reply: StepReply) -> None:
        """Take the one answer to a call."""
        running.calls -= 1
        if reply.code == Code.FENCED:
            self.fenced()
            return
        given = StepAnswered(
            step,
            undo,
            reply.attempt,
            reply.outcome,
            reply.stored,
            reply.result,
            reply.code,
            reply.message,
            reply.retry_after_ms,
            self._chance.random(),
        )
        self.give(running, given)
        self._let_go(running)

    def fenced(self) -> None:
        """Stop, since a participant has heard a newer owner of our scope."""
        self.stop_at_once(StaleEpochError(self.scope, self.epoch, self.epoch + 1))

    def _wake(self, saga_id: SagaId) -> None:
        running = self.sagas.get(saga_id)
        if running is None:
            return
        grace_ms = self.jumps.grace_left_ms()
        if grace_ms and running.saga.deadline_at_ms is not None:
            self._timers.set(saga_id, self.clock.now_ms() + grace_ms)
            return
        self.give(running, TimeReached())

    # -- recovery ------------------------------------------------------------

    def activate(self, head: Head, *, taken_over: bool = True) -> Running | None:
        """Take a saga up from the journal; None if it cannot be read, and is parked for that."""
        assert head.saga_id not in self.sagas
        loaded = load(self.journal, self.definitions, head, taken_over=taken_over)
        if isinstance(loaded, Unreadable):
            self._park_unreadable(head, loaded)
            return None
        running = Running(loaded, head.seq + 1, head.chain)
        self.sagas[head.saga_id] = running
        return running

    def begin(self, running: Running) -> None:
        """Send the first calls of a saga that another process has accepted for this one."""
        if self.journal.restored_at_ms() is not None:
            # Whoever drove it before the restore has left no trace here.
            self.restart(running)
            return
        due_at_ms = running.saga.due_at_ms()
        if due_at_ms is not None:
            self._timers.set(running.saga.saga_id, due_at_ms)
        self._act(running, running.first_calls())

    def restart(self, running: Running) -> None:
        """Send a saga on that an earlier owner was driving."""
        restored = self.journal.restored_at_ms() is not None
        self.give(running, HostRestarted(self.epoch, restored, self.settings.recoveries_max))

    def _park_unreadable(self, head: Head, why: Unreadable) -> None:
        assert self.committer is not None
        is_under_way = head.phase in (Phase.RUNNING, Phase.FORWARD_ONLY, Phase.COMPENSATING)
        if not is_under_way or head.saga_id in self._unreadable:
            # Parked already, or about to be: a second record would not follow the first.
            return
        self._unreadable.add(head.saga_id)
        self.log.error("saga_unreadable", saga_id=head.saga_id, code=why.code, detail=why.detail)
        entry = park_unreadable(head, self.epoch, self.clock.now_ms(), why)
        self.committer.append(entry)
