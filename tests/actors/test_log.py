"""The log: one event a line, readable by programs, and nothing in it that nobody may see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from raysaga.actors.log import LEVELS, VALUE_CHARS_MAX, configure_log, redact
from raysaga.actors.trace_ids import trace_id_of

CARD = "4111 1111 1111 1111"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.reset_defaults()
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_event_is_one_line_of_json_with_its_level_its_instant_and_its_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "logs" / "shard-0.jsonl"
    configure_log(path, "info", shard=0, pid=7)
    structlog.get_logger().info("saga_completed", saga_id="order:1", steps=["a", "b"])
    structlog.get_logger().bind(scope="s").error("host_must_stop", error="bad")
    first, second = lines(path)
    assert (first["event"], first["level"], first["saga_id"]) == (
        "saga_completed",
        "info",
        "order:1",
    )
    assert (first["shard"], first["pid"], first["steps"]) == (0, 7, ["a", "b"])
    assert first["timestamp"].endswith("Z")
    assert (second["level"], second["scope"], second["pid"]) == ("error", "s", 7)


def test_a_line_is_in_the_file_before_the_next_statement_runs(tmp_path: Path) -> None:
    """What is logged just before a crash must not be lost with it."""
    path = tmp_path / "log.jsonl"
    configure_log(path, "info")
    structlog.get_logger().critical("host_must_stop")
    assert len(lines(path)) == 1


def test_an_old_log_is_continued_and_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        configure_log(path, "info")
        structlog.get_logger().info("host_started")
    assert len(lines(path)) == 2


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_below_the_level_is_not_written(tmp_path: Path, level: str) -> None:
    path = tmp_path / "log.jsonl"
    configure_log(path, level)
    for name in LEVELS:
        getattr(structlog.get_logger(), name)("x")
    order = list(LEVELS)
    assert [line["level"] for line in lines(path)] == order[order.index(level) :]


@pytest.mark.parametrize(
    "value",
    [
        f"declined {CARD}",
        CARD.replace(" ", "-"),
        [CARD],
        {"number": {"deep": CARD}},
        {CARD: 1},
        (1, (CARD,)),
        ValueError(f"no such card: {CARD}"),
        {CARD},
        CARD.encode(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_card_number_is_masked_wherever_it_is(tmp_path: Path, value: object) -> None:
    path = tmp_path / "log.jsonl"
    configure_log(path, "info")
    structlog.get_logger().warning("attempt_failed", saga_id="order:1", what=value)
    text = path.read_text(encoding="utf-8")
    for digits in (CARD, CARD.replace(" ", ""), CARD.replace(" ", "-")):
        assert digits not in text
    assert lines(path)[0]["saga_id"] == "order:1"


def test_a_card_number_in_an_error_that_is_logged_whole_is_masked(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    configure_log(path, "info")
    try:
        raise ValueError(f"cannot charge {CARD}")
    except ValueError:
        structlog.get_logger().exception("handler_failed")
    assert CARD not in path.read_text(encoding="utf-8")
    assert lines(path)[0]["exception"] == "[redacted]"


def test_an_error_that_is_logged_whole_stays_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    configure_log(path, "info")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        structlog.get_logger().exception("handler_failed")
    (line,) = lines(path)
    assert "ValueError: first\\nsecond" in line["exception"]
    assert "\n" not in line["exception"]


@pytest.mark.parametrize("text", ["a\nb", "a\rlevel=error", "\x1b[31mred", "\u202eevil", "a\x00b"])
def test_control_characters_are_escaped_so_that_nobody_forges_a_line(text: str) -> None:
    facts = redact(None, "info", {"event": text, "message": text})
    for value in facts.values():
        assert value.isprintable()
        assert value.encode().decode("unicode_escape") == text


def test_what_is_printable_is_left_as_it_is() -> None:
    text = "Grüße, 你好, 🙂 12,50 €"
    assert redact(None, "info", {"message": text})["message"] == text


def test_long_texts_are_cut(tmp_path: Path) -> None:
    facts = redact(None, "info", {"message": "x" * 10_000, "what": ValueError("y" * 10_000)})
    assert len(facts["message"]) == VALUE_CHARS_MAX + 1
    assert len(str(facts["what"])) <= VALUE_CHARS_MAX + 1


def test_numbers_and_nothing_are_left_alone() -> None:
    given = {"at_ms": 1_700_000_600_004, "ratio": 0.5, "is_on": True, "none": None}
    assert redact(None, "info", dict(given)) == given


def test_a_line_about_a_saga_names_its_trace_where_the_folder_is_known(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    configure_log(path, "info", journal_uuid="u")
    for number in range(300):
        structlog.get_logger().info("saga_parked", saga_id=f"order:{number}")
    structlog.get_logger().info("host_started")
    *about, other = lines(path)
    # Each in full: a hash may look like a card number.
    assert [line["trace_id"] for line in about] == [
        trace_id_of("u", line["saga_id"]) for line in about
    ]
    assert "trace_id" not in other
