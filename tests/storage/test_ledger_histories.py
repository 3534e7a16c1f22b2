"""Any history of calls, repeated, reordered, from old and new owners, over crashes."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    Outcome,
    StepCall,
    StepReply,
)
from raysaga.storage.effects import Effects, Refusal, TryLater
from raysaga.storage.ledger_row import EffectKind

from .ledger_desk import NOW_MS, TABLE, Desk, make_call

SAGAS = ("order:1", "order:2")
STEPS = ("reserve", "pay")


class Sent(NamedTuple):
    """One message: which, from whom, in time or late, and what the handler makes of it."""

    verb: int
    saga: str
    step: str
    epoch: int
    late: bool
    mood: str


messages = st.builds(
    Sent,
    verb=st.sampled_from([ACTION, ACTION, ACTION, COMPENSATION, COMPENSATION, QUESTION, RELEASE]),
    saga=st.sampled_from(SAGAS),
    step=st.sampled_from(STEPS),
    epoch=st.sampled_from([1, 2, 2, 2, 3]),
    late=st.sampled_from([False, False, False, True]),
    mood=st.sampled_from(["fine", "fine", "fine", "fine", "refuses", "later", "breaks"]),
)
histories = st.lists(st.one_of(st.lists(messages, min_size=1, max_size=6), st.just("crash")))


def call_for(sent: Sent, call_id: int) -> StepCall:
    expires_at_ms = None
    if sent.verb == ACTION:
        expires_at_ms = NOW_MS - 1 if sent.late else NOW_MS + 1_000
    return make_call(
        sent.verb,
        saga=sent.saga,
        step=sent.step,
        epoch=sent.epoch,
        expires_at_ms=expires_at_ms,
        call_id=call_id,
        attempt=call_id,
    )


class Judge:
    """Holds what was answered and done against what was promised."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.refused: dict[tuple[str, str], StepReply] = {}
        self.answers: dict[tuple[str, str, int], object] = {}
        self.undone: set[tuple[str, str]] = set()

    def hear(self, call: StepCall, reply: StepReply) -> None:
        key = (call.saga_id, call.step)
        if not reply.stored or reply.outcome == Outcome.UNKNOWN:
            assert call.verb != ACTION or reply.outcome == Outcome.UNKNOWN
            return
        if call.verb == COMPENSATION:
            self.undone.add(key)
        if call.verb == ACTION and reply.outcome == Outcome.REFUSED:
            first = self.refused.setdefault(key, reply)
            assert reply.code == first.code, "a refusal never changes"
        if call.verb == ACTION and reply.outcome == Outcome.SUCCEEDED:
            assert key not in self.refused, "what was refused for ever was done"
            assert key not in self.undone, "an action was answered as done after its undo"
        if call.verb in (ACTION, COMPENSATION) and reply.outcome == Outcome.SUCCEEDED:
            kept = self.answers.setdefault((*key, call.verb), reply.result)
            assert kept == reply.result, "a stored answer never changes"

    def look(self) -> None:
        counts = {name: int(count) for name, count in self.desk.ledger.scan(TABLE)}
        log = list(self.desk.ledger.effects())
        kinds = Counter((entry.key.saga_id, entry.key.step, entry.kind) for entry in log)
        assert set(kinds.values()) <= {1}, "one line for each key and kind"
        for saga in SAGAS:
            for step in STEPS:
                done = counts.get(f"done/{saga}/{step}", 0)
                undone = counts.get(f"undone/{saga}/{step}", 0)
                assert undone <= done <= 1
                assert done == kinds[saga, step, EffectKind.ACTION]
                assert undone == kinds[saga, step, EffectKind.COMPENSATION]
                buried = kinds[saga, step, EffectKind.TOMBSTONE]
                assert done + buried + kinds[saga, step, EffectKind.REFUSED] <= 1
                assert counts.get(f"settled/{saga}/{step}", 0) <= 1
        epochs = [entry.epoch for entry in log]
        assert epochs == sorted(epochs), "an effect of an older owner after one of a newer"


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
@given(histories)
def test_no_history_gives_two_effects_or_one_after_its_undo(
    history: list[list[Sent] | str],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder) / "ledger")
        judge = Judge(desk)
        moods: dict[int, str] = {}

        def in_a_mood(effects: Effects, call: StepCall) -> None:
            effects.put(TABLE, f"settled/trace/{call.call_id}", 1)
            match moods[call.call_id]:
                case "refuses":
                    raise Refusal("SOLD_OUT", "there is no tea")
                case "later":
                    raise TryLater("LOCKED", "not now")
                case "breaks":
                    raise ZeroDivisionError

        desk.during = in_a_mood
        for sent in history:
            if isinstance(sent, str):
                event("crash")
                desk.reopen()
                continue
            calls = [call_for(one, len(moods) + i) for i, one in enumerate(sent)]
            moods.update((call.call_id, one.mood) for call, one in zip(calls, sent, strict=True))
            for call, reply in zip(calls, desk.send(*calls), strict=True):
                assert reply.call_id == call.call_id
                event(f"{call.verb} {reply.outcome} {reply.code}")
                judge.hear(call, reply)
            judge.look()
        desk.ledger.close()
