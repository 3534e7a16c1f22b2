"""Saga definitions: steps, their order and their policies, as data.

A definition is checked when it is made, and refused with an error that names
the step, if some history could leave a saga with no end to go to. It contains
no code: a step's request is described by paths into the saga's input and into
earlier results. So a definition can be stored beside the sagas that use it,
compared by content hash, and drawn.

The kinds of steps are Richardson's (Microservices Patterns, section 4.3); the
shape compensatable* - pivot - retriable* is that of flexible transactions
(Mehrotra, Rastogi, Korth, Silberschatz, 1992).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from raysaga.statemachines.errors import DefinitionError, ValidationError
from raysaga.statemachines.ids import is_key
from raysaga.statemachines.retry import (
    ACTION_RETRY,
    COMPENSATION_RETRY,
    RETRIABLE_RETRY,
    RetryPolicy,
)

STEPS_MAX = 2_000
"""Steps of one definition; keeps one saga's memory and history bounded."""

TIMEOUT_MS_MAX = 24 * 3_600_000
"""Longest wait for one answer; what takes longer should be a step that polls."""


class StepKind(StrEnum):
    """What can become of a step once it has been sent."""

    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


class CompensationPolicy(StrEnum):
    """Whether earlier compensations still run when one has given up."""

    HALT = "halt"
    CONTINUE = "continue"


class Durability(StrEnum):
    """What is on disk before the next call leaves.

    `STRICT`: every result. `PIPELINED`: what rules forced by counterexamples ask
    for, two flushes for a saga whose steps can all be undone. `RELAXED`: the
    caller is answered before anything is on disk, so a crash may lose sagas
    accepted within the last moments; the point of no return and the turn to
    compensation are still waited for.
    """

    STRICT = "strict"
    PIPELINED = "pipelined"
    RELAXED = "relaxed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One local transaction of a saga, and the one that takes it back.

    Attributes:
        name: Unique within the definition.
        participant: Name of the participant that performs it.
        action: Operation to call.
        compensation: Operation that undoes `action` in meaning; None if there is none.
        kind: See `StepKind`.
        after: Names of the steps it waits for; None means the step before it.
        request: Field of the request to path: `input.a.b` or `results.STEP.field`. None
            sends the saga's whole input. The compensation gets the same request.
        retry: Policy of the action; None means the default of its kind.
        compensation_retry: Policy of the compensation.
        timeout_ms: Wait for one answer, in milliseconds.
        best_effort: Whether the saga goes on without it when it is refused or gives up.
    """

    name: str
    participant: str
    action: str
    compensation: str | None = None
    kind: StepKind = StepKind.COMPENSATABLE
    after: tuple[str, ...] | None = None
    request: Mapping[str, str] | None = None
    retry: RetryPolicy | None = None
    compensation_retry: RetryPolicy = COMPENSATION_RETRY
    timeout_ms: int = 5_000
    best_effort: bool = False

    @property
    def has_undo(self) -> bool:
        """Whether the step can be taken back."""
        return self.compensation is not None

    @property
    def action_retry(self) -> RetryPolicy:
        """The policy in force for the action."""
        if self.retry is not None:
            return self.retry
        return ACTION_RETRY if self.kind is StepKind.COMPENSATABLE else RETRIABLE_RETRY


@dataclass(frozen=True, slots=True, kw_only=True)
class SagaDefinition:
    """A checked recipe for a saga.

    Attributes:
        name: First part of the id of each of its sagas.
        version: For people; equality is decided by `content_hash`.
        steps: At least one.
        deadline_ms: Time from acceptance after which a saga that can still turn back does.
        compensation_policy: See `CompensationPolicy`.
        durability: See `Durability`.

    Raises:
        DefinitionError: If a rule is broken; `step` names the step at fault.
    """

    name: str
    steps: tuple[Step, ...]
    version: int = 1
    deadline_ms: int | None = None
    compensation_policy: CompensationPolicy = CompensationPolicy.HALT
    durability: Durability = Durability.PIPELINED

    content_hash: str = field(init=False, compare=False)
    index: Mapping[str, int] = field(init=False, compare=False, repr=False)
    dependencies: tuple[tuple[int, ...], ...] = field(init=False, compare=False, repr=False)
    dependents: tuple[tuple[int, ...], ...] = field(init=False, compare=False, repr=False)
    topological: tuple[int, ...] = field(init=False, compare=False, repr=False)
    uses: tuple[tuple[int, ...], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "steps", tuple(self.steps))
        _check_parts(self)
        put(self, "index", {step.name: i for i, step in enumerate(self.steps)})
        put(self, "dependencies", tuple(_dependencies(self)))
        dependents: list[list[int]] = [[] for _ in self.steps]
        for i, before in enumerate(self.dependencies):
            for j in before:
                dependents[j].append(i)
        put(self, "dependents", tuple(tuple(row) for row in dependents))
        put(self, "topological", _topological(self))
        ancestors = _ancestors(self)
        put(self, "uses", tuple(_uses(self, i, ancestors[i]) for i in range(len(self.steps))))
        _check_shape(self, ancestors)
        canonical = json.dumps(self.to_data(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.blake2b(canonical.encode(), digest_size=16)
        put(self, "content_hash", digest.hexdigest())

    def to_data(self) -> dict[str, Any]:
        """Return the definition as plain dictionaries, lists, strings and numbers."""
        return {
            "name": self.name,
            "version": self.version,
            "deadline_ms": self.deadline_ms,
            "compensation_policy": self.compensation_policy.value,
            "durability": self.durability.value,
            "steps": [_step_to_data(step) for step in self.steps],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> SagaDefinition:
        """Return the definition that `to_data` described, checked again.

        Raises:
            DefinitionError: If the data is no definition, or breaks a rule.
        """
        name = str(data.get("name", "?")) if isinstance(data, Mapping) else "?"
        try:
            return cls(
                name=data["name"],
                version=data["version"],
                deadline_ms=data["deadline_ms"],
                compensation_policy=CompensationPolicy(data["compensation_policy"]),
                durability=Durability(data["durability"]),
                steps=tuple(_step_from_data(step) for step in data["steps"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DefinitionError(name, None, f"cannot be read: {error}") from error

    def check_input(self, saga_input: object) -> None:
        """Refuse an input that some step's request could not be built from.

        Raises:
            ValidationError: If it is no mapping, or a path leads nowhere.
        """
        if not isinstance(saga_input, Mapping):
            raise ValidationError("must be a mapping", "input")
        for step in self.steps:
            for path in (step.request or {}).values():
                parts = path.split(".")
                if parts[0] == "input" and _walk(saga_input, parts[1:]) is _MISSING:
                    raise ValidationError(f"is missing; step {step.name!r} needs it", path)

    def request_of(
        self,
        step: int,
        saga_input: Mapping[str, Any],
        results: Sequence[Mapping[str, Any] | None],
    ) -> Mapping[str, Any]:
        """Return the request of a step: a pure function of the input and declared results.

        A path into a result that leads nowhere gives None: what a participant
        leaves out cannot stop a saga half way.
        """
        paths = self.steps[step].request
        if paths is None:
            return saga_input
        request: dict[str, Any] = {}
        for name, path in paths.items():
            parts = path.split(".")
            if parts[0] == "input":
                value = _walk(saga_input, parts[1:])
            else:
                value = _walk(results[self.index[parts[1]]], parts[2:])
            request[name] = None if value is _MISSING else value
        return request


_MISSING = object()


def _walk(value: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        if not isinstance(value, Mapping) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _step_to_data(step: Step) -> dict[str, Any]:
    data = asdict(step)
    data["kind"] = step.kind.value
    data["after"] = None if step.after is None else list(step.after)
    data["request"] = None if step.request is None else dict(step.request)
    return data


def _step_from_data(data: Mapping[str, Any]) -> Step:
    fields = dict(data)
    fields["kind"] = StepKind(fields["kind"])
    if fields["after"] is not None:
        fields["after"] = tuple(fields["after"])
    if fields["retry"] is not None:
        fields["retry"] = RetryPolicy(**fields["retry"])
    fields["compensation_retry"] = RetryPolicy(**fields["compensation_retry"])
    return Step(**fields)


def _check_parts(definition: SagaDefinition) -> None:
    """Check each field for itself; the graph comes later."""

    def refuse(step: str | None, message: str) -> DefinitionError:
        return DefinitionError(str(definition.name), step, message)

    if not isinstance(definition.name, str) or not is_key(definition.name):
        raise refuse(None, "the name must match [A-Za-z0-9._:-]{1,100}")
    if ":" in definition.name:
        raise refuse(None, "the name must not contain ':', which ends it in a saga id")
    if not 1 <= len(definition.steps) <= STEPS_MAX:
        raise refuse(None, f"there must be 1 to {STEPS_MAX} steps")
    if definition.deadline_ms is not None and definition.deadline_ms < 1:
        raise refuse(None, "deadline_ms must be at least 1")
    seen: set[str] = set()
    for step in definition.steps:
        if not isinstance(step.name, str) or not is_key(step.name) or "." in step.name:
            raise refuse(str(step.name), "the name must match [A-Za-z0-9_:-]{1,100}")
        if step.name in seen:
            raise refuse(step.name, "the name is used twice")
        seen.add(step.name)
        flaw = _flaw_of_step(step)
        if flaw is not None:
            raise refuse(step.name, flaw)


def _flaw_of_step(step: Step) -> str | None:
    if not is_key(step.participant) or not is_key(step.action):
        return "participant and action must match [A-Za-z0-9._:-]{1,100}"
    if step.compensation is not None and not is_key(step.compensation):
        return "compensation must match [A-Za-z0-9._:-]{1,100}"
    if step.kind is StepKind.COMPENSATABLE and not step.has_undo:
        return "a compensatable step needs a compensation"
    if step.kind is not StepKind.COMPENSATABLE and step.has_undo:
        return f"a {step.kind.value} step is never undone, so it must not have a compensation"
    if step.kind is StepKind.PIVOT and step.best_effort:
        return "the pivot decides the saga, so it cannot be best effort"
    if not 1 <= step.timeout_ms <= TIMEOUT_MS_MAX:
        return f"timeout_ms must be between 1 and {TIMEOUT_MS_MAX}"
    for policy in (step.action_retry, step.compensation_retry):
        flaw = policy.flaw()
        if flaw is not None:
            return flaw
    return None


def _dependencies(definition: SagaDefinition) -> list[tuple[int, ...]]:
    rows: list[tuple[int, ...]] = []
    for i, step in enumerate(definition.steps):
        if step.after is None:
            rows.append((i - 1,) if i else ())
            continue
        for name in step.after:
            if name not in definition.index:
                raise DefinitionError(
                    definition.name, step.name, f"it comes after {name!r}, which is no step"
                )
        rows.append(tuple(sorted({definition.index[name] for name in step.after})))
    return rows


def _topological(definition: SagaDefinition) -> tuple[int, ...]:
    missing = [len(row) for row in definition.dependencies]
    ready = [i for i, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        i = ready.pop(0)
        order.append(i)
        for j in definition.dependents[i]:
            missing[j] -= 1
            if missing[j] == 0:
                ready.append(j)
    if len(order) < len(definition.steps):
        stuck = next(i for i, count in enumerate(missing) if count)
        name = definition.steps[stuck].name
        raise DefinitionError(definition.name, name, "it waits for itself, directly or not")
    return tuple(order)


def _ancestors(definition: SagaDefinition) -> list[frozenset[int]]:
    closure: list[frozenset[int]] = [frozenset()] * len(definition.steps)
    for i in definition.topological:
        before = definition.dependencies[i]
        closure[i] = frozenset(before).union(*(closure[j] for j in before))
    return closure


def _uses(definition: SagaDefinition, i: int, ancestors: frozenset[int]) -> tuple[int, ...]:
    """Return the steps whose results the request of step `i` declares."""
    step = definition.steps[i]
    used: set[int] = set()
    for name, path in (step.request or {}).items():
        parts = path.split(".")
        if parts[0] == "input" and len(parts) >= 2:
            continue
        if parts[0] != "results" or len(parts) < 3:
            raise DefinitionError(
                definition.name,
                step.name,
                f"request field {name!r}: {path!r} is neither input.… nor results.STEP.…",
            )
        source = definition.index.get(parts[1])
        if source is None or source not in ancestors:
            raise DefinitionError(
                definition.name,
                step.name,
                f"request field {name!r}: it uses {parts[1]!r}, which does not come before it",
            )
        if definition.steps[source].best_effort:
            raise DefinitionError(
                definition.name,
                step.name,
                f"request field {name!r}: {parts[1]!r} is best effort and may have no result",
            )
        used.add(source)
    return tuple(sorted(used))


def _check_shape(definition: SagaDefinition, ancestors: Sequence[frozenset[int]]) -> None:
    """Check compensatable* - pivot - retriable* on every path.

    Two pivots on two branches, one done and one refused, would leave no end to
    go to; so would a step without an undo beside a step that can still refuse.
    """
    steps = definition.steps
    pivots = [i for i, step in enumerate(steps) if step.kind is StepKind.PIVOT]
    if len(pivots) > 1:
        raise DefinitionError(definition.name, steps[pivots[1]].name, "there is a pivot already")
    undoable = frozenset(i for i, step in enumerate(steps) if step.has_undo)
    for i, step in enumerate(steps):
        if i in undoable:
            continue
        if not undoable <= ancestors[i]:
            late = steps[min(undoable - ancestors[i])].name
            raise DefinitionError(
                definition.name,
                step.name,
                f"it cannot be undone, so it must come after {late!r}, which may still turn back",
            )
        if pivots and i != pivots[0] and pivots[0] not in ancestors[i]:
            raise DefinitionError(
                definition.name, step.name, "it cannot be undone, so it must come after the pivot"
            )
