"""The shapes of what goes out, for the OpenAPI document; answers are not checked by them.

The tests check that each answer is of the shape that is told here.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, TypeAdapter

from raysaga.api.http.problems import PROBLEM_TYPE, Problem
from raysaga.statemachines.tables import Phase, StepStatus

_CONTENT = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request cannot be served as it is.", "content": _CONTENT},
    "5XX": {"description": "The server or the engine cannot serve it now.", "content": _CONTENT},
}
"""What every route can answer beside what it is for."""


def body_of(shape: Any) -> dict[str, Any]:
    """Return what tells that a route takes `shape` as JSON; its own code reads it."""
    schema = TypeAdapter(shape).json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        schema = {"$ref": f"#/components/schemas/{shape.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


class Submitted(BaseModel):
    """A saga that is on disk and under way."""

    saga_id: str
    is_new: bool = Field(description="False if the key had been used for the same before.")
    status_url: str


class Ended(BaseModel):
    """How a saga ended, or why it waits for a person."""

    saga_id: str
    is_new: bool
    status: str = Field(description="`completed`, `compensated` or `parked`.")
    code: str = Field(description="Why it was undone or parked; else empty.")
    message: str
    step: str
    results: dict[str, Any]
    remaining: list[str] = Field(description="Steps whose effect stands all the same.")


class StepStatusTold(BaseModel):
    """Where one step stands."""

    name: str
    kind: str
    participant: str
    status: StepStatus
    attempts: int
    undo_attempts: int


class SagaStatus(BaseModel):
    """Where a saga stands."""

    saga_id: str
    phase: Phase
    code: str
    message: str
    step: str
    steps: list[StepStatusTold]
    ways_on: list[str] = Field(description="Orders that an operator could give now.")
    flaw: str = Field(description="Why its history cannot be read; else empty.")
    pruned: bool = Field(description="Whether only its key is remembered.")
    trace_id: str = Field(description="Of its trace, if traces are sent: 32 hexadecimal digits.")
    definition: str | None = None
    accepted_at_ms: int | None = None
    changed_at_ms: int | None = None
    due_at_ms: int | None = None
    deadline_at_ms: int | None = None
    remaining: list[str] | None = None


class SagaRow(BaseModel):
    """A saga in a list."""

    saga_id: str
    phase: Phase
    reason: str
    step: str
    accepted_at_ms: int
    changed_at_ms: int
    definition: str
    due_at_ms: int | None
    scope: str


class SagaPage(BaseModel):
    """A page of a list."""

    sagas: list[SagaRow]
    looked_count: int = Field(description="How many sagas were looked at for this page.")
    cursor: str | None = Field(description="Give it back for the next page; null at the end.")


class Rows(BaseModel):
    """A list of rows, whose names depend on what they tell."""

    rows: list[dict[str, Any]]


class OrderGiven(BaseModel):
    """An operator's order that is on disk."""

    saga_id: str
    order: str
    answer: str


class OperatorNote(BaseModel):
    """Why an order is given, and by whom."""

    note: str = Field("", max_length=1_000)
    by: str = Field(
        "", max_length=100, description="Who, where no tokens are needed; else the token's name."
    )


class EngineTold(BaseModel):
    """The engine: its shards and its participants."""

    running: bool
    shards: list[dict[str, Any]]
    participants: list[dict[str, Any]]


class Health(BaseModel):
    """A short yes."""

    status: str


SHAPES: tuple[Any, ...] = (Problem,)
"""What the document names although no route says that it returns it."""
