"""Moves terminal sagas towards oblivion in an LMDB journal: released, pruned, forgotten.

Guarantees: a pruned saga leaves its id, fingerprint and outcome behind, which
answer a repeat of its submission until the key is forgotten too.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysaga.statemachines.ids import SagaId
from raysaga.storage import journal_rows as rows
from raysaga.storage.journal_rows import NUMBER, TIME_AND_NUMBER
from raysaga.storage.lmdb_environment import WriteTransaction
from raysaga.storage.lmdb_lookup import birth_at, number_of, records_back_from, state_at


def move_to_released(txn: WriteTransaction, saga_ids: Sequence[SagaId]) -> None:
    """List terminal sagas as released; others and unknown ones are passed over."""
    for saga_id in saga_ids:
        number = number_of(txn, saga_id)
        if number is None:
            continue
        state = state_at(txn, number, saga_id)
        key = TIME_AND_NUMBER.pack(state.changed_at_ms, number)
        if txn.delete(rows.UNRELEASED, key):
            txn.put(rows.RELEASED, key, b"")


def prune(
    txn: WriteTransaction, released_keys: Sequence[bytes], keep_from: int | None = None
) -> int:
    """Delete everything but the key records of the sagas with these keys in `released`.

    Returns how many; those with a record at the place `keep_from` or later are kept.
    """
    pruned = 0
    if not released_keys:
        return pruned
    counters = rows.unpack_counters(txn.get(rows.META, rows.COUNTERS))
    counts = list(counters.counts)
    for released_key in released_keys:
        number = TIME_AND_NUMBER.unpack(released_key)[1]
        key = NUMBER.pack(number)
        birth = birth_at(txn, number)
        saga_id = birth.saga_id.encode()
        state = state_at(txn, number, birth.saga_id)
        if keep_from is not None and state.place >= keep_from:
            continue
        pruned += 1
        for record_key, _ in list(records_back_from(txn, birth.saga_id, number, state)):
            txn.delete(rows.RECORDS, record_key)
        txn.delete(rows.BIRTHS, key)
        txn.delete(rows.STATES, key)
        txn.delete(rows.RELEASED, released_key)
        txn.put(rows.IDS, saga_id, rows.pack_pruned(saga_id, number, state, birth.fingerprint))
        txn.put(rows.PRUNED, released_key, saga_id)
        counts[state.phase_code - 1] -= 1
    row = rows.pack_counters(counters._replace(counts=tuple(counts)))
    txn.put(rows.META, rows.COUNTERS, row)
    return pruned


def forget_keys(txn: WriteTransaction, pruned: Sequence[tuple[bytes, bytes]]) -> None:
    """Delete the key records of these rows of `pruned`."""
    for key, saga_id in pruned:
        txn.delete(rows.PRUNED, key)
        txn.delete(rows.IDS, saga_id)
