"""What one history says of one saga, put together; and its story, for people."""

from __future__ import annotations

from collections.abc import Iterator

from raysaga.simulation.history import (
    EFFECT_ACTION,
    EFFECT_REFUSED,
    EFFECT_TOMBSTONE,
    EFFECT_UNDO,
    Asked,
    Committed,
    Effect,
    Granted,
    Line,
    Observation,
    Reading,
    Replied,
    Sent,
    Told,
    Trouble,
)
from raysaga.statemachines.calls import Outcome
from raysaga.statemachines.definition import CompensationPolicy, Durability, SagaDefinition
from raysaga.statemachines.tables import TERMINAL

VERBS = ("action", "compensation", "question", "release")
UNKNOWN_ANSWER = "SERVICE_UNAVAILABLE"
"""Code of an error that says nothing of what was done."""

TERMINAL_PHASES = frozenset(phase.value for phase in TERMINAL)


class Dossier:
    """One saga, as it was seen from outside.

    Attributes:
        saga_id: Its name.
        definition: Its recipe; None if nobody ever asked for such a saga.
        moves: What left hosts for it, and what took effect, in order.
        asked: What callers asked about it.
        told: What they were told.
        reading: What a caller was told last.
        effects: Kinds of effects by step, in order.
    """

    def __init__(self, saga_id: str, seen: Observation) -> None:
        self.saga_id = saga_id
        self.definition = seen.definitions.get(saga_id.partition(":")[0])
        self.reading: Reading | None = seen.readings.get(saga_id)
        self.moves: list[Sent | Effect] = []
        self.asked: list[Asked] = []
        self.told: list[Told] = []
        self.effects: dict[str, list[str]] = {}

    @property
    def was_accepted(self) -> bool:
        """Whether a caller was told that it exists."""
        return any(t.operation == "submit" and t.kind in ("ok", "ended") for t in self.told)

    @property
    def was_asked_for(self) -> bool:
        """Whether a caller has submitted it."""
        return any(a.operation == "submit" for a in self.asked)

    @property
    def may_be_lost(self) -> bool:
        """Whether its definition has chosen to lose what a crash takes."""
        return self.definition is not None and self.definition.durability is Durability.RELAXED

    @property
    def may_leave_out(self) -> bool:
        """Whether an operator may have let an effect stand, or gone on without one."""
        return self._may_have_worked("skip")

    @property
    def was_turned_back(self) -> bool:
        """Whether a cancel or a force may have worked."""
        return self._may_have_worked("cancel") or self._may_have_worked("force")

    @property
    def goes_back_in_order(self) -> bool:
        """Whether nothing lets a step be undone before those that follow it."""
        assert self.definition is not None
        is_strict = self.definition.compensation_policy is CompensationPolicy.HALT
        return is_strict and not self.may_leave_out

    def _may_have_worked(self, operation: str) -> bool:
        asked = sum(a.operation == operation for a in self.asked)
        refused = sum(
            t.operation == operation
            and t.kind == "error"
            and str(t.facts["code"]) != UNKNOWN_ANSWER
            for t in self.told
        )
        return asked > refused

    def stands(self, step: str) -> bool:
        """Return whether the effect of a step stands."""
        kinds = self.effects.get(step, ())
        return EFFECT_ACTION in kinds and EFFECT_UNDO not in kinds

    def is_settled(self, step: str) -> bool:
        """Return whether the action of a step can never take effect any more."""
        kinds = self.effects.get(step, ())
        return any(kind in kinds for kind in (EFFECT_UNDO, EFFECT_TOMBSTONE, EFFECT_REFUSED))


def dossiers(seen: Observation) -> dict[str, Dossier]:
    """Return what is seen of each saga."""
    found: dict[str, Dossier] = {}

    def of(saga_id: str) -> Dossier:
        dossier = found.get(saga_id)
        if dossier is None:
            dossier = found[saga_id] = Dossier(saga_id, seen)
        return dossier

    for line in seen.lines:
        match line:
            case Sent():
                # Releases of many sagas go under no saga's name; questions change nothing.
                if line.verb < 2:
                    of(line.saga_id).moves.append(line)
            case Effect():
                dossier = of(line.saga_id)
                dossier.moves.append(line)
                dossier.effects.setdefault(line.step, []).append(line.kind)
            case Asked() if line.saga_id:
                of(line.saga_id).asked.append(line)
            case Told() if line.saga_id:
                of(line.saga_id).told.append(line)
            case _:
                continue
    for saga_id in seen.listed:
        of(saga_id)
    return found


def followers(definition: SagaDefinition) -> dict[str, frozenset[str]]:
    """Return for each step those that come after it, near and far."""
    found = _followers.get(definition.content_hash)
    if found is None:
        names = [step.name for step in definition.steps]
        found = {}
        for i in reversed(definition.topological):
            nearest = [names[j] for j in definition.dependents[i]]
            found[names[i]] = frozenset(nearest).union(*(found[name] for name in nearest))
        _followers[definition.content_hash] = found
    return found


_followers: dict[str, dict[str, frozenset[str]]] = {}


def story_of(seen: Observation, saga_id: str) -> Iterator[str]:
    """Yield what happened to a saga, and what was broken meanwhile, one line each.

    What a participant answers is left out where its disk tells the same, and so are
    troubles before the saga was asked for.
    """
    has_begun = False
    for line in seen.lines:
        has_begun = has_begun or _is_about(line, saga_id)
        if not has_begun and saga_id:
            continue
        text = _sentence(line, saga_id)
        if text:
            yield f"{line.at_ms:>7} ms  {text}"
    yield f"   at last  {seen.readings.get(saga_id)}"


def _is_about(line: Line, saga_id: str) -> bool:
    if isinstance(line, Committed):
        return any(row[0] == saga_id for row in line.rows)
    return getattr(line, "saga_id", None) == saga_id


def _sentence(line: Line, saga_id: str) -> str:
    match line:
        case Trouble():
            return f"{line.what} {line.target}"
        case Granted():
            return f"{line.host} owns {line.scope.partition('/')[2]}, epoch {line.epoch}"
        case Committed():
            rows = [f"record {seq} ({phase})" for s, seq, phase in line.rows if s == saga_id]
            return f"disk of {line.host}: {', '.join(rows)}" if rows else ""
        case _ if not _is_about(line, saga_id):
            return ""
        case Asked():
            return f"{line.caller} asks: {line.operation} {dict(line.facts) or ''}"
        case Told():
            return f"{line.caller} hears: {line.operation} {line.kind} {dict(line.facts)}"
        case Sent():
            verb = VERBS[line.verb]
            what = f"{verb} of {line.step}, epoch {line.epoch}, attempt {line.attempt}"
            return f"{line.host} sends {line.participant} the {what}"
        case Effect():
            return f"disk of {line.participant}: {line.kind} of {line.step}, epoch {line.epoch}"
        case Replied():
            if line.outcome == Outcome.SUCCEEDED and not line.duplicate:
                return ""
            what = line.code or ("again" if line.duplicate else "")
            outcome = Outcome(line.outcome).name.lower()
            return f"{line.participant} answers {VERBS[line.verb]} of {line.step}: {outcome} {what}"
