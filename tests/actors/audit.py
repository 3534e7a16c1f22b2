"""Judges a world by its promises (P1 to P7), from ledgers, disk and callers' answers only.

The host's own opinion counts only where it was told to somebody: the outcome
that a caller got, and the list of what stands that an operator finds with a
parked saga.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from raysaga.actors.outcome import outcome_of
from raysaga.actors.recovery import Definitions, Unreadable, load
from raysaga.statemachines.calls import ACTION, COMPENSATION, LedgerStatus, Outcome
from raysaga.statemachines.definition import CompensationPolicy, Durability, SagaDefinition
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase
from raysaga.storage.journal import Head, HeadFilter, Journal
from raysaga.storage.ledger_row import EffectKind

from .callers import Request
from .toy_services import Said, Services

STANDS = frozenset({LedgerStatus.APPLIED, LedgerStatus.PENDING, LedgerStatus.UNKNOWN})


def judge(journal: Journal, services: Services, requests: Iterable[Request]) -> None:
    """Fail if a promise is broken in a world where nothing is under way any more."""
    definitions = Definitions(journal)
    heads = {head.saga_id: head for head in journal.heads(HeadFilter(), limit=100_000)}
    effects_happened_once(services)
    epochs_only_grow(services)
    standing = what_stands(services)
    for head in heads.values():
        definition = definitions.get(head.definition_hash)
        if definition is None:
            assert head.phase in PARKED, f"{head} goes on without its definition"
            continue
        ended_rightly(journal, definitions, head, definition, standing[head.saga_id])
    undone_in_reverse_order(journal, services.said, heads, definitions)
    callers_were_told_the_truth(journal, definitions, list(requests))
    for saga_id in standing:
        known = saga_id in heads or journal.key_record(SagaId(saga_id)) is not None
        assert known or may_be_lost(definitions), f"{saga_id} has effects, and nobody knows it"


def may_be_lost(definitions: Definitions) -> bool:
    """Return whether a definition has chosen to lose what a crash takes."""
    return any(
        definition.durability is Durability.RELAXED for definition in definitions._known.values()
    )


def what_stands(services: Services) -> Mapping[str, set[str]]:
    """Return by saga the steps whose ledger row, and whose effect, stand."""
    found: dict[str, set[str]] = defaultdict(set)
    for station in services.stations.values():
        rows = {
            f"{row.key.saga_id}/{row.key.step}"
            for row in station.ledger.rows()
            if row.status in STANDS
        }
        effects = {key for key, _ in station.ledger.scan("standing")}
        assert rows == effects, f"{station.name}: rows {rows} and effects {effects} differ"
        for key in rows:
            saga_id, _, step = key.partition("/")
            found[saga_id].add(step)
    return found


def effects_happened_once(services: Services) -> None:
    """P3 and P5: once for each key and direction, and no action after its undo."""
    for station in services.stations.values():
        seen: dict[Any, list[EffectKind]] = defaultdict(list)
        for effect in station.ledger.effects():
            seen[effect.key].append(effect.kind)
        for key, kinds in seen.items():
            assert kinds.count(EffectKind.ACTION) <= 1, f"{key} took effect twice: {kinds}"
            assert kinds.count(EffectKind.COMPENSATION) <= 1, f"{key} was undone twice: {kinds}"
            if EffectKind.ACTION in kinds:
                before = kinds[: kinds.index(EffectKind.ACTION)]
                assert not before, f"{key} took effect after {before}"


def epochs_only_grow(services: Services) -> None:
    """P6: nothing of an older owner takes effect after something of a newer one."""
    for station in services.stations.values():
        newest: dict[str, int] = defaultdict(int)
        for effect in station.ledger.effects():
            row = station.ledger.row(effect.key)
            if row is not None:
                assert effect.epoch >= newest[row.scope], f"{effect} is of an owner that is no more"
                newest[row.scope] = effect.epoch


def ended_rightly(
    journal: Journal,
    definitions: Definitions,
    head: Head,
    definition: SagaDefinition,
    standing: set[str],
) -> None:
    """P2: completed, compensated or parked; and what stands is what should."""
    phase = head.phase
    assert phase in TERMINAL | PARKED, f"{head.saga_id} is {phase.value}, and nothing moves"
    loaded = load(journal, definitions, head, taken_over=True)
    if isinstance(loaded, Unreadable):
        assert phase in PARKED, f"{head} cannot be read, and is not parked"
        return
    told = outcome_of(loaded)
    if phase is Phase.COMPLETED:
        missing = {step.name for step in definition.steps} - set(told["remaining"]) - standing
        assert not missing, f"{head.saga_id} is completed, and {missing} did not happen"
    else:
        more = standing - set(told["remaining"])
        assert not more, f"{head.saga_id} is {phase.value}, and {more} stand"
    if phase in PARKED:
        assert told["code"], f"{head.saga_id} is parked without a reason"
        assert told["message"], f"{head.saga_id} is parked without a word"


def undone_in_reverse_order(
    journal: Journal, said: Iterable[Said], heads: Mapping[SagaId, Head], definitions: Definitions
) -> None:
    """P4: a step is undone when nothing that follows it stands, or ever will.

    On another branch, an action that was on its way may still arrive; it is undone in its turn.
    """
    standing: dict[str, set[str]] = defaultdict(set)
    undone: dict[str, set[str]] = defaultdict(set)
    for _, call, reply in said:
        head = heads.get(SagaId(call.saga_id))
        definition = None if head is None else definitions.get(head.definition_hash)
        if definition is None or reply.outcome != Outcome.SUCCEEDED:
            continue
        told = undone[call.saga_id] | (standing[call.saga_id] if call.verb == ACTION else set())
        if reply.duplicate and call.step in told:
            # One that was not told before is news: whoever was to tell it has died.
            continue
        if call.verb == ACTION:
            before = {s for s in undone[call.saga_id] if call.step in followers(definition, s)}
            halts = definition.compensation_policy is CompensationPolicy.HALT
            assert not (before and halts), f"{call} took effect though {before} was undone"
            standing[call.saga_id].add(call.step)
        elif call.verb == COMPENSATION:
            undone[call.saga_id].add(call.step)
            standing[call.saga_id].discard(call.step)
            if definition.compensation_policy is CompensationPolicy.HALT:
                late = standing[call.saga_id] & followers(definition, call.step)
                if late:
                    late -= left_by_operator(journal, definitions, heads[SagaId(call.saga_id)])
                assert not late, f"{call.saga_id}: {call.step} is undone while {late} stand"


def left_by_operator(journal: Journal, definitions: Definitions, head: Head) -> set[str]:
    """Return the steps of which a person said that their effect may remain."""
    loaded = load(journal, definitions, head, taken_over=True)
    return set() if isinstance(loaded, Unreadable) else set(outcome_of(loaded)["remaining"])


def followers(definition: SagaDefinition, step: str) -> set[str]:
    """Return the steps that come after `step`, near and far."""
    found: set[int] = set()
    open_steps = [definition.index[step]]
    while open_steps:
        for j in definition.dependents[open_steps.pop()]:
            if j not in found:
                found.add(j)
                open_steps.append(j)
    return {definition.steps[j].name for j in found}


def callers_were_told_the_truth(
    journal: Journal, definitions: Definitions, requests: list[Request]
) -> None:
    """P1 and P7: what was accepted is known, and an end that was told is the end."""
    told: dict[SagaId, set[str]] = defaultdict(set)
    for request in requests:
        if request.ok is None and request.ended is None:
            continue
        if request.operation == "submit":
            saga_id = SagaId(request.body[0])
            if not may_be_lost(definitions):
                assert journal.key_record(saga_id) is not None, f"{saga_id} was accepted, and lost"
        elif request.operation in ("watch", "status", "cancel", "force"):
            saga_id = SagaId(request.body["saga_id"])
        else:
            continue
        for kind, body in request.told:
            if kind == "ended" or (kind == "ok" and request.operation == "status"):
                phase = Phase(body["phase"])
                assert body["saga_id"] == saga_id
                if phase in TERMINAL:
                    told[saga_id].add(phase.value)
            if kind == "ok" and request.operation in ("cancel", "force"):
                told[saga_id].add("not completed")
    for saga_id, phases in told.items():
        # What is known of a pruned one, too.
        head = journal.key_record(saga_id)
        if head is None:
            continue
        phases_told = phases - {"not completed"}
        assert phases_told <= {head.phase.value}, f"{saga_id} is {head.phase}, told {phases_told}"
        if "not completed" in phases:
            assert head.phase is not Phase.COMPLETED, f"{saga_id}: cancel was granted"
