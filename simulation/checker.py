"""Decides whether a history kept every promise, and says which it broke.

Believes the participants' disks, what callers were told, and what they read in
the end; never the engine's own opinion. The invariants are I1 to I15 of the
design; `docs/SIMULATION.md` says how each is decided, and which are not here.

Guarantees: a history without a violation gives an empty list; the order of the
violations depends on the history alone.
Costs: linear in the lines, about a tenth of the time it took to play them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raysaga.simulation.dossier import TERMINAL_PHASES, Dossier, dossiers, followers
from raysaga.simulation.history import (
    EFFECT_ACTION,
    EFFECT_REFUSED,
    EFFECT_TOMBSTONE,
    EFFECT_UNDO,
    Committed,
    Effect,
    Granted,
    Observation,
    Sent,
)
from raysaga.statemachines.calls import ACTION, COMPENSATION

DEFECT = "defect"
"""An error that nobody should ever see; not one of the invariants, and worse."""


class Violation(NamedTuple):
    """A broken promise.

    Attributes:
        invariant: Which: `I1` and so on, or `defect`.
        saga_id: Of which saga; empty if it is about none.
        what: One sentence.
    """

    invariant: str
    saga_id: str
    what: str


Found = Iterator[Violation]


def check(seen: Observation) -> list[Violation]:
    """Return every promise that a history broke."""
    found = dossiers(seen)
    violations = [v for decide in _OF_ALL for v in decide(seen)]
    for dossier in found.values():
        violations += _known(dossier)
        if dossier.definition is None or dossier.reading is None:
            continue
        for decide_one in _OF_ONE:
            violations += decide_one(dossier)
    return violations


# -- of all -------------------------------------------------------------------


def _defects(seen: Observation) -> Found:
    for what in seen.defects:
        yield Violation(DEFECT, "", what)


def _conservation(seen: Observation) -> Found:
    """I2: what a participant had is what it has and what stands, at every moment."""
    left = {name: first for name, (first, _) in seen.stock.items()}
    for line in seen.lines:
        if not isinstance(line, Effect) or line.participant not in left:
            continue
        if line.kind in (EFFECT_ACTION, EFFECT_UNDO):
            amount, told = line.summary["amount"], line.summary["left"]
            left[line.participant] += amount if line.kind == EFFECT_UNDO else -amount
            if told != left[line.participant] or told < 0:
                what = f"{line.participant} has {told} left, and should have "
                yield Violation("I2", line.saga_id, f"{what}{left[line.participant]}")
                left[line.participant] = told
    for name, (_, last) in seen.stock.items():
        if left[name] != last:
            what = f"{name} has {last} left in the end, and should have {left[name]}"
            yield Violation("I2", "", what)
    for what in seen.books:
        yield Violation("I2", "", what)


def _fencing(seen: Observation) -> Found:
    """I6: nothing of an earlier owner after something of a later one.

    A second tombstone is nothing: it is what a late undo leaves when the row was forgotten.
    """
    owners: dict[str, int] = {}
    settled: set[tuple[str, str]] = set()
    newest: dict[tuple[str, str], int] = {}
    writers: dict[tuple[str, str], int] = {}
    for line in seen.lines:
        match line:
            case Granted():
                before = owners.get(line.scope, 0)
                if line.epoch <= before or (line.epoch > before + 1 and not seen.is_read_later):
                    what = f"{line.scope} is granted epoch {line.epoch} after {owners}"
                    yield Violation("I6", "", what)
                owners[line.scope] = line.epoch
            case Committed() if seen.is_read_later:
                for saga_id, _, _ in line.rows:
                    place = (line.scope, saga_id)
                    if line.epoch < writers.get(place, 0):
                        what = f"a record of epoch {line.epoch} follows one of {writers[place]}"
                        yield Violation("I6", saga_id, what)
                    writers[place] = line.epoch
            case Committed():
                if line.epoch != owners.get(line.scope, 0):
                    what = f"{line.host} commits under epoch {line.epoch}"
                    yield Violation("I6", line.rows[0][0], f"{what}, {owners} are in force")
            case Effect():
                place = (line.participant, line.scope)
                key = (line.saga_id, line.step)
                if line.kind == EFFECT_TOMBSTONE and key in settled:
                    continue
                if line.kind != EFFECT_ACTION:
                    settled.add(key)
                if line.epoch < newest.get(place, 0):
                    what = f"{line.kind} of {line.step} at {line.participant} under epoch "
                    what += f"{line.epoch}, after one under {newest[place]}"
                    yield Violation("I6", line.saga_id, what)
                newest[place] = max(newest.get(place, 0), line.epoch)
            case _:
                continue


def _records(seen: Observation) -> Found:
    """I7 and I8 on disk: records follow each other, nothing follows an end, all can be read."""
    for flaw in seen.flaws:
        yield Violation("I7", "", flaw)
    last: dict[str, tuple[int, str]] = {}
    for line in seen.lines:
        if not isinstance(line, Committed):
            continue
        for saga_id, seq, phase in line.rows:
            before, phase_before = last.get(saga_id, (-1, ""))
            if seq != before + 1:
                yield Violation("I7", saga_id, f"record {seq} comes after {before}")
            if phase_before in TERMINAL_PHASES:
                yield Violation("I8", saga_id, f"{phase} comes after {phase_before}")
            last[saga_id] = (seq, phase)


def _rest(seen: Observation) -> Found:
    """I10, I11, I14, I15: all comes to rest, all are served, nothing is left over or told."""
    for what in seen.late:
        yield Violation("I10", "", f"not at rest in time: {what}")
    for what in seen.unserved:
        yield Violation("I10", "", f"not served after the mending: {what}")
    for what in seen.left_over:
        yield Violation("I11", "", what)
    for what in seen.secrets:
        yield Violation("I14", "", what)
    for saga_id in sorted(seen.poison):
        reading = seen.readings.get(saga_id)
        phase = "" if reading is None else reading.phase
        if phase and phase not in TERMINAL_PHASES and not phase.startswith("parked"):
            yield Violation("I15", saga_id, f"it kills its hosts, and is {reading}")


def _counters(seen: Observation) -> Found:
    """I13: what is counted is what is listed, and what is listed is what is read."""
    listed = Counter(seen.listed.values())
    if dict(listed) != {phase: n for phase, n in seen.counted.items() if n}:
        yield Violation("I13", "", f"{dict(listed)} are listed, {seen.counted} are counted")
    for saga_id, phase in seen.listed.items():
        reading = seen.readings.get(saga_id)
        if reading is not None and reading.phase != phase:
            yield Violation("I13", saga_id, f"listed as {phase}, read as {reading.phase}")


_OF_ALL: tuple[Callable[[Observation], Found], ...] = (
    _defects,
    _conservation,
    _fencing,
    _records,
    _rest,
    _counters,
)

# -- of one saga ----------------------------------------------------------------


def _known(dossier: Dossier) -> Found:
    """I5: what was accepted is known, what is known was asked for, and one key is one saga."""
    saga_id = dossier.saga_id
    if not dossier.was_asked_for:
        yield Violation("I5", saga_id, "it exists, or had effects, and nobody asked for it")
        return
    prints = {
        told.facts["fingerprint"]
        for told in dossier.told
        if told.operation == "submit" and told.kind == "ok"
    }
    if len(prints) > 1 and not dossier.may_be_lost:
        yield Violation("I5", saga_id, "two different requests were accepted under one key")
    if dossier.reading is None and not dossier.may_be_lost:
        if dossier.was_accepted:
            yield Violation("I5", saga_id, "it was accepted, and is lost")
        if any(dossier.stands(step) for step in dossier.effects):
            yield Violation("I5", saga_id, "it has effects, and nobody knows it")


def _atomic(dossier: Dossier) -> Found:
    """I1: done, undone, or parked with a reason and with all that stands."""
    reading, definition = dossier.reading, dossier.definition
    assert reading is not None and definition is not None
    saga_id = dossier.saga_id
    if reading.phase == "completed":
        for step in definition.steps:
            if dossier.stands(step.name):
                continue
            is_told = step.name in reading.remaining or not reading.is_whole
            if not (is_told and (step.best_effort or dossier.may_leave_out)):
                yield Violation("I1", saga_id, f"it is completed, and {step.name} is not done")
    elif reading.phase == "compensated":
        for name in filter(dossier.stands, dossier.effects):
            is_told = name in reading.remaining or not reading.is_whole
            if not (is_told and dossier.may_leave_out):
                yield Violation("I1", saga_id, f"it is compensated, and {name} stands")
    elif reading.phase.startswith("parked"):
        if not reading.code:
            yield Violation("I1", saga_id, "it is parked without a reason")
        for name in filter(dossier.stands, dossier.effects):
            if name not in reading.remaining:
                yield Violation("I1", saga_id, f"it is parked, and {name} stands untold")
    else:
        yield Violation("I1", saga_id, f"it is {reading.phase} in the end")


def _in_reverse(dossier: Dossier) -> Found:
    """I3: no undo leaves while a later step stands, and no later step happens after it."""
    if not dossier.goes_back_in_order or dossier.may_be_lost:
        return
    assert dossier.definition is not None
    after = followers(dossier.definition)
    standing: set[str] = set()
    undone: set[str] = set()
    for move in dossier.moves:
        later = after.get(move.step, frozenset())
        if isinstance(move, Sent):
            if move.verb == COMPENSATION and standing & later:
                what = f"the undo of {move.step} leaves while {sorted(standing & later)} stand"
                yield Violation("I3", dossier.saga_id, what)
        elif move.kind == EFFECT_ACTION:
            before = {step for step in undone if move.step in after.get(step, ())}
            if before:
                what = f"{move.step} is done after {sorted(before)} were undone"
                yield Violation("I3", dossier.saga_id, what)
            standing.add(move.step)
        elif move.kind in (EFFECT_UNDO, EFFECT_TOMBSTONE):
            standing.discard(move.step)
            undone.add(move.step)


def _once(dossier: Dossier) -> Found:
    """I4 and I12: each at most once, no undo of nothing, nothing after its undo."""
    assert dossier.definition is not None
    names = {step.name for step in dossier.definition.steps}
    for step, kinds in dossier.effects.items():
        if step not in names:
            yield Violation("I4", dossier.saga_id, f"{step} happened, which is no step of it")
        for kind in (EFFECT_ACTION, EFFECT_UNDO):
            if kinds.count(kind) > 1:
                what = f"the {kind} of {step} took effect {kinds.count(kind)} times"
                yield Violation("I4", dossier.saga_id, what)
        settled = ""
        for kind in kinds:
            if kind == EFFECT_ACTION and settled:
                yield Violation("I12", dossier.saga_id, f"{step} is done after its {settled}")
            if kind == EFFECT_UNDO and EFFECT_ACTION not in kinds:
                yield Violation("I12", dossier.saga_id, f"{step} is undone, and was never done")
            if kind in (EFFECT_UNDO, EFFECT_TOMBSTONE, EFFECT_REFUSED):
                settled = kind


def _never_late(dossier: Dossier) -> Found:
    """I12: what was sent for an undone saga can never take effect any more."""
    reading = dossier.reading
    assert reading is not None
    if reading.phase != "compensated" or dossier.may_leave_out or dossier.may_be_lost:
        return
    sent = {m.step for m in dossier.moves if isinstance(m, Sent) and m.verb == ACTION}
    for step in sorted(sent):
        if not dossier.is_settled(step):
            what = f"{step} was sent, the saga is compensated, and {step} could still happen"
            yield Violation("I12", dossier.saga_id, what)


def _stable(dossier: Dossier) -> Found:
    """I8: an end that was told is the end."""
    reading = dossier.reading
    assert reading is not None
    told = {str(t.facts["phase"]) for t in dossier.told if "phase" in t.facts}
    ends = told & TERMINAL_PHASES
    if ends - {reading.phase} and not dossier.may_be_lost:
        what = f"{sorted(ends)} were told, and it is {reading.phase}"
        yield Violation("I8", dossier.saga_id, what)


def _cancelled(dossier: Dossier) -> Found:
    """I9: what was cancelled is not completed, and what could not be was not for that reason."""
    reading = dossier.reading
    assert reading is not None
    granted = any(t.operation in ("cancel", "force") and t.kind == "ok" for t in dossier.told)
    if granted and reading.phase == "completed" and not dossier.may_be_lost:
        yield Violation("I9", dossier.saga_id, "its cancelling was granted, and it is completed")
    is_for_that = reading.phase == "compensated" and reading.code == "CANCELLED"
    if is_for_that and not dossier.was_turned_back:
        yield Violation("I9", dossier.saga_id, "it is cancelled, and every cancel was refused")


_OF_ONE: tuple[Callable[[Dossier], Found], ...] = (
    _atomic,
    _in_reverse,
    _once,
    _never_late,
    _stable,
    _cancelled,
)
