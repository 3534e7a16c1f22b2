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
from types import UnionType
from typing import Any, TypeVar, cast

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
    """It has an undo; comes before the pivot."""
    PIVOT = "pivot"
    """It has none, and decides the saga: done, or refused. At most one."""
    RETRIABLE = "retriable"
    """It has none, comes after the pivot, and is tried until it succeeds."""


class CompensationPolicy(StrEnum):
    """Whether earlier compensations still run when one has given up."""

    HALT = "halt"
    """They wait for the operator, so that the order of undoing is kept."""
    CONTINUE = "continue"
    """They run all the same, while the one that gave up waits for the operator."""


class Durability(StrEnum):
    """What is on disk before the next call leaves."""

    STRICT = "strict"
    """Every result."""
    PIPELINED = "pipelined"
    """What rules forced by counterexamples ask for: two flushes for a saga whose steps can all
    be undone, three otherwise."""
    RELAXED = "relaxed"
    """Not even the birth, so a crash may lose sagas accepted within the last moments; the
    point of no return, the turn to compensation and results that another step uses are still
    waited for, and an end is told when it is on disk."""


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

    def __post_init__(self) -> None:
        # Copied, so that what the caller does to its own afterwards changes no definition.
        after: object = self.after
        if isinstance(after, list):
            object.__setattr__(self, "after", tuple(after))
        if isinstance(self.request, Mapping):
            object.__setattr__(self, "request", dict(self.request))
        object.__setattr__(self, "kind", _member(StepKind, self.kind))

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


_Path = tuple[str, int | None, tuple[str, ...]]
"""Field of a request, the step whose result it comes from (None: the input), keys to walk."""


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
        content_hash: 32 hexadecimal digits; two definitions with the same say the same.

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
    paths: tuple[tuple[_Path, ...], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "steps", tuple(self.steps))
        put(self, "durability", _member(Durability, self.durability))
        put(self, "compensation_policy", _member(CompensationPolicy, self.compensation_policy))
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
        put(self, "paths", tuple(_paths(self, step) for step in self.steps))
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

        What is left out takes its default, as in the constructor.

        Raises:
            DefinitionError: If the data is no definition, or breaks a rule.
        """
        name = str(data.get("name", "?")) if isinstance(data, Mapping) else "?"
        try:
            steps = tuple(_step_from_data(step) for step in data["steps"])
            return cls(**{**data, "steps": steps})
        except (KeyError, TypeError, ValueError) as error:
            raise DefinitionError(name, None, f"cannot be read: {error}") from error

    def check_input(self, saga_input: object) -> None:
        """Refuse an input that some step's request could not be built from.

        Raises:
            ValidationError: If it is no mapping, or a path leads nowhere.
        """
        if not isinstance(saga_input, Mapping):
            raise ValidationError("must be a mapping", "input")
        for step, paths in zip(self.steps, self.paths, strict=True):
            for _, source, parts in paths:
                if source is None and _walk(saga_input, parts, _MISSING) is _MISSING:
                    path = ".".join(("input", *parts))
                    raise ValidationError(f"is missing; step {step.name!r} needs it", path)

    def request_of(
        self,
        step: int,
        saga_input: Mapping[str, Any],
        results: Sequence[Mapping[str, Any] | None] | Mapping[int, Mapping[str, Any] | None],
    ) -> Mapping[str, Any]:
        """Return the request of a step: a pure function of the input and declared results.

        `results` need hold only the steps that `uses` lists, by index.
        A path into a result that leads nowhere gives None: what a participant
        leaves out cannot stop a saga half way.
        """
        paths = self.steps[step].request
        if paths is None:
            return saga_input
        request: dict[str, Any] = {}
        for name, source, parts in self.paths[step]:
            value: Any = saga_input if source is None else results[source]
            request[name] = _walk(value, parts, None)
        return request


_MISSING = object()

_Choice = TypeVar("_Choice", bound=StrEnum)


def _member(choices: type[_Choice], given: _Choice | str) -> _Choice:
    """Return the member that `given` is or spells; what is neither is refused later, by name.

    Rules compare members by identity, so a plain `"strict"` must not stay a text.
    """
    try:
        return choices(given)
    except ValueError:
        return cast(_Choice, given)


def _walk(value: Any, parts: Sequence[str], otherwise: Any) -> Any:
    """Return what the path leads to from `value`, or `otherwise`."""
    for part in parts:
        # What has been in a message is a dictionary; to ask for a mapping takes ten times as long.
        if not (type(value) is dict or isinstance(value, Mapping)) or part not in value:
            return otherwise
        value = value[part]
    return value


def _step_to_data(step: Step) -> dict[str, Any]:
    data = asdict(step)
    data["kind"] = step.kind.value
    data["after"] = None if step.after is None else list(step.after)
    data["request"] = None if step.request is None else dict(step.request)
    return data


def _step_from_data(data: Mapping[str, Any]) -> Step:
    policies = {
        name: RetryPolicy(**data[name])
        for name in ("retry", "compensation_retry")
        if name in data and data[name] is not None
    }
    return Step(**{**data, **policies})


def _check_parts(definition: SagaDefinition) -> None:
    """Check each field for itself; the graph comes later."""

    def refuse(step: str | None, message: str) -> DefinitionError:
        return DefinitionError(str(definition.name), step, message)

    if not _is_name(definition.name) or ":" in definition.name:
        # A colon ends the definition's name in a saga's id.
        raise refuse(None, "the name must match [A-Za-z0-9._-]{1,100}")
    if not _is_count(definition.version):
        raise refuse(None, "version must be a whole number of at least 1")
    if not 1 <= len(definition.steps) <= STEPS_MAX:
        raise refuse(None, f"there must be 1 to {STEPS_MAX} steps")
    if definition.deadline_ms is not None and not _is_count(definition.deadline_ms):
        raise refuse(None, "deadline_ms must be a whole number of at least 1")
    if not _is(definition.compensation_policy, CompensationPolicy):
        raise refuse(None, f"compensation_policy must be {_spell(CompensationPolicy)}")
    if not _is(definition.durability, Durability):
        raise refuse(None, f"durability must be {_spell(Durability)}")
    seen: set[str] = set()
    for step in definition.steps:
        if not _is(step, Step):
            raise refuse(str(step), "it is no Step")
        if not _is_name(step.name) or "." in step.name:
            raise refuse(str(step.name), "the name must match [A-Za-z0-9_:-]{1,100}")
        if step.name in seen:
            raise refuse(step.name, "the name is used twice")
        seen.add(step.name)
        flaw = _flaw_of_step(step) or _flaw_of_kind(step)
        if flaw is not None:
            raise refuse(step.name, flaw)


def _is(value: object, kind: type | UnionType) -> bool:
    """Return whether a field holds what its annotation says; data from elsewhere may not."""
    return isinstance(value, kind)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and is_key(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _spell(choices: type[StrEnum]) -> str:
    return " or ".join(repr(choice.value) for choice in choices)


def _flaw_of_step(step: Step) -> str | None:
    """Return what is wrong with the fields of a step, each for itself."""
    if not _is_name(step.participant) or not _is_name(step.action):
        return "participant and action must match [A-Za-z0-9._:-]{1,100}"
    if step.compensation is not None and not _is_name(step.compensation):
        return "compensation must match [A-Za-z0-9._:-]{1,100}"
    if not _is(step.kind, StepKind):
        return f"kind must be {_spell(StepKind)}"
    if not _is(step.best_effort, bool):
        return "best_effort must be true or false"
    if step.after is not None and not (
        _is(step.after, tuple) and all(_is(name, str) for name in step.after)
    ):
        return "after must be a tuple of names of steps"
    if step.request is not None and not (
        _is(step.request, dict)
        and all(_is(part, str) for item in step.request.items() for part in item)
    ):
        return "request must map names of fields to paths"
    if not _is_count(step.timeout_ms) or step.timeout_ms > TIMEOUT_MS_MAX:
        return f"timeout_ms must be between 1 and {TIMEOUT_MS_MAX}"
    if not _is(step.retry, RetryPolicy | None) or not _is(step.compensation_retry, RetryPolicy):
        return "retry and compensation_retry must be retry policies"
    return step.action_retry.flaw() or step.compensation_retry.flaw()


def _flaw_of_kind(step: Step) -> str | None:
    """Return what does not fit the kind of the step."""
    if step.kind is StepKind.COMPENSATABLE and not step.has_undo:
        return "a compensatable step needs a compensation"
    if step.kind is not StepKind.COMPENSATABLE and step.has_undo:
        return f"a {step.kind.value} step is never undone, so it must not have a compensation"
    if step.kind is StepKind.PIVOT and step.best_effort:
        return "the pivot decides the saga, so it cannot be best effort"
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
        # Going back from a step that is stuck leads into the cycle, not only behind it.
        stuck = next(i for i, count in enumerate(missing) if count)
        met: set[int] = set()
        while stuck not in met:
            met.add(stuck)
            stuck = next(j for j in definition.dependencies[stuck] if missing[j])
        name = definition.steps[stuck].name
        raise DefinitionError(definition.name, name, "it waits for itself, directly or not")
    return tuple(order)


def _ancestors(definition: SagaDefinition) -> list[int]:
    """Return by step the set of all steps before it, as the bits of a number.

    As sets of objects the longest chains would take a hundred megabytes.
    """
    closure = [0] * len(definition.steps)
    for i in definition.topological:
        for j in definition.dependencies[i]:
            closure[i] |= closure[j] | 1 << j
    return closure


def _paths(definition: SagaDefinition, step: Step) -> tuple[_Path, ...]:
    """Return a step's request, taken apart once for all its sagas."""
    taken_apart: list[_Path] = []
    for name, path in (step.request or {}).items():
        root, *parts = path.split(".")
        if root == "input":
            taken_apart.append((name, None, tuple(parts)))
        else:
            taken_apart.append((name, definition.index[parts[0]], tuple(parts[1:])))
    return tuple(taken_apart)


def _uses(definition: SagaDefinition, i: int, ancestors: int) -> tuple[int, ...]:
    """Return the steps whose results the request of step `i` declares."""
    step = definition.steps[i]
    used: set[int] = set()
    for name, path in (step.request or {}).items():
        parts = path.split(".")
        if parts[0] == "input" and len(parts) >= 2 and all(parts):
            continue
        if parts[0] != "results" or len(parts) < 3 or not all(parts):
            raise DefinitionError(
                definition.name,
                step.name,
                f"request field {name!r}: {path!r} is neither input.… nor results.STEP.…",
            )
        source = definition.index.get(parts[1])
        if source is None or not ancestors >> source & 1:
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


def _check_shape(definition: SagaDefinition, ancestors: Sequence[int]) -> None:
    """Check compensatable* - pivot - retriable* on every path.

    Two pivots on two branches, one done and one refused, would leave no end to
    go to; so would a step without an undo beside a step that can still refuse.
    """
    steps = definition.steps
    pivots = [i for i, step in enumerate(steps) if step.kind is StepKind.PIVOT]
    if len(pivots) > 1:
        raise DefinitionError(definition.name, steps[pivots[1]].name, "there is a pivot already")
    undoable = sum(1 << i for i, step in enumerate(steps) if step.has_undo)
    for i, step in enumerate(steps):
        if step.has_undo:
            continue
        late = undoable & ~ancestors[i]
        if late:
            name = steps[(late & -late).bit_length() - 1].name
            raise DefinitionError(
                definition.name,
                step.name,
                f"it cannot be undone, so it must come after {name!r}, which may still turn back",
            )
        if pivots and i != pivots[0] and not ancestors[i] >> pivots[0] & 1:
            raise DefinitionError(
                definition.name, step.name, "it cannot be undone, so it must come after the pivot"
            )
