"""A participant's server: when it answers, whom it lets wait, what it turns away."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from raysaga.actors.participant import Effects, TryLater, View
from raysaga.actors.participant_server import ParticipantLimits
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    LedgerStatus,
    Outcome,
    StepCall,
    StepReply,
    reply_to,
)
from raysaga.storage.errors import StaleEpochError, StorageFailedError
from raysaga.storage.ledger import Ledger
from raysaga.storage.ledger_batch import Handlers

from .participant_desk import NOW_MS, SETTINGS, TABLE, Desk, Shop, make_call


class Gate:
    """A guard that holds calls until it is opened, and tells who went in and out."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.entered: list[str] = []
        self.left: list[str] = []
        self.most_inside = 0

    @property
    def inside(self) -> int:
        return len(self.entered) - len(self.left)

    @asynccontextmanager
    async def __call__(self, call: StepCall, view: View) -> AsyncIterator[Any]:
        self.entered.append(call.saga_id)
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.opened.wait()
            yield len(self.entered)
        finally:
            self.left.append(call.saga_id)


class Trouble:
    """A behaviour that does to each saga what a test says."""

    def __init__(self, **moods: str) -> None:
        self.moods = {f"order:{name}": mood for name, mood in moods.items()}
        self.hung = 0

    async def before(self, call: StepCall) -> StepReply | None:
        match self.moods.get(call.saga_id):
            case "hangs" if call.verb == ACTION:
                self.hung += 1
                await asyncio.Event().wait()
            case "answers":
                return reply_to(call, Outcome.UNKNOWN, code="MADE_UP")
            case "breaks":
                raise ZeroDivisionError
        return None

    async def after(self, call: StepCall, reply: StepReply) -> StepReply | None:
        match self.moods.get(call.saga_id):
            case "loses" if call.attempt == 1:
                return None
            case "hangs after":
                self.hung += 1
                await asyncio.Event().wait()
        return reply


# -- batches -------------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
async def test_an_answer_comes_after_its_effect_is_durable(tmp_path: Path, inline: bool) -> None:
    async with Desk(tmp_path / "shop", Shop(), inline=inline) as desk:
        seen = []
        desk.on_reply = lambda reply: seen.append((desk.row() is not None, desk.effects("done")))
        desk.send(make_call())
        assert desk.replies == [], "nothing is answered before deliver returns"
        await desk.heard(1)
        assert seen == [(True, 1)]
        assert desk.replies[0].stored


@pytest.mark.parametrize("inline", [False, True], ids=["thread", "inline"])
async def test_what_arrives_together_is_committed_together(tmp_path: Path, inline: bool) -> None:
    async with Desk(tmp_path / "shop", Shop(), inline=inline) as desk:
        calls = [make_call(saga=f"order:{i}", call_id=i) for i in range(1_000)]
        desk.send(*calls)
        await desk.heard(1_000)
        assert [reply.call_id for reply in desk.replies] == list(range(1_000))
        assert desk.server.stats()["batches"] == 4, "1000 calls in batches of 256"
        assert desk.server.stats()["unanswered"] == 0


async def test_calls_of_one_key_are_answered_in_order(tmp_path: Path) -> None:
    async with Desk(tmp_path / "shop", Shop()) as desk:
        desk.send(make_call(), make_call(attempt=2), make_call(COMPENSATION), make_call(attempt=3))
        await desk.heard(4)
        assert [reply.duplicate for reply in desk.replies] == [False, True, False, True]
        assert desk.replies[3].code == "CANCELLED_BEFORE_START"
        assert (desk.effects("done"), desk.effects("undone")) == (1, 1)


async def test_the_end_of_a_saga_is_settled_and_its_row_pruned(tmp_path: Path) -> None:
    async with Desk(tmp_path / "shop", Shop()) as desk:
        await desk.ask(make_call(), make_call(RELEASE))
        assert desk.effects("completed") == 1
        desk.clock.wall_ms += 120_000
        assert await desk.server.prune(retention_ms=60_000) == 1
        assert await desk.server.prune_effects(retention_ms=60_000) == 1
        assert desk.row() is None
        assert list(desk.ledger.effects()) == []


# -- guards --------------------------------------------------------------------


async def test_a_guard_is_held_until_the_answer_is_durable(tmp_path: Path) -> None:
    story: list[str] = []

    @asynccontextmanager
    async def guard(call: StepCall, view: View) -> AsyncIterator[str]:
        story.append("entered")
        yield "from the guard"
        assert view.get(TABLE, "done/order:1/reserve") == 1
        story.append("left")

    shop = Shop(guard)
    shop.during = lambda effects, call, context: story.append(f"applied {context}")
    async with Desk(tmp_path / "shop", shop) as desk:
        desk.on_reply = lambda reply: story.append("answered")
        (reply,) = await desk.ask(make_call())
        assert story == ["entered", "applied from the guard", "left", "answered"]
        assert reply.result == {"count": 1, "context": "from the guard"}


async def test_a_guard_is_not_entered_where_nothing_is_to_be_done(tmp_path: Path) -> None:
    gate = Gate()
    gate.opened.set()
    async with Desk(tmp_path / "shop", Shop(gate)) as desk:
        await desk.ask(make_call(COMPENSATION, saga="order:2"), make_call())
        assert gate.entered == ["order:1"], "a tombstone needs no lock"
        await desk.ask(make_call(attempt=2), make_call(QUESTION), make_call(saga="order:2"))
        assert gate.entered == ["order:1"], "a stored answer needs no lock"
        await desk.ask(make_call(COMPENSATION))
        await desk.ask(make_call(COMPENSATION, attempt=2))
        assert gate.entered == ["order:1", "order:1"]


async def test_an_optimistic_conflict_is_tried_again_with_a_fresh_view(tmp_path: Path) -> None:
    @asynccontextmanager
    async def guard(call: StepCall, view: View) -> AsyncIterator[int]:
        yield int(view.get(TABLE, "version") or 0)

    def compare_and_set(effects: Effects, call: StepCall, context: Any) -> None:
        if int(effects.get(TABLE, "version") or 0) != context:
            raise TryLater("CONFLICT", "somebody was faster")
        effects.put(TABLE, "version", context + 1)

    shop = Shop(guard)
    shop.during = compare_and_set
    async with Desk(tmp_path / "shop", shop) as desk:
        replies = await desk.ask(*(make_call(saga=f"order:{i}") for i in range(8)))
        assert [reply.outcome for reply in replies] == [Outcome.SUCCEEDED] * 8
        assert desk.ledger.get(TABLE, "version") == 8
        assert desk.server.stats()["conflicts"] > 0


async def test_a_conflict_without_end_is_answered_so(tmp_path: Path) -> None:
    gate = Gate()
    gate.opened.set()
    shop = Shop(gate)

    def conflict(effects: Effects, call: StepCall, context: Any) -> None:
        raise TryLater("CONFLICT", "somebody was faster", 30)

    shop.during = conflict
    limits = ParticipantLimits(conflict_retries_max=3)
    async with Desk(tmp_path / "shop", shop, limits=limits) as desk:
        (reply,) = await desk.ask(make_call())
        assert (reply.outcome, reply.code, reply.stored) == (Outcome.UNKNOWN, "CONFLICT", False)
        assert reply.retry_after_ms == 30
        assert len(gate.entered) == len(gate.left) == 4
        assert desk.row() is None


async def test_a_guard_that_says_later_or_breaks_stores_nothing(tmp_path: Path) -> None:
    @asynccontextmanager
    async def guard(call: StepCall, view: View) -> AsyncIterator[None]:
        if call.saga_id == "order:1":
            raise TryLater("LOCKED", "another has it", 20)
        if call.saga_id == "order:2":
            raise ZeroDivisionError
        yield

    async with Desk(tmp_path / "shop", Shop(guard)) as desk:
        replies = await desk.ask(*(make_call(saga=f"order:{i}") for i in (1, 2, 3)))
        assert [reply.code for reply in replies] == ["LOCKED", "INTERNAL_ERROR", ""]
        assert [row.key.saga_id for row in desk.ledger.rows()] == ["order:3"]


# -- the same key --------------------------------------------------------------


async def test_a_call_sent_again_joins_the_one_under_way(tmp_path: Path) -> None:
    gate = Gate()
    async with Desk(tmp_path / "shop", Shop(gate)) as desk:
        desk.send(*(make_call(call_id=n, attempt=n) for n in (1, 2, 3)))
        await desk.until(lambda: gate.inside == 1)
        gate.opened.set()
        await desk.heard(3)
        assert [(r.call_id, r.attempt, r.duplicate) for r in desk.replies] == [
            (1, 1, False),
            (2, 2, True),
            (3, 3, True),
        ]
        assert gate.entered == ["order:1"]
        assert desk.effects("done") == 1
        assert desk.server.stats()["joined"] == 2


async def test_the_latest_expiry_of_those_who_joined_is_remembered(tmp_path: Path) -> None:
    gate = Gate()
    async with Desk(tmp_path / "shop", Shop(gate)) as desk:
        desk.send(make_call(), make_call(attempt=2, expires_at_ms=NOW_MS + 999_000))
        await desk.until(lambda: gate.inside == 1)
        gate.opened.set()
        await desk.heard(2)
        row = desk.row()
        assert row is not None and row.expires_at_ms == NOW_MS + 999_000


@pytest.mark.parametrize(("epoch", "code"), [(6, ""), (4, "FENCED")])
async def test_a_call_of_another_owner_does_not_join(tmp_path: Path, epoch: int, code: str) -> None:
    gate = Gate()
    async with Desk(tmp_path / "shop", Shop(gate)) as desk:
        desk.send(make_call(), make_call(epoch=epoch, attempt=2))
        await desk.until(lambda: gate.inside == 1)
        gate.opened.set()
        await desk.heard(2)
        assert desk.codes() == ["", code]
        assert [reply.epoch for reply in desk.replies] == [5, epoch]
        assert desk.ledger.epochs() == {make_call().scope: max(5, epoch)}
        assert desk.effects("done") == 1


async def test_a_compensation_waits_for_its_action_then_undoes_it(tmp_path: Path) -> None:
    gate = Gate()
    async with Desk(tmp_path / "shop", Shop(gate)) as desk:
        desk.send(make_call())
        await desk.until(lambda: gate.inside == 1)
        desk.send(make_call(COMPENSATION), make_call(attempt=9), make_call(RELEASE))
        assert desk.replies == []
        gate.opened.set()
        await desk.heard(4)
        assert [(reply.verb, reply.outcome) for reply in desk.replies] == [
            (ACTION, Outcome.SUCCEEDED),
            (ACTION, Outcome.SUCCEEDED),
            (COMPENSATION, Outcome.SUCCEEDED),
            (RELEASE, Outcome.SUCCEEDED),
        ]
        assert (desk.effects("done"), desk.effects("undone")) == (1, 1)


async def test_a_question_is_not_held_up_and_fences_what_is_under_way(tmp_path: Path) -> None:
    gate = Gate()
    async with Desk(tmp_path / "shop", Shop(gate)) as desk:
        desk.send(make_call(epoch=5))
        await desk.until(lambda: gate.inside == 1)
        (told,) = await desk.ask(make_call(QUESTION, epoch=6))
        assert told.result == {"status": "nothing", "result": None}
        gate.opened.set()
        await desk.heard(2)
        assert desk.codes() == ["", "FENCED"]
        assert desk.effects("done") == 0


async def test_what_hangs_is_called_back_and_its_compensation_leaves_a_tombstone(
    tmp_path: Path,
) -> None:
    trouble = Trouble(**{"1": "hangs"})
    async with Desk(tmp_path / "shop", Shop(), behaviour=trouble) as desk:
        desk.send(make_call(timeout_ms=20), make_call(COMPENSATION))
        await desk.heard(2)
        assert [(reply.verb, reply.code) for reply in desk.replies] == [
            (ACTION, "TIMEOUT"),
            (COMPENSATION, ""),
        ]
        row = desk.row()
        assert row is not None and row.status is LedgerStatus.TOMBSTONE
        assert desk.effects("done") == 0
        assert desk.server.stats()["in_flight"] == 0


# -- bounds --------------------------------------------------------------------


async def test_beyond_the_bounds_actions_are_turned_away_at_once_and_not_stored(
    tmp_path: Path,
) -> None:
    gate = Gate()
    limits = ParticipantLimits(in_flight_max=4, queued_max=4, homeward_share=0.25)
    async with Desk(tmp_path / "shop", Shop(gate), limits=limits) as desk:
        desk.send(*(make_call(saga=f"order:{i}") for i in range(10)))
        assert desk.codes() == ["OVERLOADED"] * 4, "8 less the share of 2"
        assert {(r.outcome, r.stored) for r in desk.replies} == {(Outcome.UNKNOWN, False)}
        assert all(reply.retry_after_ms > 0 for reply in desk.replies)
        desk.send(*(make_call(COMPENSATION, saga=f"order:{i}") for i in range(10, 13)))
        assert desk.codes()[4:] == ["OVERLOADED"], "even the way home has an end"
        await desk.heard(7)
        assert all(reply.outcome == Outcome.SUCCEEDED for reply in desk.replies[5:])
        gate.opened.set()
        await desk.heard(13)
        assert gate.most_inside == 3, "one slot of four is kept for the way home"
        assert len(list(desk.ledger.rows())) == 8
        assert (await desk.ask(make_call(saga="order:9")))[0].outcome == Outcome.SUCCEEDED
        assert desk.server.stats()["overloaded"] == 5


async def test_the_fast_path_is_bounded_too(tmp_path: Path) -> None:
    limits = ParticipantLimits(in_flight_max=10, queued_max=30, homeward_share=0.5)
    async with Desk(tmp_path / "shop", Shop(), limits=limits) as desk:
        desk.send(*(make_call(saga=f"order:{i}") for i in range(100)))
        await desk.heard(100)
        assert Counter(desk.codes()) == {"OVERLOADED": 80, "": 20}
        assert len(list(desk.ledger.rows())) == 20


async def test_hung_actions_do_not_keep_compensations_from_getting_through(
    tmp_path: Path,
) -> None:
    trouble = Trouble(**{str(i): "hangs" for i in range(20)})
    limits = ParticipantLimits(in_flight_max=4, queued_max=100)
    async with Desk(tmp_path / "shop", Shop(), limits=limits, behaviour=trouble) as desk:
        desk.send(*(make_call(saga=f"order:{i}") for i in range(20)))
        await desk.until(lambda: trouble.hung == 3)
        replies = await desk.ask(*(make_call(COMPENSATION, saga=f"order:{i}") for i in (7, 8, 9)))
        assert [reply.outcome for reply in replies] == [Outcome.SUCCEEDED] * 3


# -- simulated trouble ---------------------------------------------------------


async def test_a_behaviour_can_answer_instead_or_lose_the_answer(tmp_path: Path) -> None:
    trouble = Trouble(**{"1": "answers", "2": "loses", "3": "breaks", "4": "fine"})
    async with Desk(tmp_path / "shop", Shop(), behaviour=trouble) as desk:
        desk.send(*(make_call(saga=f"order:{i}", call_id=i) for i in (1, 2, 3, 4)))
        await desk.heard(3)
        await desk.until(lambda: desk.server.stats()["unanswered"] == 0)
        answers = {reply.call_id: reply.code for reply in desk.replies}
        assert answers == {1: "MADE_UP", 3: "INTERNAL_ERROR", 4: ""}
        assert [desk.effects("done", saga=f"order:{i}") for i in (1, 2, 3, 4)] == [0, 1, 0, 1]
        (again,) = await desk.ask(make_call(saga="order:2", attempt=2))
        assert (again.stored, again.duplicate) == (True, True)
        assert desk.effects("done", saga="order:2") == 1


async def test_what_hangs_after_it_was_done_is_called_back_unknown(tmp_path: Path) -> None:
    trouble = Trouble(**{"1": "hangs after"})
    async with Desk(tmp_path / "shop", Shop(), behaviour=trouble) as desk:
        (reply,) = await desk.ask(make_call(timeout_ms=20))
        assert (reply.outcome, reply.code, reply.stored) == (Outcome.UNKNOWN, "TIMEOUT", False)
        assert desk.effects("done") == 1


# -- beginning and end ---------------------------------------------------------


async def test_a_newer_incarnation_silences_the_older_server(tmp_path: Path) -> None:
    gate = Gate()
    shop = Shop(gate)
    async with Desk(tmp_path / "shop", shop) as desk:
        desk.send(make_call(), make_call(saga="order:2"), make_call(COMPENSATION))
        await desk.until(lambda: gate.inside == 2)
        Ledger(
            desk.ledger.environment,
            handlers=Handlers(operations={}, settle=shop.settle, codes={}),
            tables=(TABLE,),
            now_ms=desk.clock.now_ms,
            settings=SETTINGS,
        )
        gate.opened.set()
        await desk.until(lambda: desk.fatal)
        desk.send(make_call(saga="order:3"), make_call(QUESTION))
        await desk.until(lambda: desk.server.stats()["in_flight"] == 0)
    assert [type(error) for error in desk.fatal] == [StaleEpochError]
    assert desk.replies == []


async def test_a_commit_that_may_have_failed_answers_nobody(tmp_path: Path) -> None:
    """Method: let the operating system refuse to write to files beyond their first page."""
    async with Desk(tmp_path / "shop", Shop()) as desk:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
        try:
            desk.send(make_call(), make_call(COMPENSATION, saga="order:2"), make_call(QUESTION))
            await desk.until(lambda: desk.fatal)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        desk.send(make_call(attempt=2))
    assert [type(error) for error in desk.fatal] == [StorageFailedError]
    assert desk.replies == []


async def test_a_server_that_stops_finishes_what_the_ledger_has(tmp_path: Path) -> None:
    gate = Gate()
    shop = Shop(gate)
    limits = ParticipantLimits(in_flight_max=2)
    async with Desk(tmp_path / "shop", shop, limits=limits) as desk:
        desk.send(make_call(), make_call(COMPENSATION), make_call(saga="order:2"))
        await desk.until(lambda: gate.inside == 1)
        shop.guard_with = None
        desk.send(*(make_call(saga=f"order:{i}") for i in range(10, 20)))
        await desk.server.stop()
        desk.send(make_call(saga="order:3"))
        outcomes = Counter((reply.outcome, reply.code) for reply in desk.replies)
        assert outcomes == {
            (Outcome.SUCCEEDED, ""): 10,
            (Outcome.UNKNOWN, "SERVICE_UNAVAILABLE"): 4,
        }
        assert len(list(desk.ledger.rows())) == 10
        assert gate.inside == 0
        assert desk.server.stats()["unanswered"] == 0


async def test_a_server_stops_though_a_call_had_not_begun_when_it_was_called_back(
    tmp_path: Path,
) -> None:
    """A task that is cancelled before its first step runs none of its own clean-up."""
    async with Desk(tmp_path / "shop", Shop(), behaviour=Trouble()) as desk:
        async with asyncio.timeout(30):
            desk.send(make_call(), make_call(attempt=2), make_call(COMPENSATION))
            await desk.server.stop()
        assert [reply.code for reply in desk.replies] == ["SERVICE_UNAVAILABLE"] * 3
        assert desk.server.stats()["unanswered"] == 0
