"""Puts together what the checker believes of a run on real processes, when all is over.

From the callers' diaries, from what the participants noted of the calls that reached them, and
from the disks: effect logs, journals, the services' own tables. Nothing is asked of an engine;
none runs any more.

Guarantees: a call is in the history no earlier than it left its host, and an effect no later
than its transaction began, so that a story told in reverse is one.
Costs: a kilobyte of memory for a saga, and about a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from raysaga.actors.archive import Archive
from raysaga.actors.archive_checks import audit_folder, verify_folder
from raysaga.actors.placement import shard_of
from raysaga.actors.services.audit import AuditReport
from raysaga.simulation.chaos.diary import read_diaries, read_lines
from raysaga.simulation.chaos.fault import Blow
from raysaga.simulation.chaos.orders import CANARY, DEFINITIONS, SERVICES
from raysaga.simulation.chaos.readings import read_readings
from raysaga.simulation.history import (
    EFFECT_ACTION,
    Committed,
    Effect,
    Granted,
    Line,
    Observation,
    Replied,
    Sent,
    Told,
    Trouble,
)
from raysaga.statemachines.ids import SagaId
from raysaga.storage.codec import decode_record
from raysaga.storage.data_folder import DataFolder
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.journal import Head, HeadFilter, Journal
from raysaga.storage.ledger_reader import LedgerReader

PAGE_SAGAS = 1_000

_RANKS = {Granted: 0, Committed: 1, Effect: 3, Sent: 4, Replied: 5}
"""Order of lines of one millisecond: causes first."""

_DEFECTS = ("saga_unreadable", "call_failed")
"""Events of the log that tell of a bug, and not of trouble on the way."""


class Evidence(NamedTuple):
    """What a run leaves.

    Attributes:
        seen: For the checker.
        audit: Of the services' books.
        records: Records that the verifier of journals has read.
        log_lines: Lines of logs that were searched for what may not be told.
    """

    seen: Observation
    audit: AuditReport
    records: int
    log_lines: int


def gather(
    workplace: Path,
    blows: Sequence[Blow],
    *,
    began_at_ms: int,
    healed_at_ms: int,
    ended_at_ms: int,
    late: list[str],
    unserved: list[str],
    left_over: list[str],
    ray_logs: Sequence[Path],
    poison: frozenset[str],
) -> Evidence:
    """Return what a run has left in `workplace`, whose engine has ended.

    Instants are Unix time; those of the lines are counted from the beginning.
    """
    seen = Observation(
        definitions=DEFINITIONS,
        late=late,
        unserved=unserved,
        left_over=left_over,
        poison=poison,
        healed_at_ms=healed_at_ms - began_at_ms,
        ended_at_ms=ended_at_ms - began_at_ms,
        is_read_later=True,
    )
    seen.readings.update(read_readings(workplace))
    lines: list[Line] = [*read_diaries(workplace / "callers"), *_calls(workplace / "calls")]
    lines += _troubles(blows)
    lines += _granted(workplace / "data" / "log")
    with Archive.open(workplace / "data") as archive:
        verified = verify_folder(archive)
        archive.close()
        lines += _effects(archive.folder)
        lines += _records(archive.folder, seen)
        report = audit_folder(archive)
    seen.flaws += [f"{p['name']}: {what}" for p in verified["parts"] for what in p["problems"]]
    seen.books += [f"{c.name}: {what}" for c in report.failed for what in c.offenders]
    lines.sort(key=_when)
    seen.lines = [line._replace(at_ms=line.at_ms - began_at_ms) for line in lines]
    for blow in blows:
        if blow.bit_at_ms:
            seen.struck[blow.fault] = seen.struck.get(blow.fault, 0) + 1
    log_lines = _search_logs(workplace, ray_logs, seen)
    records = sum(p["checked"] for p in verified["parts"])
    return Evidence(seen, report, records, log_lines)


def _when(line: Line) -> tuple[int, int]:
    rank = _RANKS.get(type(line), 6)
    is_action = isinstance(line, Effect) and line.kind == EFFECT_ACTION
    return line.at_ms, 2 if is_action else rank


def _calls(folder: Path) -> Iterator[Sent | Replied]:
    """Yield calls as they arrived, and answers as they left."""
    for name in SERVICES:
        for kind, at_ms, *rest in read_lines(folder.glob(f"{name}-*.jsonl")):
            if kind == "call":
                verb, saga_id, step, scope, epoch, attempt = rest
                host = scope.rpartition("/")[2]
                yield Sent(at_ms, host, name, verb, saga_id, step, scope, epoch, attempt)
            else:
                yield Replied(at_ms, name, *rest)


def _troubles(blows: Sequence[Blow]) -> Iterator[Trouble]:
    for blow in blows:
        if blow.inflicted_at_ms:
            yield Trouble(blow.inflicted_at_ms, blow.fault, blow.target)
        if blow.healed_at_ms:
            yield Trouble(blow.healed_at_ms, f"{blow.fault} is healed", "")


def _effects(folder: DataFolder) -> Iterator[Effect]:
    for name in SERVICES:
        ledger = LedgerReader.open(folder.service_path(name))
        try:
            scopes = {row.key: row.scope for row in ledger.rows()}
            for line in ledger.effects():
                key = line.key
                yield Effect(
                    line.at_ms,
                    name,
                    line.seq,
                    line.kind.value,
                    key.saga_id,
                    key.step,
                    scopes.get(key, f"{folder.uuid}/shard-{_shard(folder, key.saga_id)}"),
                    line.epoch,
                    None,
                )
        finally:
            ledger.close()


def _shard(folder: DataFolder, saga_id: str) -> int:
    return shard_of(SagaId(saga_id), folder.shard_count)


def _records(folder: DataFolder, seen: Observation) -> Iterator[Committed]:
    """Yield each record of each saga, and take down what the indexes list and count."""
    for shard in range(folder.shard_count):
        journal = folder.open_journal(shard, read_only=True)
        try:
            for phase, count in journal.counts().items():
                seen.counted[phase.value] = seen.counted.get(phase.value, 0) + count
            for head in _heads(journal):
                seen.listed[head.saga_id] = head.phase.value
                yield from _records_of(journal, head, f"shard-{shard}", seen)
        finally:
            journal.close()


def _heads(journal: Journal) -> Iterator[Head]:
    after = None
    while page := journal.heads(HeadFilter(), limit=PAGE_SAGAS, after=after, newest=False):
        yield from page
        after = page[-1].saga_id


def _records_of(journal: Journal, head: Head, host: str, seen: Observation) -> Iterator[Committed]:
    saga_id = head.saga_id
    try:
        for record in journal.records(saga_id):
            found = decode_record(saga_id, record, None)
            phase = head.phase.value if found.seq == head.seq else ""
            rows = ((saga_id, found.seq, phase),)
            # The birth of a dedicated saga is written by its shard.
            scope = head.scope if found.seq else host
            yield Committed(found.at_ms, host, scope, found.epoch, rows)
    except RecordCorruptError as error:
        seen.flaws.append(str(error))


def _granted(folder: Path) -> Iterator[Granted]:
    """Yield the epochs that hosts said they were granted; two alike would be a broken promise."""
    for line in _log_lines(folder.glob("shard-*.jsonl*")):
        if line.get("event") == "host_started":
            host = f"shard-{line['shard']}#{line['pid']}"
            yield Granted(_at_ms(line), host, f"shard-{line['shard']}", line["epoch"])


def _at_ms(line: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(line["timestamp"]).timestamp() * 1_000)


def _log_lines(paths: Iterator[Path]) -> Iterator[dict[str, Any]]:
    for line in read_lines(paths):
        if isinstance(line, dict):
            yield line


def _search_logs(workplace: Path, ray_logs: Sequence[Path], seen: Observation) -> int:
    """Look through every log, and what callers were told, for secrets (I14) and for bugs."""
    count = 0
    for told in (line for line in seen.lines if isinstance(line, Told)):
        if CANARY in told.facts.get("text", ""):
            seen.secrets.append(f"an answer to {told.operation} of {told.saga_id} tells a token")
    folders = [workplace / "data" / "log", workplace / "log", *ray_logs]
    for path in sorted(p for folder in folders for p in folder.glob("*") if p.is_file()):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                count += 1
                if CANARY.encode() in line:
                    seen.secrets.append(f"{path.name} line {number} tells a token")
                if any(event.encode() in line for event in _DEFECTS):
                    seen.defects.append(f"{path.name}: {line.decode(errors='replace')[:300]}")
    return count
