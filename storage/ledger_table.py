"""The table of a ledger: what is stored, what arrives, what is answered.

Everything is decided inside the transaction that will commit the effects,
whatever was looked up before: the row, the epoch of the call's scope, and the
expiry of an action.

Guarantees: one effect for each key and direction; no action after a tombstone
or an undo; an answer marked `stored` is the row's, and the same for ever. A
stored answer is given again even to an action that has expired meanwhile.
Refuses, without storing it: a lower epoch than the scope's highest (FENCED), an
action past its expiry (EXPIRED), a key that comes back with another request
(INVALID_REQUEST), an undo after the saga was settled (RELEASED).
"""

# ruff: noqa: ARG001 - the cells of the table all take the same arguments.
from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    Code,
    LedgerStatus,
    Outcome,
    StepCall,
    StepReply,
    reply_to,
)
from raysaga.storage.effects import Effects, Operation, Refusal
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.ledger_batch import Intent, LedgerBatch, Prepared, Resolution, not_now
from raysaga.storage.ledger_row import (
    EffectKind,
    LedgerRow,
    earlier_fingerprint_of,
    fingerprint_of,
    raw_key,
)

_NUMBER_MAX = 2**62
_SCOPE_BYTES_MAX = 400
_CODE_LENGTH_MAX = 100
_MESSAGE_LENGTH_MAX = 1_000


def answer(batch: LedgerBatch, prepared: Prepared) -> StepReply:
    """Return the reply to one call, and stage in `batch` what it changes."""
    call = prepared.call
    raw = raw_key(call.journal_uuid, call.saga_id, call.step)
    if raw is None or not _is_sane(call):
        return not_now(call, Code.INVALID_REQUEST, "its key, scope or numbers are out of bounds")
    try:
        fenced = batch.fence(call)
        if fenced is not None:
            return fenced
        row = batch.row(raw)
    except RecordCorruptError as error:
        return not_now(call, error.code, str(error))
    if call.verb == ACTION or call.verb == COMPENSATION:
        flaw = _flaw(call, row)
        if flaw is not None:
            return not_now(call, Code.INVALID_REQUEST, flaw)
        if row is not None and (call.expires_at_ms or 0) > row.expires_at_ms:
            # Kept for as long as any copy of an action that was seen could still act.
            row = row._replace(expires_at_ms=call.expires_at_ms or 0)
            batch.store(raw, row)
    if prepared.intent is Intent.RESOLVE:
        return _resolve(batch, prepared, raw, row)
    if row is None:
        return _WITHOUT_ROW[call.verb](batch, prepared, raw)
    return _WITH_ROW[call.verb, row.status](batch, prepared, raw, row)


def _is_sane(call: StepCall) -> bool:
    return (
        0 < len(call.scope) <= _SCOPE_BYTES_MAX
        and call.scope.isascii()
        and 0 < call.epoch < _NUMBER_MAX
        and 0 <= (call.expires_at_ms or 0) < _NUMBER_MAX
        and call.verb in _WITHOUT_ROW
    )


def _flaw(call: StepCall, row: LedgerRow | None) -> str | None:
    """Return what makes an action or a compensation a bug of its caller, or None."""
    if call.verb == ACTION and call.expires_at_ms is None:
        return "an action carries an expiry, or its row could never be forgotten"
    if row is None:
        return None
    request, known = call.request, row.fingerprint
    try:
        is_same = fingerprint_of(request) == known or earlier_fingerprint_of(request) == known
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return f"the request is not plain data: {error}"
    if not is_same:
        return "the key was used with another request"
    is_repeated = call.verb == ACTION and row.status is not LedgerStatus.TOMBSTONE
    if is_repeated and call.operation != row.operation:
        return f"the key was used for the operation {row.operation}"
    return None


# -- nothing under the key -----------------------------------------------------


def _begin(batch: LedgerBatch, prepared: Prepared, raw: bytes) -> StepReply:
    call = prepared.call
    if _is_late(batch, call):
        return not_now(call, Code.EXPIRED, "the action came after its expiry; nothing was done")
    operation = batch.handlers.operations.get(call.operation)
    if operation is None:
        return _no_operation(call)
    try:
        row = batch.new_row(call, LedgerStatus.APPLIED)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return not_now(call, Code.INVALID_REQUEST, f"the request is not plain data: {error}")
    if prepared.intent is not Intent.PERFORM:
        return _mark(batch, call, raw, row)
    return batch.run(
        call,
        partial(_applied, batch, call, raw, row, operation, prepared.context),
        partial(_refused, batch, call, raw, row),
    )


def _applied(
    batch: LedgerBatch,
    call: StepCall,
    raw: bytes,
    row: LedgerRow,
    operation: Operation,
    context: Any,
    effects: Effects,
) -> StepReply:
    given = operation.apply(effects, call, context)
    summary = given if operation.summary is None else operation.summary(call, given)
    batch.store_effect(raw, row._replace(answer=given), call, EffectKind.ACTION, summary)
    return reply_to(call, Outcome.SUCCEEDED, result=given, stored=True)


def _refused(
    batch: LedgerBatch, call: StepCall, raw: bytes, row: LedgerRow, refusal: Refusal
) -> StepReply:
    code, message = refusal.code[:_CODE_LENGTH_MAX], refusal.message[:_MESSAGE_LENGTH_MAX]
    row = row._replace(status=LedgerStatus.REFUSED, refusal_code=code, refusal_message=message)
    batch.store_effect(raw, row, call, EffectKind.REFUSED, code)
    return reply_to(call, Outcome.REFUSED, code=code, message=message, stored=True)


def _bury(batch: LedgerBatch, prepared: Prepared, raw: bytes) -> StepReply:
    """Store a tombstone, so that the action can never take effect (dtm's empty compensation)."""
    call = prepared.call
    try:
        row = batch.new_row(call, LedgerStatus.TOMBSTONE)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return not_now(call, Code.INVALID_REQUEST, f"the request is not plain data: {error}")
    row = row._replace(undo_answer={})
    batch.store_effect(raw, row, call, EffectKind.TOMBSTONE, None)
    return reply_to(call, Outcome.SUCCEEDED, result={}, stored=True)


def _tell_nothing(batch: LedgerBatch, prepared: Prepared, raw: bytes) -> StepReply:
    told = {"status": LedgerStatus.NOTHING.value, "result": None}
    return reply_to(prepared.call, Outcome.SUCCEEDED, result=told)


def _release_nothing(batch: LedgerBatch, prepared: Prepared, raw: bytes) -> StepReply:
    return reply_to(prepared.call, Outcome.SUCCEEDED, result={})


# -- a row under the key: actions and compensations ----------------------------


def _repeat_answer(batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow) -> StepReply:
    return _repeat(prepared.call, row.answer)


def _repeat_refusal(
    batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow
) -> StepReply:
    return reply_to(
        prepared.call,
        Outcome.REFUSED,
        code=row.refusal_code,
        message=row.refusal_message,
        stored=True,
        duplicate=True,
    )


def _cancelled(batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow) -> StepReply:
    return reply_to(
        prepared.call,
        Outcome.REFUSED,
        code=Code.CANCELLED_BEFORE_START,
        message="the step was undone; its action will never take effect",
        stored=True,
        duplicate=True,
    )


def _undo(batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow) -> StepReply:
    call = prepared.call
    if row.is_released:
        return not_now(call, Code.RELEASED, "the saga is over, and the step was settled")
    operation = batch.handlers.operations.get(row.operation)
    if operation is None or operation.undo is None or operation.undo_name != call.operation:
        return _no_operation(call)
    if prepared.intent in (Intent.MARK, Intent.MARK_AGAIN):
        known = row.undo_submitted_at_ms > 0
        if not known or prepared.intent is Intent.MARK_AGAIN:
            batch.store(raw, row._replace(undo_submitted_at_ms=max(batch.now_ms, 1)))
        return _not_final(call, duplicate=known)

    def refuse(refusal: Refusal) -> StepReply:
        # Not stored: only successful undos are, so that a retry is a retry.
        return reply_to(call, Outcome.REFUSED, code=refusal.code, message=refusal.message)

    return batch.run(call, partial(_undone, batch, prepared, raw, row, operation), refuse)


def _undone(
    batch: LedgerBatch,
    prepared: Prepared,
    raw: bytes,
    row: LedgerRow,
    operation: Operation,
    effects: Effects,
) -> StepReply:
    call = prepared.call
    assert operation.undo is not None
    given = operation.undo(effects, call, row.answer, prepared.context)
    summary = given if operation.summary is None else operation.summary(call, given)
    row = row._replace(
        status=LedgerStatus.UNDONE,
        epoch=call.epoch,
        changed_at_ms=batch.now_ms,
        undo_answer=given,
    )
    batch.store_effect(raw, row, call, EffectKind.COMPENSATION, summary)
    return reply_to(call, Outcome.SUCCEEDED, result=given, stored=True)


def _nothing_to_undo(
    batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow
) -> StepReply:
    return reply_to(prepared.call, Outcome.SUCCEEDED, result={}, stored=True)


def _repeat_undo(batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow) -> StepReply:
    return _repeat(prepared.call, row.undo_answer)


def _repeat(call: StepCall, stored: Mapping[str, Any] | None) -> StepReply:
    return reply_to(call, Outcome.SUCCEEDED, result=stored, stored=True, duplicate=True)


# -- a row under the key: outside providers ------------------------------------


def _mark(batch: LedgerBatch, call: StepCall, raw: bytes, row: LedgerRow) -> StepReply:
    """Note, before it is done, that the provider is about to be asked."""
    row = row._replace(
        status=LedgerStatus.PENDING,
        epoch=call.epoch,
        submitted_at_ms=max(batch.now_ms, 1),
        request=call.request,
    )
    batch.store(raw, row)
    return _not_final(call, duplicate=False)


def _pending(batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow) -> StepReply:
    call = prepared.call
    if prepared.intent is Intent.MARK_AGAIN and call.verb == ACTION:
        if _is_late(batch, call):
            return not_now(call, Code.EXPIRED, "too late to ask the provider again")
        return _mark(batch, call, raw, row)
    return _not_final(call, duplicate=True)


def _not_final(call: StepCall, *, duplicate: bool) -> StepReply:
    what = "the provider has not given a final answer yet"
    return not_now(call, Code.PENDING, what)._replace(duplicate=duplicate)


def _resolve(
    batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow | None
) -> StepReply:
    """Store the final answer to the action, whichever verb has brought it up.

    The reply is the action's; what the call itself asked is asked again afterwards.
    """
    resolution: Resolution = prepared.context
    if row is None:
        return not_now(prepared.call, Code.INVALID_REQUEST, "nothing is pending under the key")
    call = prepared.call._replace(
        verb=ACTION, operation=row.operation, request=row.request or prepared.call.request
    )
    if row.status is not LedgerStatus.PENDING:
        return _WITH_ROW[ACTION, row.status](batch, prepared._replace(call=call), raw, row)
    settled = row._replace(
        status=resolution.status, epoch=call.epoch, changed_at_ms=batch.now_ms, request=None
    )
    match resolution.status:
        case LedgerStatus.APPLIED:
            operation = batch.handlers.operations.get(row.operation)
            if operation is None:
                return _no_operation(call)
            return batch.run(
                call,
                partial(_applied, batch, call, raw, settled, operation, resolution.answer),
                # The provider has acted: a refusal now would be a lie, so it stays pending.
                lambda refusal: not_now(call, Code.INTERNAL_ERROR, f"refused too late: {refusal}"),
            )
        case LedgerStatus.REFUSED:
            refusal = Refusal(resolution.code, resolution.message)
            return _refused(batch, call, raw, settled, refusal)
        case LedgerStatus.TOMBSTONE:
            buried = settled._replace(undo_answer={})
            batch.store_effect(raw, buried, call, EffectKind.TOMBSTONE, None)
            return _cancelled(batch, prepared._replace(call=call), raw, buried)
        case LedgerStatus.NOTHING:
            batch.drop(raw)
            return not_now(call, resolution.code, resolution.message)
        case _:
            assert resolution.status is LedgerStatus.UNKNOWN
            # Told as an effect: an auditor must suppose that it happened.
            batch.store_effect(raw, settled, call, EffectKind.ACTION, Code.OUTCOME_UNKNOWN)
            return _unknown(batch, prepared._replace(call=call), raw, settled)


def _unknown(batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow) -> StepReply:
    what = "nobody can tell whether the provider acted, and it must not act twice"
    reply = not_now(prepared.call, Code.OUTCOME_UNKNOWN, what)
    return reply._replace(stored=True, duplicate=True)


# -- a row under the key: questions and releases -------------------------------


def _tell(batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow) -> StepReply:
    result = row.answer if row.undo_answer is None else row.undo_answer
    if row.status is LedgerStatus.REFUSED:
        result = {"code": row.refusal_code, "message": row.refusal_message}
    told = {"status": row.status.value, "result": result}
    return reply_to(prepared.call, Outcome.SUCCEEDED, result=told, stored=True)


def _release(batch: LedgerBatch, prepared: Prepared, raw: bytes, row: LedgerRow) -> StepReply:
    call = prepared.call
    if row.is_released:
        return _repeat(call, {})

    def settle(effects: Effects) -> StepReply:
        batch.handlers.settle(effects, row, str(call.request.get("outcome", "")))
        released = row._replace(released_at_ms=max(batch.now_ms, 1))
        batch.store(raw, released)
        batch.note_released(raw, released)
        return reply_to(call, Outcome.SUCCEEDED, result={}, stored=True)

    def refuse(refusal: Refusal) -> StepReply:
        return not_now(call, refusal.code, refusal.message)

    return batch.run(call, settle, refuse)


# -- the table -----------------------------------------------------------------


def _is_late(batch: LedgerBatch, call: StepCall) -> bool:
    return call.expires_at_ms is not None and batch.now_ms > call.expires_at_ms


def _no_operation(call: StepCall) -> StepReply:
    return not_now(call, Code.UNKNOWN_OPERATION, f"there is no operation {call.operation} here")


_WITHOUT_ROW: Mapping[int, Callable[[LedgerBatch, Prepared, bytes], StepReply]] = {
    ACTION: _begin,
    COMPENSATION: _bury,
    QUESTION: _tell_nothing,
    RELEASE: _release_nothing,
}

_WITH_ROW: Mapping[
    tuple[int, LedgerStatus], Callable[[LedgerBatch, Prepared, bytes, LedgerRow], StepReply]
] = {
    (ACTION, LedgerStatus.PENDING): _pending,
    (ACTION, LedgerStatus.APPLIED): _repeat_answer,
    (ACTION, LedgerStatus.REFUSED): _repeat_refusal,
    (ACTION, LedgerStatus.TOMBSTONE): _cancelled,
    (ACTION, LedgerStatus.UNDONE): _cancelled,
    (ACTION, LedgerStatus.UNKNOWN): _unknown,
    (COMPENSATION, LedgerStatus.PENDING): _pending,
    (COMPENSATION, LedgerStatus.APPLIED): _undo,
    (COMPENSATION, LedgerStatus.REFUSED): _nothing_to_undo,
    (COMPENSATION, LedgerStatus.TOMBSTONE): _repeat_undo,
    (COMPENSATION, LedgerStatus.UNDONE): _repeat_undo,
    (COMPENSATION, LedgerStatus.UNKNOWN): _undo,
    (QUESTION, LedgerStatus.PENDING): _tell,
    (QUESTION, LedgerStatus.APPLIED): _tell,
    (QUESTION, LedgerStatus.REFUSED): _tell,
    (QUESTION, LedgerStatus.TOMBSTONE): _tell,
    (QUESTION, LedgerStatus.UNDONE): _tell,
    (QUESTION, LedgerStatus.UNKNOWN): _tell,
    (RELEASE, LedgerStatus.PENDING): _pending,
    (RELEASE, LedgerStatus.APPLIED): _release,
    (RELEASE, LedgerStatus.REFUSED): _release,
    (RELEASE, LedgerStatus.TOMBSTONE): _release,
    (RELEASE, LedgerStatus.UNDONE): _release,
    (RELEASE, LedgerStatus.UNKNOWN): _release,
}
