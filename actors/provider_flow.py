"""Leads one call through a ledger and an outside provider, from whatever a crash has left.

Guarantees: the provider is asked for an effect only after PENDING is durable,
and a second time only if the first request is known to be void, or the provider
takes a key that comes twice as one. A caller that has been fenced out never
gets as far as the provider.
Refuses: a definite answer while the provider has given none; then it is PENDING,
or OUTCOME_UNKNOWN if there will never be one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from raysaga.actors.provider import (
    Provider,
    ProviderAnswer,
    ProviderOperation,
    ProviderStatus,
)
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    Code,
    LedgerStatus,
    Outcome,
    StepCall,
    StepReply,
    reply_to,
)
from raysaga.statemachines.ids import StepKey
from raysaga.storage.effects import CodeKind
from raysaga.storage.ledger import Ledger
from raysaga.storage.ledger_batch import Intent, Prepared, Resolution, not_now
from raysaga.storage.ledger_row import LedgerRow

Commit = Callable[[Prepared], Awaitable[StepReply]]
"""Puts one call to the ledger, and returns its reply when it is durable."""

_log = structlog.get_logger(__name__)

_PENDING = frozenset({LedgerStatus.PENDING})
_UNDOABLE = frozenset({LedgerStatus.APPLIED, LedgerStatus.UNKNOWN})

_NO_ANSWER = ProviderAnswer(ProviderStatus.UNKNOWN)


class ProviderFlow:
    """The way of calls whose effect is an outside provider's."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        codes: Mapping[str, CodeKind],
        now_ms: Callable[[], int],
        clock_skew_ms: int,
    ) -> None:
        self._ledger = ledger
        self._codes = codes
        self._now_ms = now_ms
        self._clock_skew_ms = clock_skew_ms

    async def perform(
        self, call: StepCall, operation: ProviderOperation, commit: Commit
    ) -> StepReply:
        """Return the reply to `call`, durable, whichever verb it has."""
        key = StepKey(call.journal_uuid, call.saga_id, call.step)
        intent = _intent(call, operation)
        # Twice at most: a compensation first settles the action, then undoes it.
        for _ in range(2):
            reply = await commit(Prepared(call, None, intent))
            if not _is_pending(reply):
                return reply
            row = self._ledger.row(key)
            if row is None:
                return reply
            if row.status is not LedgerStatus.PENDING:
                return await self._take_back(call, row, operation, reply, commit)
            found = await self._settle(call, row, operation, reply, commit)
            if isinstance(found, StepReply):
                return found
            settled = await commit(Prepared(call, found, Intent.RESOLVE))
            if call.verb == ACTION:
                return settled
        return await commit(Prepared(call, None, intent))

    async def _settle(
        self,
        call: StepCall,
        row: LedgerRow,
        operation: ProviderOperation,
        reply: StepReply,
        commit: Commit,
    ) -> Resolution | StepReply:
        """Find out what became of a pending action; the reply to give if that is not final."""
        provider = operation.provider
        key = str(row.key)
        if call.verb == ACTION and not reply.duplicate:
            answer = await self._submit(provider, key, operation.submission(call), row.key)
        elif not provider.is_askable:
            return Resolution(LedgerStatus.UNKNOWN)
        elif call.verb == COMPENSATION:
            answer = await _asked(provider.cancel(key))
        else:
            answer = await _asked(provider.ask(key))
        is_action = call.verb == ACTION
        if self._is_void(answer, provider, row.submitted_at_ms, again=is_action):
            if not is_action:
                return Resolution(LedgerStatus.TOMBSTONE)
            if reply.duplicate:
                again = await commit(Prepared(call, None, Intent.MARK_AGAIN))
                if not _is_pending(again) or again.duplicate:
                    return again
                answer = await self._submit(provider, key, operation.submission(call), row.key)
        final = self._resolution(answer, provider)
        if final is not None:
            return final
        return reply if call.verb == QUESTION else not_now(call, Code.PENDING, _sentence(answer))

    async def _take_back(
        self,
        call: StepCall,
        row: LedgerRow,
        operation: ProviderOperation,
        reply: StepReply,
        commit: Commit,
    ) -> StepReply:
        """Have the provider take an effect back, under a key of the undo's own."""
        assert call.verb == COMPENSATION and operation.reversal is not None
        provider = operation.provider
        key = f"{row.key}/undo"
        request = operation.reversal(call, row.answer)
        if not reply.duplicate:
            answer = await self._submit(provider, key, request, row.key, undo=True)
        elif not provider.is_askable:
            return not_now(
                call, Code.OUTCOME_UNKNOWN, "the undo was sent once and cannot be asked for"
            )
        else:
            answer = await _asked(provider.ask(key))
            is_refused = answer.status is ProviderStatus.REFUSED
            if is_refused or self._is_void(answer, provider, row.undo_submitted_at_ms, again=True):
                again = await commit(Prepared(call, None, Intent.MARK_AGAIN))
                if not _is_pending(again):
                    return again
                answer = await self._submit(provider, key, request, row.key, undo=True)
        if answer.status is ProviderStatus.SUCCEEDED:
            return await commit(Prepared(call, answer.result))
        if self._is_refusal(answer):
            return reply_to(call, Outcome.REFUSED, code=answer.code, message=answer.message)
        return not_now(call, Code.PENDING, _sentence(answer))

    async def _submit(
        self,
        provider: Provider,
        key: str,
        request: Mapping[str, Any],
        row_key: StepKey,
        *,
        undo: bool = False,
    ) -> ProviderAnswer:
        """Send a request that was marked just before, and must not act after its horizon."""
        row = self._ledger.row(row_key)
        if row is None or row.status not in (_UNDOABLE if undo else _PENDING):
            # Another incarnation has settled it while we were paused.
            return _NO_ANSWER
        marked_at_ms = row.undo_submitted_at_ms if undo else row.submitted_at_ms
        not_after_ms = marked_at_ms + provider.horizon_ms
        if provider.is_askable and self._now_ms() > not_after_ms:
            # Paused for so long that somebody else may have given the request up.
            return _NO_ANSWER
        return await _asked(provider.submit(key, request, not_after_ms))

    def _resolution(self, answer: ProviderAnswer, provider: Provider) -> Resolution | None:
        """Return what a final answer makes of the row; None if it is not final."""
        match answer.status:
            case ProviderStatus.SUCCEEDED:
                return Resolution(LedgerStatus.APPLIED, answer.result)
            case ProviderStatus.CANCELLED:
                return Resolution(LedgerStatus.TOMBSTONE)
            case ProviderStatus.REFUSED if self._is_refusal(answer):
                return Resolution(LedgerStatus.REFUSED, None, answer.code, answer.message)
            case ProviderStatus.REFUSED if self._is_retryable(answer):
                return Resolution(LedgerStatus.NOTHING, None, answer.code, answer.message)
            case _:
                return None if provider.is_askable else Resolution(LedgerStatus.UNKNOWN)

    def _is_refusal(self, answer: ProviderAnswer) -> bool:
        kind = self._codes.get(answer.code, CodeKind.REFUSAL)
        return answer.status is ProviderStatus.REFUSED and kind is CodeKind.REFUSAL

    def _is_void(
        self, answer: ProviderAnswer, provider: Provider, submitted_at_ms: int, *, again: bool
    ) -> bool:
        """Whether what was submitted has not acted, and never will; or, `again`, may be repeated.

        A provider for which twice is once can be sent at once what it has not found; but
        that it has not found it does not mean that it never will.
        """
        if answer.status is ProviderStatus.NOT_FOUND:
            age_ms = self._now_ms() - submitted_at_ms
            is_gone = age_ms > provider.horizon_ms + self._clock_skew_ms
            return is_gone or (again and provider.is_idempotent)
        return self._is_retryable(answer)

    def _is_retryable(self, answer: ProviderAnswer) -> bool:
        """Whether it says "nothing happened, try again", by the participant's declaration."""
        kind = self._codes.get(answer.code)
        return answer.status is ProviderStatus.REFUSED and kind is CodeKind.RETRYABLE


def _intent(call: StepCall, operation: ProviderOperation) -> Intent:
    if call.verb == ACTION or (call.verb == COMPENSATION and operation.reversal is not None):
        return Intent.MARK
    return Intent.PERFORM


def _is_pending(reply: StepReply) -> bool:
    if reply.verb == QUESTION and reply.result is not None:
        return bool(reply.result["status"] == LedgerStatus.PENDING.value)
    return reply.outcome == Outcome.UNKNOWN and reply.code == Code.PENDING


def _sentence(answer: ProviderAnswer) -> str:
    if answer.message:
        return f"the provider has not decided yet: {answer.code} {answer.message}"
    return f"the provider has not decided yet; it says {answer.status.value}"


async def _asked(asking: Awaitable[ProviderAnswer]) -> ProviderAnswer:
    try:
        return await asking
    except Exception as error:  # noqa: BLE001 - whatever went wrong, nothing is known
        _log.warning("provider_failed", error=repr(error))
        return _NO_ANSWER
