"""Log files: turned over when large, bounded in number, and read as one."""

from __future__ import annotations

import json
import multiprocessing
import resource
from pathlib import Path

import pytest

from raysaga.actors import log_lines
from raysaga.actors.log_file import LogFile
from raysaga.actors.log_lines import lines_about, opened_logs, orders_given

LINE_BYTES = 100
PROCESSES = 4
LINES_EACH = 500


def line_of(number: int) -> str:
    facts = {"timestamp": "2026-01-01T00:00:00Z", "saga_id": "order:1", "number": number}
    return json.dumps(facts).ljust(LINE_BYTES - 1) + "\n"


def numbers_in(folder: Path) -> list[int]:
    return [facts["number"] for facts in lines_about(folder, "order:1")]


def test_a_large_log_is_turned_over_and_the_oldest_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "shard-0.jsonl"
    log = LogFile(path, bytes_max=10 * LINE_BYTES, files_max=3)
    for number in range(45):
        assert log.write(line_of(number)) == LINE_BYTES
    assert {p.name: p.stat().st_size // LINE_BYTES for p in tmp_path.iterdir()} == {
        "shard-0.jsonl": 5,
        "shard-0.jsonl.1": 10,
        "shard-0.jsonl.2": 10,
    }
    assert sorted(numbers_in(tmp_path)) == list(range(20, 45))


def test_a_log_goes_on_where_an_earlier_process_left_it(tmp_path: Path) -> None:
    path = tmp_path / "shard-0.jsonl"
    for number in range(12):
        LogFile(path, bytes_max=10 * LINE_BYTES, files_max=2).write(line_of(number))
    assert sorted(numbers_in(tmp_path)) == list(range(12))
    assert path.stat().st_size == 2 * LINE_BYTES


def test_a_log_that_cannot_be_turned_over_grows_on(tmp_path: Path) -> None:
    path = tmp_path / "shard-0.jsonl"
    in_the_way = tmp_path / "shard-0.jsonl.1" / "folder"
    in_the_way.mkdir(parents=True)
    log = LogFile(path, bytes_max=10 * LINE_BYTES, files_max=2)
    for number in range(30):
        log.write(line_of(number))
    assert path.stat().st_size == 30 * LINE_BYTES


def write_many(path: Path, first: int) -> None:
    log = LogFile(path, bytes_max=50 * LINE_BYTES, files_max=100)
    for number in range(first, first + LINES_EACH):
        log.write(line_of(number))


def test_processes_that_share_a_log_lose_no_line_when_it_is_turned_over(tmp_path: Path) -> None:
    path = tmp_path / "dedicated-0.jsonl"
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=write_many, args=(path, first))
        for first in range(0, PROCESSES * LINES_EACH, LINES_EACH)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert sorted(numbers_in(tmp_path)) == list(range(PROCESSES * LINES_EACH))
    sizes = [p.stat().st_size for p in tmp_path.iterdir()]
    assert max(sizes) <= (50 + PROCESSES) * LINE_BYTES


def test_a_log_that_is_turned_over_while_it_is_read_is_read_once(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "shard-0.jsonl", bytes_max=10 * LINE_BYTES, files_max=3)
    for number in range(15):
        log.write(line_of(number))
    with opened_logs(tmp_path) as files:
        for number in range(15, 35):
            log.write(line_of(number))
        read = [json.loads(line)["number"] for file in files for line in file]
    assert sorted(read) == list(range(20))


def test_orders_are_found_wherever_they_stand_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its begin, at its end, across what is read at once, and in files that were set aside."""
    monkeypatch.setattr(log_lines, "CHUNK_BYTES", 64)
    given: dict[str, object] = {"event": "order_given", "order": "retry", "by": "ann", "note": "x"}
    told = []
    for number in range(30):
        at = f"2026-01-01T00:00:{number:02d}Z"
        line = {"timestamp": at, "saga_id": f"order:{number}", **(given if number % 3 else {})}
        told.append(json.dumps(line | {"number": "9" * number}))
    (tmp_path / "shard-0.jsonl.1").write_text("\n".join(told[:11]) + "\n")
    (tmp_path / "shard-0.jsonl").write_text("\n".join(told[11:]))
    (tmp_path / "shard-1.jsonl").write_text('no JSON, but "order_given"\n')
    rows = orders_given(tmp_path, 100)
    assert [row["saga_id"] for row in rows] == [f"order:{n}" for n in range(29, 0, -1) if n % 3]
    assert rows[0].keys() == {"at_ms", "saga_id", "order", "by", "note"}
    assert len(orders_given(tmp_path, 3)) == 3


@pytest.mark.parametrize("text", ["\ud800", "ü" * 10])
def test_any_text_can_be_written(tmp_path: Path, text: str) -> None:
    LogFile(tmp_path / "shard-0.jsonl").write(text + "\n")
    assert (tmp_path / "shard-0.jsonl").stat().st_size > len(text)


def test_a_line_that_there_is_no_room_for_is_lost_and_stops_nobody(tmp_path: Path) -> None:
    """Method: a limit on the size of files, which cuts one line and refuses the next."""
    log = LogFile(tmp_path / "shard-0.jsonl")
    log.write(line_of(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LINE_BYTES * 3 // 2, hard))
    try:
        log.write(line_of(1))
        log.write(line_of(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write(line_of(3))
    log.write(line_of(4))
    assert numbers_in(tmp_path) == [0, 3, 4]
