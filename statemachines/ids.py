"""Names and numbers that identify things, each with a type of its own."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple, NewType

SagaId = NewType("SagaId", str)
"""`definition:key`; a function of the caller's key, so a repeated request names the same saga."""

Scope = NewType("Scope", str)
"""What an epoch fences: `journal uuid/shard-N`, or `journal uuid/saga id` when dedicated."""

Epoch = NewType("Epoch", int)
"""Fencing token: grows by one with each owner of a scope. Starts at 1."""

KEY_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,100}")
"""What a client key, an id or a name may be made of; no control characters, no separators."""


class Direction(StrEnum):
    """Which of a step's two calls is meant."""

    ACTION = "action"
    COMPENSATION = "compensation"


class StepKey(NamedTuple):
    """Names one step of one saga of one journal, for ever and on every attempt.

    With a direction it is the idempotency key of a call. The journal's uuid is
    part of it: a fresh data folder starts again at epoch 1, and must neither be
    fenced by the rows of an older one nor answered from them.
    """

    journal_uuid: str
    saga_id: str
    step: str

    def __str__(self) -> str:
        return f"{self.journal_uuid}/{self.saga_id}/{self.step}"


def is_key(text: str) -> bool:
    """Return whether `text` can be a client key or the name of something."""
    return KEY_PATTERN.fullmatch(text) is not None


def saga_id_of(definition: str, key: str) -> SagaId:
    """Return the id of the saga that `key` names under `definition`."""
    assert is_key(definition)
    assert is_key(key)
    return SagaId(f"{definition}:{key}")
