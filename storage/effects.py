"""What a participant's handlers may do inside the transaction, and how they say no.

Guarantees: what a handler puts or deletes is seen by itself and by the calls
after it in the same batch, and becomes durable together with the ledger row of
its call, or not at all; a handler that raises leaves nothing behind.
Refuses: values that msgpack cannot hold, and names of tables not declared.

Handlers run inside a write transaction, which is begun again with a larger map
when it hits the end of the map: they must not wait, must not talk to anybody
outside, and must do the same when they run a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from raysaga.statemachines.calls import StepCall


class CodeKind(StrEnum):
    """What an error code of a participant means for the step."""

    REFUSAL = "refusal"
    """Definite: stored under the key, and answered for ever."""
    RETRYABLE = "retryable"
    """Nothing happened; the same call can succeed later."""
    AMBIGUOUS = "ambiguous"
    """It may have happened; only asking again can tell."""


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """A handler's definite no.

    Of an action it is stored and answered for ever; what the handler had put is
    dropped. Of a compensation it is answered but not stored, so that a retry is
    a retry.

    Attributes:
        code: Stable code, declared in the participant's `codes`.
        message: One sentence for people, without secrets.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class TryLater(Exception):  # noqa: N818 - an answer, not a failure
    """A handler's or a guard's "not now": nothing happened, nothing is stored.

    Attributes:
        code: Stable code; `CONFLICT` makes the server try again by itself first.
        message: One sentence for people.
        retry_after_ms: When it is worth asking again, in milliseconds; 0 says nothing.
    """

    def __init__(self, code: str, message: str, retry_after_ms: int = 0) -> None:
        super().__init__(code, message, retry_after_ms)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class View(Protocol):
    """Reads of a participant's own tables; values are plain data, fresh on every read."""

    def get(self, table: str, key: str) -> Any:
        """Return the value under `key`, or None."""

    def scan(self, table: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield keys that begin with `prefix`, and their values, in the order of the keys."""


class Effects(View, Protocol):
    """Reads and writes of a participant's own tables, inside one call's transaction."""

    @property
    def now_ms(self) -> int:
        """The instant of the transaction, Unix time; the same for all calls of a batch."""

    def put(self, table: str, key: str, value: Any) -> None:
        """Put plain data under `key`; what is done to `value` afterwards is not stored.

        Args:
            table: One of the participant's own.
            key: Of 1 to 500 bytes as UTF-8.
            value: None, numbers, texts, bytes, lists and dictionaries of these. A tuple comes
                back as a list.

        Raises:
            KeyError: If there is no such table.
            TypeError: If it is no plain data.
            ValueError: If the key is empty or too long.
        """

    def delete(self, table: str, key: str) -> None:
        """Delete `key`; one that is not there is no error."""


Apply = Callable[[Effects, StepCall, Any], Mapping[str, Any]]
"""`apply(effects, call, context)` returns the answer to store, or raises."""

Undo = Callable[[Effects, StepCall, Mapping[str, Any] | None, Any], Mapping[str, Any]]
"""`undo(effects, call, applied, context)`; `applied` is the action's stored answer.

It is None for the one case in which nobody will ever know whether the action
took effect (ledger status UNKNOWN): undo what may be there.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One action that a participant offers, and the one that takes it back.

    Attributes:
        apply: Runs once per key, in the transaction that stores its answer.
        undo_name: Name of the compensation, as calls carry it; None if there is none.
        undo: Runs at most once per key with success, and only after `apply` did.
        summary: What the effect log says of an answer; None keeps the whole answer.
    """

    apply: Apply
    undo_name: str | None = None
    undo: Undo | None = None
    summary: Callable[[StepCall, Mapping[str, Any]], Any] | None = None

    def __post_init__(self) -> None:
        assert (self.undo_name is None) == (self.undo is None)
