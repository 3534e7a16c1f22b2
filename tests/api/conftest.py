"""Data folders with whole stories in them, written without a host, for what only reads them.

A story is driven by `decide` and `evolve`, and kept by a real journal, as a host does it; the
participants are a script that a test gives.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from raysaga.actors.gateway import fingerprint_of
from raysaga.actors.placement import shard_of, shard_scope
from raysaga.statemachines.calls import Outcome
from raysaga.statemachines.commands import CallStep
from raysaga.statemachines.decide import decide
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.events import Event
from raysaga.statemachines.ids import Epoch, SagaId, saga_id_of
from raysaga.statemachines.inputs import Input, StepAnswered, Submitted, TimeReached
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.saga import Saga, evolve
from raysaga.storage.codec import encode_record
from raysaga.storage.data_folder import DataFolder
from raysaga.storage.journal import CHAIN_START, Birth, Entry
from raysaga.storage.lmdb_journal import LmdbJournal

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    # What several tests share is imported by name.
    sys.path.insert(0, HERE)

BEGAN_AT_MS = 1_700_000_000_000
STEP_MS = 7

Script = Callable[[str, bool, int], tuple[Outcome, str, str]]
"""Step, whether it is the undo, attempt: outcome, code, message."""


def all_well(_step: str, _undo: bool, _attempt: int) -> tuple[Outcome, str, str]:
    """Every call succeeds."""
    return Outcome.SUCCEEDED, "", ""


def an_order(order_id: str, **changes: Any) -> dict[str, Any]:
    """Return a small valid order as plain data."""
    order = {
        "order_id": order_id,
        "customer_id": "c-7",
        "items": [{"item_id": "milk", "quantity": 2}],
        "payment": {"token": "tok_abc", "amount_minor": 378, "currency": "USD"},
    }
    return {**order, **changes}


class Keeper:
    """Writes stories into one data folder."""

    def __init__(self, path: Path, shard_count: int = 1) -> None:
        self.folder = DataFolder.open(path, shard_count=shard_count, create=True)
        self.path = self.folder.path
        self.now_ms = BEGAN_AT_MS
        self._journals: dict[int, tuple[LmdbJournal, Epoch]] = {}

    def tell(
        self,
        key: str,
        script: Script = all_well,
        *,
        definition: SagaDefinition = order_saga,
        saga_input: Mapping[str, Any] | None = None,
        calls_max: int = 1_000,
        then: Callable[[Saga], Input] | None = None,
    ) -> SagaId:
        """Drive one saga until it rests, or until `calls_max` calls; return its id."""
        given = an_order(key) if saga_input is None else saga_input
        saga = Saga(saga_id_of(definition.name, key), definition)
        shard = shard_of(saga.saga_id, self.folder.shard_count)
        journal, epoch = self._journal(shard)
        journal.put_definition(definition.content_hash, definition.to_data())
        scope = shard_scope(self.folder.uuid, shard)
        fingerprint = fingerprint_of(definition, given)
        inputs: deque[Input] = deque([Submitted(key, fingerprint, scope, given, None)])
        birth: Birth | None = Birth(
            scope, key, fingerprint, definition.name, definition.content_hash
        )
        seq, chain = 0, CHAIN_START
        calls: deque[CallStep] = deque()
        while calls_max >= 0:
            if not inputs:
                following = self._next(saga, calls, script, then)
                calls_max -= 1
                if following is None:
                    break
                inputs.append(following)
            self.now_ms += STEP_MS
            decision = decide(saga, inputs.popleft(), self.now_ms)
            for event in decision.events:
                evolve(saga, event)
            calls.extend(c for c in decision.commands if isinstance(c, CallStep))
            if decision.events:
                entry, chain = self._entry(saga, seq, epoch, chain, decision.events, birth)
                journal.commit(scope, epoch, [entry])
                seq, birth = seq + 1, None
            if then is not None and saga.is_parked:
                inputs.append(then(saga))
                then = None
        return saga.saga_id

    def _next(
        self,
        saga: Saga,
        calls: deque[CallStep],
        script: Script,
        then: Callable[[Saga], Input] | None,
    ) -> Input | None:
        if calls:
            call = calls.popleft()
            step = saga.definition.steps[call.step].name
            outcome, code, message = script(step, call.undo, call.attempt)
            result = {"of": step} if outcome is Outcome.SUCCEEDED else None
            return StepAnswered(
                call.step, call.undo, call.attempt, outcome, True, result, code, message, 0, 0.5
            )
        due_at_ms = saga.due_at_ms()
        if saga.is_terminal or saga.is_parked or due_at_ms is None or not saga.waiting:
            return None
        self.now_ms = max(self.now_ms, due_at_ms)
        return TimeReached()

    def _entry(
        self,
        saga: Saga,
        seq: int,
        epoch: Epoch,
        chain: bytes,
        events: tuple[Event, ...],
        birth: Birth | None,
    ) -> tuple[Entry, bytes]:
        record, chain = encode_record(saga.saga_id, seq, epoch, self.now_ms, chain, events)
        reason = saga.reason
        step = "" if reason is None or reason.step is None else reason.step
        return (
            Entry(
                saga.saga_id,
                seq,
                record,
                chain,
                saga.phase,
                self.now_ms,
                "" if reason is None else reason.code,
                saga.definition.steps[step].name if isinstance(step, int) else "",
                saga.due_at_ms(),
                birth,
            ),
            chain,
        )

    def _journal(self, shard: int) -> tuple[LmdbJournal, Epoch]:
        found = self._journals.get(shard)
        if found is None:
            journal = self.folder.open_journal(shard, reserve_ratio=0.0)
            scope = shard_scope(self.folder.uuid, shard)
            epoch = journal.grant_epoch(scope, "test", self.now_ms)
            found = self._journals[shard] = (journal, epoch)
        return found

    def prune(self, *saga_ids: SagaId) -> None:
        """Forget the records of sagas that have ended, as an engine does after some days."""
        for saga_id in saga_ids:
            journal, _ = self._journal(shard_of(saga_id, self.folder.shard_count))
            journal.mark_released([saga_id])
            assert journal.prune(self.now_ms + 1, 10) == 1

    def log(self, saga_id: str, event: str, at: str, **facts: Any) -> None:
        """Write a line as an engine's process would."""
        self.folder.log_path.mkdir(exist_ok=True)
        line = {"saga_id": saga_id, **facts, "event": event, "level": "info", "timestamp": at}
        with (self.folder.log_path / "shard-0.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Let go of the journals, so that others of this process can open them."""
        for journal, _ in self._journals.values():
            journal.close()
        self._journals.clear()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    """A new data folder with one shard."""
    kept = Keeper(tmp_path / "data")
    yield kept
    kept.close()


@pytest.fixture
def make_keeper() -> type[Keeper]:
    """The class of `keeper`, for other folders and other numbers of shards."""
    return Keeper


@pytest.fixture
def make_order() -> Callable[..., dict[str, Any]]:
    """What makes small valid orders: an id, and fields to change."""
    return an_order


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What runs a command in this process, on a terminal of 100 columns that nobody watches."""
    from raysaga.api.cli import app

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("RAYSAGA_DATA", raising=False)

    def run(*arguments: object, stdin: str | bytes | None = None) -> Any:
        return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)

    return run
