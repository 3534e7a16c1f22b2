"""Outside providers: whatever line is cut, whoever dies, money moves once, never after an undo."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from raysaga.actors.provider import ProviderOperation
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    LedgerStatus,
    Outcome,
    StepCall,
)

from .participant_desk import NOW_MS, SETTINGS, Desk, make_call
from .provider_bank import Bank, shop_at

HORIZON_MS = Bank.horizon_ms + SETTINGS.clock_skew_ms
CHILD = Path(__file__).with_name("provider_child.py")


class Branch:
    """A desk with a bank behind it, both of which outlive a crash on disk."""

    def __init__(self, folder: Path, *, is_askable: bool = True, is_idempotent: bool = False):
        self.folder = folder
        self.wall_ms = NOW_MS
        self.bank = Bank(
            folder / "bank.db",
            lambda: self.wall_ms,
            is_askable=is_askable,
            is_idempotent=is_idempotent,
        )

    @asynccontextmanager
    async def desk(self) -> AsyncIterator[Desk]:
        """One life of the participant; what is under way when it ends is cut off."""
        desk = Desk(self.folder / "shop", shop_at(self.bank))
        desk.clock.wall_ms = self.wall_ms
        async with desk:
            yield desk

    def later(self, desk: Desk, by_ms: int) -> None:
        self.wall_ms += by_ms
        desk.clock.wall_ms = self.wall_ms


def late(**fields: int) -> dict[str, int]:
    return {"expires_at_ms": NOW_MS + 999_999, **fields}


@pytest.fixture
def branch(tmp_path: Path) -> Branch:
    return Branch(tmp_path)


async def test_a_provider_is_asked_once_and_its_answer_kept(branch: Branch) -> None:
    async with branch.desk() as desk:
        first, again = [(await desk.ask(make_call(attempt=n)))[0] for n in (1, 2)]
        assert (first.outcome, first.duplicate) == (Outcome.SUCCEEDED, False)
        assert first.result == {"count": 1, "context": {"charge": "tea"}}
        assert (again.result, again.duplicate) == (first.result, True)
        (undone,) = await desk.ask(make_call(COMPENSATION))
        assert undone.result is not None
        assert undone.result["context"] == {"refund": "tea", "knows": True}
        assert (branch.bank.moves("reserve"), branch.bank.moves("undo")) == (1, 1)
        assert (desk.effects("done"), desk.effects("undone")) == (1, 1)


async def test_pending_is_durable_before_the_provider_is_asked(branch: Branch) -> None:
    async with branch.desk() as desk:
        seen = []
        branch.bank.on_done = lambda: seen.append(desk.row())
        await desk.ask(make_call())
        assert [row.status if row else None for row in seen] == [LedgerStatus.PENDING]


async def test_after_a_lost_reply_the_provider_is_asked_by_the_same_key(branch: Branch) -> None:
    async with branch.desk() as desk:
        branch.bank.line = "lost reply"
        (unknown,) = await desk.ask(make_call())
        assert (unknown.outcome, unknown.code, unknown.stored) == (3, "PENDING", False)
        branch.bank.line = "up"
        (known,) = await desk.ask(make_call(attempt=2))
        assert (known.outcome, known.stored) == (Outcome.SUCCEEDED, True)
        assert (branch.bank.moves(), branch.bank.asked) == (1, 1)


@pytest.mark.parametrize("line", ["lost request", "hangs"])
async def test_what_was_not_found_is_sent_again_only_after_the_horizon(
    branch: Branch, line: str
) -> None:
    async with branch.desk() as desk:
        branch.bank.line = line
        desk.send(make_call())
        await desk.until(lambda: branch.bank.hung or desk.replies)
    branch.bank.line = "up"
    async with branch.desk() as desk:
        assert (await desk.ask(make_call(attempt=2)))[0].code == "PENDING"
        branch.later(desk, HORIZON_MS)
        assert (await desk.ask(make_call(attempt=3)))[0].code == "PENDING"
        assert branch.bank.moves() == 0
        branch.later(desk, 1)
        (reply,) = await desk.ask(make_call(attempt=4))
        assert reply.outcome == Outcome.SUCCEEDED
        assert branch.bank.moves() == 1


async def test_an_expired_action_is_not_sent_again(branch: Branch) -> None:
    async with branch.desk() as desk:
        branch.bank.line = "lost request"
        await desk.ask(make_call(expires_at_ms=NOW_MS + 5))
        branch.bank.line = "up"
        branch.later(desk, HORIZON_MS + 1)
        (reply,) = await desk.ask(make_call(expires_at_ms=NOW_MS + 5, attempt=2))
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "EXPIRED")
        assert branch.bank.moves() == 0
        (undone,) = await desk.ask(make_call(COMPENSATION))
        assert undone.outcome == Outcome.SUCCEEDED


async def test_where_twice_is_once_it_is_sent_again_at_once(tmp_path: Path) -> None:
    branch = Branch(tmp_path, is_idempotent=True)
    async with branch.desk() as desk:
        branch.bank.line = "slow"
        await desk.ask(make_call())
        branch.bank.line = "up"
        (reply,) = await desk.ask(make_call(attempt=2))
        branch.bank.arrive()
        assert reply.outcome == Outcome.SUCCEEDED
        assert branch.bank.moves() == 1


@pytest.mark.parametrize("is_idempotent", [False, True], ids=["plain", "idempotent"])
async def test_a_compensation_of_a_pending_action_is_unknown_until_it_is_final(
    tmp_path: Path, is_idempotent: bool
) -> None:
    """The history: not found, undone, and then the money moves."""
    branch = Branch(tmp_path, is_idempotent=is_idempotent)
    async with branch.desk() as desk:
        branch.bank.line = "slow"
        await desk.ask(make_call())
        branch.bank.line = "cannot cancel"
        (early,) = await desk.ask(make_call(COMPENSATION))
        assert (early.outcome, early.code) == (Outcome.UNKNOWN, "PENDING")
        branch.later(desk, HORIZON_MS + 1)
        (undone,) = await desk.ask(make_call(COMPENSATION, attempt=2))
        assert (undone.outcome, undone.result) == (Outcome.SUCCEEDED, {})
        branch.bank.arrive()
        assert branch.bank.moves() == 0, "it was told until when it may act"
        (refused,) = await desk.ask(make_call(attempt=2, **late()))
        assert refused.code == "CANCELLED_BEFORE_START"


async def test_a_provider_that_can_cancel_makes_it_final_at_once(branch: Branch) -> None:
    async with branch.desk() as desk:
        branch.bank.line = "slow"
        await desk.ask(make_call())
        (undone,) = await desk.ask(make_call(COMPENSATION))
        branch.bank.arrive()
        assert undone.outcome == Outcome.SUCCEEDED
        row = desk.row()
        assert row is not None and row.status is LedgerStatus.TOMBSTONE
        assert branch.bank.moves() == 0


@pytest.mark.parametrize("line", ["lost reply", "up"])
async def test_a_compensation_that_comes_too_late_to_cancel_refunds_once(
    branch: Branch, line: str
) -> None:
    async with branch.desk() as desk:
        branch.bank.line = "lost reply"
        await desk.ask(make_call())
        branch.bank.line = line
        replies = [(await desk.ask(make_call(COMPENSATION, attempt=n)))[0] for n in (1, 2, 3)]
        assert replies[-1].outcome == Outcome.SUCCEEDED
        assert (branch.bank.moves("reserve"), branch.bank.moves("undo")) == (1, 1)
        assert (desk.effects("done"), desk.effects("undone")) == (1, 1)


async def test_a_refund_that_got_lost_is_sent_again_after_the_horizon(branch: Branch) -> None:
    async with branch.desk() as desk:
        await desk.ask(make_call())
        branch.bank.line = "lost request"
        await desk.ask(make_call(COMPENSATION))
        branch.bank.line = "up"
        assert (await desk.ask(make_call(COMPENSATION, attempt=2)))[0].code == "PENDING"
        branch.later(desk, HORIZON_MS + 1)
        (undone,) = await desk.ask(make_call(COMPENSATION, attempt=3))
        assert undone.outcome == Outcome.SUCCEEDED
        assert branch.bank.moves("undo") == 1


async def test_codes_say_what_a_providers_no_means(branch: Branch) -> None:
    async with branch.desk() as desk:
        branch.bank.line = "busy"
        (busy,) = await desk.ask(make_call(saga="order:busy"))
        branch.bank.line = "gateway"
        (gateway,) = await desk.ask(make_call(saga="order:gateway"))
        branch.bank.line = "declined"
        (declined,) = await desk.ask(make_call(saga="order:declined"))
        assert [(r.outcome, r.code, r.stored) for r in (busy, gateway, declined)] == [
            (Outcome.UNKNOWN, "BUSY", False),
            (Outcome.UNKNOWN, "PENDING", False),
            (Outcome.REFUSED, "DECLINED", True),
        ]
        stored = {row.key.saga_id: row.status for row in desk.ledger.rows()}
        assert stored == {
            "order:gateway": LedgerStatus.PENDING,
            "order:declined": LedgerStatus.REFUSED,
        }
        branch.bank.line = "up"
        (done,) = await desk.ask(make_call(saga="order:busy", attempt=2))
        assert done.outcome == Outcome.SUCCEEDED
        (again,) = await desk.ask(make_call(saga="order:declined", attempt=2))
        assert (again.code, again.duplicate) == ("DECLINED", True)


async def test_a_refused_undo_is_asked_for_again_when_it_is_tried_again(branch: Branch) -> None:
    async with branch.desk() as desk:
        await desk.ask(make_call())
        branch.bank.line = "declined"
        (refused,) = await desk.ask(make_call(COMPENSATION))
        assert (refused.outcome, refused.stored) == (Outcome.REFUSED, False)
        branch.later(desk, HORIZON_MS + 1)
        branch.bank.line = "up"
        (undone,) = await desk.ask(make_call(COMPENSATION, attempt=2))
        assert undone.outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize("verb", [QUESTION, RELEASE])
async def test_a_question_or_a_release_finds_out_what_is_pending(branch: Branch, verb: int) -> None:
    async with branch.desk() as desk:
        branch.bank.line = "lost reply"
        await desk.ask(make_call())
        (reply,) = await desk.ask(make_call(verb))
        assert reply.outcome == Outcome.SUCCEEDED
        row = desk.row()
        assert row is not None and row.status is LedgerStatus.APPLIED
        assert row.is_released == (verb == RELEASE)
        if verb == QUESTION:
            answer = {"count": 1, "context": {"charge": "tea"}}
            assert reply.result == {"status": "applied", "result": answer}


async def test_a_question_about_what_cannot_be_known_yet_says_pending(branch: Branch) -> None:
    async with branch.desk() as desk:
        branch.bank.line = "lost request"
        await desk.ask(make_call())
        (told,) = await desk.ask(make_call(QUESTION))
        assert told.result == {"status": "pending", "result": None}
        assert (await desk.ask(make_call(RELEASE)))[0].code == "PENDING"


@pytest.mark.parametrize("verb", [ACTION, COMPENSATION])
async def test_a_fenced_caller_does_not_get_as_far_as_the_provider(
    branch: Branch, verb: int
) -> None:
    async with branch.desk() as desk:
        branch.bank.line = "lost request"
        await desk.ask(make_call())
        await desk.ask(make_call(QUESTION, epoch=6))
        asked = branch.bank.asked
        branch.bank.line = "up"
        (reply,) = await desk.ask(make_call(verb, epoch=5, attempt=2))
        assert reply.code == "FENCED"
        assert (branch.bank.asked, branch.bank.moves()) == (asked, 0)


# -- what cannot be asked again ------------------------------------------------


async def test_what_cannot_be_asked_again_is_not_sent_again_and_says_so(tmp_path: Path) -> None:
    branch = Branch(tmp_path, is_askable=False)
    async with branch.desk() as desk:
        branch.bank.line = "lost reply"
        (lost,) = await desk.ask(make_call())
        branch.bank.line = "up"
        (again,) = await desk.ask(make_call(attempt=2))
        assert {lost.code, again.code} == {"OUTCOME_UNKNOWN"}
        assert again.stored
        row = desk.row()
        assert row is not None and row.status is LedgerStatus.UNKNOWN
        assert (branch.bank.moves(), branch.bank.asked) == (1, 0)
        # The undo is a second message; it is right whether or not the first got through.
        (undone,) = await desk.ask(make_call(COMPENSATION))
        assert undone.result is not None
        assert undone.result["context"] == {"refund": "tea", "knows": False}
        assert branch.bank.moves("undo") == 1


async def test_cut_off_while_it_was_sent_it_is_unknown_in_the_next_life(tmp_path: Path) -> None:
    branch = Branch(tmp_path, is_askable=False)
    async with branch.desk() as desk:
        branch.bank.line = "hangs"
        desk.send(make_call())
        await desk.until(lambda: branch.bank.hung)
    branch.bank.line = "up"
    async with branch.desk() as desk:
        assert (await desk.ask(make_call(attempt=2)))[0].code == "OUTCOME_UNKNOWN"
        assert branch.bank.moves() == 0
        branch.bank.line = "lost reply"
        assert (await desk.ask(make_call(COMPENSATION)))[0].code == "PENDING"
        branch.bank.line = "up"
        assert (await desk.ask(make_call(COMPENSATION, attempt=2)))[0].code == "OUTCOME_UNKNOWN"
        assert branch.bank.moves("undo") == 1, "nor is the undo sent twice"


# -- deaths --------------------------------------------------------------------


async def test_killed_between_the_providers_effect_and_the_row_it_is_found_by_its_key(
    tmp_path: Path,
) -> None:
    """Method: a process charges the bank and is killed before it can note the answer."""
    process = await asyncio.create_subprocess_exec(sys.executable, str(CHILD), str(tmp_path))
    assert await process.wait() == -signal.SIGKILL
    branch = Branch(tmp_path)
    assert branch.bank.moves() == 1
    async with branch.desk() as desk:
        row = desk.row()
        assert row is not None and row.status is LedgerStatus.PENDING
        assert desk.effects("done") == 0
        (reply,) = await desk.ask(make_call(attempt=2))
        assert (reply.outcome, reply.stored) == (Outcome.SUCCEEDED, True)
        assert desk.effects("done") == 1
    assert branch.bank.moves() == 1


async def test_paused_between_the_mark_and_the_request_for_too_long_it_is_not_sent(
    branch: Branch,
) -> None:
    """Somebody may have given it up meanwhile, since it was not found after its horizon."""
    async with branch.desk() as desk:
        take = desk.participant.operations["take"]
        assert isinstance(take, ProviderOperation)

        def pause(call: StepCall) -> dict[str, str]:
            branch.later(desk, Bank.horizon_ms + 1)
            return {"charge": "tea"}

        desk.participant.operations = {"take": replace(take, submission=pause)}
        (reply,) = await desk.ask(make_call())
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "PENDING")
        assert branch.bank.moves() == 0


@pytest.mark.parametrize("is_idempotent", [False, True], ids=["plain", "idempotent"])
@pytest.mark.parametrize("seed", range(12))
async def test_no_history_moves_money_twice_or_after_the_undo(
    tmp_path: Path, seed: int, is_idempotent: bool
) -> None:
    """Method: cut the line, let requests arrive late, let time pass and lives end, by chance."""
    chance = random.Random(seed)
    branch = Branch(tmp_path, is_idempotent=is_idempotent)
    lines = ["up", "lost request", "lost reply", "slow", "cannot cancel", "busy", "gateway"]
    over = False
    attempt = 0
    for _ in range(6):
        async with branch.desk() as desk:
            for _ in range(8):
                attempt += 1
                branch.bank.line = chance.choice(lines)
                verb = chance.choice([ACTION, ACTION, ACTION, COMPENSATION, QUESTION])
                (reply,) = await desk.ask(make_call(verb, attempt=attempt, **late()))
                before = branch.bank.moves()
                if chance.random() < 0.3:
                    branch.later(desk, chance.choice([10, HORIZON_MS + 1]))
                if chance.random() < 0.3:
                    branch.bank.arrive()
                row = desk.row()
                charged, refunded = branch.bank.moves(), branch.bank.moves("undo")
                assert charged <= 1
                assert refunded <= charged
                if over:
                    assert charged == before, "money moved after the undo"
                if verb == COMPENSATION and reply.outcome == Outcome.SUCCEEDED:
                    over = True
                    assert row is not None
                    assert charged == refunded
                if reply.outcome == Outcome.SUCCEEDED and verb == ACTION:
                    assert charged == 1
