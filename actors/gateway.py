"""What `api` talks to: one caller's lanes to the shards of an engine.

A request whose exchange was lost is sent again when that is safe: a submission
and a question are, being idempotent; an operator's order is not, and fails with
`EngineUnavailableError`, so that a person can look before repeating it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.clock import SystemClock
from raysaga.actors.errors import (
    CancelTooLateError,
    EngineUnavailableError,
    IdempotencyConflictError,
    OperatorRefusedError,
    OverloadedError,
    SagaNotFoundError,
)
from raysaga.actors.lane import Lane
from raysaga.actors.placement import shard_of
from raysaga.actors.settings import EngineSettings
from raysaga.actors.shells.cluster import Engine, open_engine
from raysaga.actors.shells.plan import EnginePlan
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import DefinitionError, SagaError, ValidationError
from raysaga.statemachines.ids import SagaId, is_key, saga_id_of
from raysaga.storage.errors import RecordCorruptError, StorageFullError

__all__ = ["Engine", "EnginePlan", "EngineSettings", "Gateway", "Submission", "fingerprint_of"]

RESENT = frozenset({"submit", "watch", "status", "history", "list", "define", "stats"})
"""Operations that may be asked twice."""

INPUT_BYTES_MAX = 256 * 1024
"""Largest input of a saga, as JSON; an order of 500 lines takes a tenth of it."""

_ERRORS: Mapping[str, type[SagaError]] = {
    cls.code: cls
    for cls in (
        ValidationError,
        DefinitionError,
        IdempotencyConflictError,
        OverloadedError,
        SagaNotFoundError,
        CancelTooLateError,
        OperatorRefusedError,
        StorageFullError,
        RecordCorruptError,
        EngineUnavailableError,
    )
}


class _Pending:
    __slots__ = ("body", "ended", "operation", "reply")

    def __init__(self, operation: str, body: Any, watched: bool) -> None:
        loop = asyncio.get_running_loop()
        self.operation = operation
        self.body = body
        self.reply: asyncio.Future[Any] = loop.create_future()
        self.ended: asyncio.Future[dict[str, Any]] | None = (
            loop.create_future() if watched else None
        )


class _ShardLane:
    """One caller's requests to one shard."""

    def __init__(self, gateway: Gateway, shard: int) -> None:
        self._pending: dict[int, _Pending] = {}
        self._next_id = 0
        self.known_definitions: set[str] = set()
        self._lane = Lane(
            sender=gateway.name,
            exchange=gateway.engine.wire(shard),
            receive=self._received,
            failed=self._failed,
            defect=self._give_up,
            expects=lambda: bool(self._pending),
            clock=SystemClock(),
            settings=gateway.engine.plan.settings,
            under_way=lambda: len(self._pending),
        )

    def ask(self, operation: str, body: Any, *, watched: bool = False) -> _Pending:
        pending = _Pending(operation, body, watched)
        self._next_id += 1
        self._pending[self._next_id] = pending
        self._lane.put((self._next_id, operation, body))
        return pending

    def _received(self, replies: list[list[Any]]) -> None:
        for request_id, kind, body in replies:
            pending = self._pending.get(request_id)
            if pending is None:
                continue
            if kind == "ended":
                del self._pending[request_id]
                if not pending.reply.done():
                    pending.reply.set_result("already")
                if pending.ended is not None and not pending.ended.done():
                    pending.ended.set_result(body)
            elif kind == "ok":
                if not pending.reply.done():
                    pending.reply.set_result(body)
                if pending.ended is None:
                    del self._pending[request_id]
            else:
                del self._pending[request_id]
                self._fail(pending, _error_of(body))

    def _fail(self, pending: _Pending, error: SagaError) -> None:
        for future in (pending.reply, pending.ended):
            if future is not None and not future.done():
                future.set_exception(error)
                # Whoever gave up waiting does not fetch it.
                future.exception()

    def _failed(self, error: BaseException) -> None:
        """Ask again what may be asked again; the answers may have been in the lost exchange."""
        self._lane.drop_queued()
        for request_id, pending in list(self._pending.items()):
            if pending.operation in RESENT:
                if pending.reply.done() and pending.operation == "submit":
                    pending.operation, pending.body = "watch", {"saga_id": pending.body[0]}
                self._lane.put((request_id, pending.operation, pending.body))
            else:
                del self._pending[request_id]
                self._fail(pending, EngineUnavailableError(type(error).__name__))

    def _give_up(self, error: BaseException) -> None:
        """Fail everybody who waits: an answer that cannot be read may have been theirs."""
        for pending in self._pending.values():
            self._fail(pending, EngineUnavailableError(f"unreadable answer: {error!r}"))
        self._pending.clear()

    def forget(self, pending: _Pending) -> None:
        """Stop asking for what nobody waits for any more."""
        for request_id, other in list(self._pending.items()):
            if other is pending:
                del self._pending[request_id]

    async def close(self) -> None:
        await self._lane.close()
        for pending in self._pending.values():
            self._fail(pending, EngineUnavailableError("closed"))
        self._pending.clear()


def _error_of(body: Any) -> SagaError:
    code, facts = body
    cls = _ERRORS.get(code)
    if cls is None:
        return ValidationError(f"{code}: {facts}")
    return cls(*facts)


class Submission:
    """A submitted saga: its id, whether it is new, and its end."""

    __slots__ = ("_lane", "_pending", "is_new", "saga_id")

    def __init__(self, saga_id: SagaId, lane: _ShardLane, pending: _Pending) -> None:
        self.saga_id = saga_id
        self.is_new = pending.reply.result() == "accepted"
        self._lane = lane
        self._pending = pending

    async def ended(self, timeout_ms: int | None) -> dict[str, Any] | None:
        """Return the outcome, None if it has not ended in that time."""
        assert self._pending.ended is not None
        return await _within(self._pending.ended, timeout_ms)


async def _within(
    ended: asyncio.Future[dict[str, Any]], timeout_ms: int | None
) -> dict[str, Any] | None:
    """Return the outcome, None if there is none in that time; others may wait for the same."""
    if timeout_ms is not None:
        await asyncio.wait({ended}, timeout=timeout_ms / 1_000)
        return ended.result() if ended.done() else None
    # For ever, which is what most callers want, is three times cheaper so.
    return await asyncio.shield(ended)


class Gateway:
    """One caller of one engine; belongs to one event loop."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._lanes: dict[int, _ShardLane] = {}

    @classmethod
    async def open(
        cls,
        *,
        folder: Path,
        address: str | None = None,
        shard_count: int | None = None,
        settings: EngineSettings | None = None,
        participants: Mapping[str, str],
        services: Mapping[str, Any],
        usual_participants: Mapping[str, str],
        usual_services: Mapping[str, Any],
    ) -> Gateway:
        """Return a gateway to the engine of `folder`, which is started if it does not run.

        Raises:
            DataFolderError: If the folder cannot be used.
            EngineUnavailableError: If Ray or the engine does not start.
        """
        engine = await open_engine(
            folder=folder,
            address=address,
            shard_count=shard_count,
            settings=settings or EngineSettings(),
            participants=participants,
            services=services,
            usual_participants=usual_participants,
            usual_services=usual_services,
        )
        return cls(engine)

    async def close(self) -> None:
        """Stop asking; and stop the engine, if it was started for this caller."""
        for lane in self._lanes.values():
            await lane.close()
        await self.engine.close()

    async def stop_engine(self) -> None:
        """End the engine for every caller; what is under way goes on when it is next opened."""
        for lane in self._lanes.values():
            await lane.close()
        self._lanes.clear()
        await self.engine.stop()

    def _lane(self, shard: int) -> _ShardLane:
        found = self._lanes.get(shard)
        if found is None:
            found = self._lanes[shard] = _ShardLane(self, shard)
        return found

    def _lane_of(self, saga_id: SagaId) -> _ShardLane:
        return self._lane(shard_of(saga_id, self.engine.plan.shard_count))

    async def submit(
        self,
        definition: SagaDefinition,
        saga_input: Mapping[str, Any],
        *,
        key: str,
        deadline_ms: int | None = None,
        dedicated: bool = False,
        watch: bool = True,
    ) -> Submission:
        """Return once the saga is on disk; a repeat with the same body gives the same saga.

        Raises:
            ValidationError: If the key or the input is no such thing.
            IdempotencyConflictError: If the key is in use for another body.
            OverloadedError: If no more are admitted for now.
            StorageFullError: If the journal has no room for new sagas.
        """
        if not is_key(key):
            raise ValidationError("must match [A-Za-z0-9._:-]{1,100}", "key")
        definition.check_input(saga_input)
        saga_id = saga_id_of(definition.name, key)
        fingerprint = fingerprint_of(definition, saga_input)
        lane = self._lane_of(saga_id)
        if definition.content_hash not in lane.known_definitions:
            await lane.ask("define", definition.to_data()).reply
            lane.known_definitions.add(definition.content_hash)
        body = [
            saga_id,
            definition.content_hash,
            key,
            fingerprint,
            saga_input,
            deadline_ms,
            dedicated,
            watch,
        ]
        pending = lane.ask("submit", body, watched=watch)
        await pending.reply
        return Submission(saga_id, lane, pending)

    async def outcome(self, saga_id: SagaId, timeout_ms: int | None) -> dict[str, Any] | None:
        """Return the outcome of a saga, None if it has not ended in that time.

        Raises:
            SagaNotFoundError: If there is none.
        """
        lane = self._lane_of(saga_id)
        pending = lane.ask("watch", {"saga_id": saga_id}, watched=True)
        assert pending.ended is not None
        outcome = await _within(pending.ended, timeout_ms)
        if outcome is None:
            lane.forget(pending)
        return outcome

    async def ask(self, saga_id: SagaId, operation: str, **body: Any) -> Any:
        """Ask the saga's shard something about it, or give it an order.

        Raises:
            SagaNotFoundError: If there is none.
            CancelTooLateError: For `cancel` and `force`.
            OperatorRefusedError: If an order does not fit.
            EngineUnavailableError: If an order may or may not have arrived.
        """
        body["saga_id"] = saga_id
        return await self._lane_of(saga_id).ask(operation, body).reply

    async def ask_all(self, operation: str, **body: Any) -> list[Any]:
        """Ask every shard the same; return the answers in the order of the shards."""
        shards = range(self.engine.plan.shard_count)
        asked = [self._lane(i).ask(operation, body).reply for i in shards]
        return list(await asyncio.gather(*asked))


_canonical = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode


def fingerprint_of(definition: SagaDefinition, saga_input: Mapping[str, Any]) -> str:
    """Return a hash of what was asked for; a repeat has the same, another body another.

    Raises:
        ValidationError: If the input is not plain data, or too large.
    """
    try:
        text = _canonical(saga_input)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(f"must be plain data ({error})", "input") from error
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) > INPUT_BYTES_MAX:
        raise ValidationError(f"must not exceed {INPUT_BYTES_MAX} bytes as JSON", "input")
    return hashlib.blake2b(
        encoded, digest_size=16, person=definition.name.encode()[:16]
    ).hexdigest()
