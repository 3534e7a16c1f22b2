"""Proves that whatever is typed, piped or mounted, a command ends with one clear sentence.

Each case: the right exit code, a stable code in the sentence, no traceback, and nothing
written that was not asked for.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import FileFinder
from pathlib import Path
from typing import Any

import pytest

import raysaga
from raysaga.api.cli_terminal import ExitCode, exit_code_of
from raysaga.api.order_schema import ORDER_BYTES_MAX
from raysaga.statemachines.errors import SagaError

Cli = Callable[..., Any]
MakeOrder = Callable[..., dict[str, Any]]


def check_refused(result: Any, exit_code: int, code: str, says: str = "") -> None:
    """Check that a command ended as it should, with one sentence."""
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    sentences = result.stderr.strip().splitlines()
    assert len(sentences) == 1, result.stderr
    assert sentences[0].startswith("error: ")
    assert sentences[0].endswith(f"({code})")
    assert says in sentences[0]
    assert len(sentences[0]) < 400
    assert all(letter.isprintable() for letter in sentences[0])


def _of(items: object) -> Callable[[MakeOrder], bytes]:
    return lambda make: json.dumps(make("o-1", items=items)).encode()


BAD_ORDERS: dict[str, tuple[Callable[[MakeOrder], bytes], str]] = {
    "broken JSON": (lambda _: b'{"order_id": "o-1", ', "must be valid JSON"),
    "nothing": (lambda _: b" \n", "there is no order"),
    "a list": (lambda _: b"[1]", "must be a JSON object"),
    "not UTF-8": (lambda _: b'{"order_id": "\xff"}', "must be valid UTF-8"),
    "a missing field": (lambda _: b'{"order_id": "o-1"}', "customer_id: is missing"),
    "a negative quantity": (
        _of([{"item_id": "milk", "quantity": -1}]),
        "items[0].quantity: must be between 1 and",
    ),
    "an absurd quantity": (
        _of([{"item_id": "milk", "quantity": 10**30}]),
        "items[0].quantity: must be",
    ),
    "a number with 5,000 digits": (
        lambda _: b'{"order_id": ' + b"9" * 5_000 + b"}",
        "too many digits",
    ),
    "an empty order": (_of([]), "items: must hold between 1 and"),
    "10 MB": (
        lambda make: json.dumps(make("o-1", note="x" * (10 << 20))).encode(),
        f"at most {ORDER_BYTES_MAX} bytes",
    ),
    "deep nesting": (lambda _: b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "must be nested at most"),
    "an id with control characters": (
        lambda make: json.dumps(make("o\x1b[31m\n1")).encode(),
        "order_id: must be 1 to 100 characters",
    ),
    "a card number": (
        lambda make: json.dumps(make("o-1", customer_id="4111111111111111")).encode(),
        "contains a card number",
    ),
}


@pytest.mark.parametrize("case", BAD_ORDERS)
@pytest.mark.parametrize("by_file", [True, False], ids=["from a file", "from a pipe"])
def test_a_bad_order_is_refused_before_anything_is_started_or_written(
    cli: Cli, tmp_path: Path, make_order: MakeOrder, case: str, by_file: bool
) -> None:
    make, says = BAD_ORDERS[case]
    raw, data = make(make_order), tmp_path / "data"
    if by_file:
        (tmp_path / "order.json").write_bytes(raw)
        result = cli("submit", tmp_path / "order.json", "--data", data)
    else:
        result = cli("submit", "-", "--data", data, stdin=raw)
    check_refused(result, 2, "VALIDATION", says)
    assert "4111" not in result.stderr
    assert not data.exists()


def test_errors_are_json_where_json_was_asked_for(cli: Cli, tmp_path: Path) -> None:
    result = cli("submit", "-", "--data", tmp_path / "data", "--json", stdin=b"[]")
    assert (result.exit_code, result.stdout) == (2, "")
    assert json.loads(result.stderr) == {
        "error": {
            "code": "VALIDATION",
            "message": "an order must be a JSON object",
            "retryable": False,
            "exit_code": 2,
        }
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["unknown"],
        ["list", "--state", "lost"],
        ["list", "--older-than", "soon"],
        ["list", "--limit", "0"],
        ["run", "--in-flight", "0"],
        ["watch", "--interval", "0"],
        ["diagram", "pony"],
        ["skip", "order:1"],
        ["force", "order:1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_two(cli: Cli, tmp_path: Path, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "retry", "skip", "force"])
def test_a_saga_that_is_not_there_is_said_to_be_missing(
    cli: Cli, keeper: Any, command: str
) -> None:
    keeper.tell("o-1")
    keeper.close()
    note = ["--note", "x"] if command in ("skip", "force") else []
    arguments = [command, "nobody", *note, "--data", keeper.path]
    check_refused(cli(*arguments), 1, "NOT_FOUND", "there is no saga 'nobody'")
    arguments[1] = "bad\x1bname"
    check_refused(cli(*arguments), 2, "VALIDATION", "must be DEFINITION:KEY or KEY")


def test_a_key_that_two_definitions_use_must_be_told_in_full(cli: Cli, keeper: Any) -> None:
    from raysaga.statemachines.definition import SagaDefinition
    from raysaga.statemachines.order import order_saga

    other = SagaDefinition(name="return", steps=order_saga.steps)
    keeper.tell("o-1")
    keeper.tell("o-1", definition=other)
    keeper.close()
    check_refused(
        cli("show", "o-1", "--data", keeper.path), 2, "VALIDATION", "order:o-1, return:o-1"
    )
    assert cli("show", "return:o-1", "--data", keeper.path).exit_code == 0


@pytest.mark.parametrize("command", ["retry", "skip"])
def test_what_has_ended_cannot_be_sent_on_and_no_engine_is_started_to_say_so(
    cli: Cli, keeper: Any, command: str
) -> None:
    keeper.tell("o-1")
    keeper.close()
    note = ["--note", "x"] if command == "skip" else []
    result = cli(command, "o-1", *note, "--data", keeper.path)
    check_refused(result, 1, "ORDER_REFUSED", "it is not parked")


def test_an_empty_note_is_no_note(cli: Cli, keeper: Any) -> None:
    result = cli("skip", "o-1", "--note", " ", "--data", keeper.path)
    check_refused(result, 2, "VALIDATION", "--note: must say why")


def test_a_run_without_any_stock_is_refused_before_it_refuses_every_order(
    cli: Cli, tmp_path: Path, make_order: MakeOrder
) -> None:
    orders, data = tmp_path / "orders.jsonl", tmp_path / "data"
    orders.write_text(json.dumps(make_order("o-1")) + "\n")
    check_refused(cli("run", orders, "--data", data), 2, "VALIDATION", "there is no stock yet")
    check_refused(cli("submit", orders, "--data", data), 2, "VALIDATION", "there is no stock yet")
    assert not data.exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("stock", "nonsense", "is not JSON"),
        ("stock", '{"items": {"milk": -3}}', "inventory.stock.items.milk"),
        ("stock", None, "No such file"),
        ("services", '{"payment": {"speed": 3}}', "payment.speed"),
        ("services", None, "No such file"),
    ],
)
def test_a_file_of_settings_that_cannot_be_used_is_named(
    cli: Cli, tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    path = tmp_path / f"{name}.json"
    if content is not None:
        path.write_text(content)
    result = cli("run", f"--{name}", path, "--data", tmp_path / "data")
    check_refused(result, 2, "SERVICES_SETTINGS_INVALID", says)
    assert not (tmp_path / "data").exists()


def test_a_file_of_orders_that_is_missing_is_named(cli: Cli, tmp_path: Path) -> None:
    missing = tmp_path / "none.jsonl"
    check_refused(cli("run", missing, "--data", tmp_path / "data"), 2, "VALIDATION", "is no file")
    check_refused(
        cli("submit", missing, "--data", tmp_path / "data"), 2, "FILE_UNUSABLE", str(missing)
    )


# -- folders ------------------------------------------------------------------


READS = ["list", "show o-1", "parked", "logs o-1", "status", "verify", "audit", "watch --count 1"]


@pytest.mark.parametrize("command", READS)
def test_a_folder_that_is_none_is_told_and_left_alone(
    cli: Cli, tmp_path: Path, command: str
) -> None:
    data = tmp_path / "none"
    check_refused(
        cli(*command.split(), "--data", data), 4, "DATA_FOLDER_UNUSABLE", "check the path"
    )
    assert not data.exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("hello")
    check_refused(cli(*command.split(), "--data", foreign), 4, "DATA_FOLDER_UNUSABLE")
    assert [path.name for path in foreign.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("command", [*READS, "retry o-1", "run"])
def test_a_folder_of_a_newer_format_is_left_to_its_version(
    cli: Cli, keeper: Any, command: str
) -> None:
    keeper.tell("o-1")
    keeper.close()
    note = keeper.path / "raysaga.json"
    newer = note.read_text().replace('"format_version": 1', '"format_version": 999')
    note.write_text(newer)
    result = cli(*command.split(), "--data", keeper.path)
    check_refused(result, 4, "DATA_FOLDER_UNUSABLE", "upgrade raysaga")
    assert note.read_text() == newer


def test_a_folder_with_another_number_of_shards_is_refused(cli: Cli, keeper: Any) -> None:
    keeper.tell("o-1")
    keeper.close()
    result = cli("run", "--limit", 1, "--data", keeper.path, "--shards", 3)
    check_refused(result, 4, "DATA_FOLDER_UNUSABLE", "has 1 shards for ever, not 3")


def test_a_folder_that_was_made_and_never_used_is_empty(
    cli: Cli, make_keeper: Any, tmp_path: Path
) -> None:
    path = make_keeper(tmp_path / "data", shard_count=3).path
    assert cli("list", "--data", path, "--json").stdout == ""
    assert cli("verify", "--data", path).exit_code == 0
    check_refused(cli("show", "o-1", "--data", path), 1, "NOT_FOUND")


def mounted(path: Path, *arguments: str) -> Iterator[Path]:
    """Mount something at `path`; skip the test where that is not permitted."""
    path.mkdir()
    run = subprocess.run(["mount", *arguments, str(path)], capture_output=True, check=False)
    if run.returncode:
        pytest.skip(f"mounting is not permitted here: {run.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    yield from mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=256k", "tmpfs")


@pytest.fixture
def read_only_folder(keeper: Any, tmp_path: Path) -> Iterator[Path]:
    """A data folder with one saga, on a disk that cannot be written to."""
    keeper.tell("o-1")
    keeper.close()
    point = tmp_path / "read-only"
    for path in mounted(point, "--bind", str(keeper.path)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(point)], check=True)
        yield path


def test_a_folder_that_cannot_be_written_to_can_be_read(cli: Cli, read_only_folder: Path) -> None:
    for command in ("list", "show o-1", "parked", "logs o-1", "status", "verify"):
        result = cli(*command.split(), "--data", read_only_folder)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", ["run --limit 1", "cancel o-1"])
def test_a_folder_that_cannot_be_written_to_cannot_be_run(
    cli: Cli, read_only_folder: Path, command: str
) -> None:
    result = cli(*command.split(), "--data", read_only_folder)
    check_refused(result, 4, "DATA_FOLDER_UNUSABLE", "cannot be written to")


def fill(folder: Path) -> None:
    """Leave no room on the disk of `folder`."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError:
            return


def test_a_full_disk_is_told_and_nothing_is_half_written(
    cli: Cli, small_disk: Path, keeper: Any
) -> None:
    for i in range(200):
        keeper.tell(f"o-{i}")
    keeper.close()
    result = cli("backup", small_disk / "backup", "--data", keeper.path)
    assert result.exit_code == 4, result.output
    assert "(STORAGE_FULL)" in result.stderr or "disk is full" in result.stderr
    assert list(small_disk.iterdir()) == []
    fill(small_disk)
    result = cli("run", "--limit", 1, "--data", small_disk / "data")
    check_refused(result, 4, "DATA_FOLDER_UNUSABLE", "the disk is full")
    picture = small_disk / "order.mmd"
    check_refused(cli("diagram", "order", "--out", picture), 4, "STORAGE_FULL", "free space")


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        (["--participant", "hall"], "VALIDATION", "must be NAME=MODULE:FUNCTION, or NAME=URL"),
        (["--participant", "=a:b"], "VALIDATION", "must be NAME=MODULE:FUNCTION, or NAME=URL"),
        (["--participant", "hall=box_offic:serve"], "PARTICIPANT_NOT_FOUND", "'box_offic'"),
        (["--participant", "hall=json:srve"], "PARTICIPANT_NOT_FOUND", "json has no function"),
        (["--participant", "hall=json"], "PARTICIPANT_NOT_FOUND", "form MODULE:FUNCTION"),
        (["--participant", "a=json:dumps", "--participant", "a=json:loads"], "VALIDATION", "twice"),
    ],
)
def test_a_participant_that_cannot_be_served_is_refused_before_anything_is_started(
    cli: Cli, tmp_path: Path, given: list[str], code: str, says: str
) -> None:
    data = tmp_path / "data"
    result = cli("serve", "--data", data, "--port", 0, *given)
    check_refused(result, 2, code, says)
    assert not data.exists()


def test_a_participant_for_a_broker_that_nothing_makes_is_told_so(cli: Cli, tmp_path: Path) -> None:
    transport = ("--transport", "amqp://localhost/", "--data", tmp_path / "data")
    result = cli("participant", "hall", *transport, "--make", "box_offic:serve")
    check_refused(result, 2, "PARTICIPANT_NOT_FOUND", "participant 'hall' cannot be made")


# -- codes --------------------------------------------------------------------


def _descendants(error: type[SagaError]) -> Iterator[type[SagaError]]:
    for child in error.__subclasses__():
        yield child
        yield from _descendants(child)


def test_every_error_has_the_exit_code_of_its_kind() -> None:
    """Retryable ones say "try again", storage says "storage", the rest is a problem or invalid."""
    for info in pkgutil.walk_packages(raysaga.__path__, "raysaga."):
        assert isinstance(info.module_finder, FileFinder)
        # What has requirements of its own runs in an environment of its own.
        is_apart = (Path(info.module_finder.path) / "requirements.txt").exists()
        if not is_apart and not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    by_code: dict[str, ExitCode] = {}
    for error in _descendants(SagaError):
        raised = error.__new__(error)
        by_code[error.code] = exit_code_of(raised)
    assert by_code["NOT_FOUND"] is ExitCode.PROBLEM
    assert by_code["JOURNAL_CORRUPT"] is ExitCode.PROBLEM
    assert by_code["OVERLOADED"] is ExitCode.UNAVAILABLE
    assert by_code["SERVICE_UNAVAILABLE"] is ExitCode.UNAVAILABLE
    assert by_code["STORAGE_FULL"] is ExitCode.STORAGE
    assert by_code["NEWER_FORMAT"] is ExitCode.STORAGE
    assert by_code["INTERRUPTED"] is ExitCode.INTERRUPTED
    assert by_code["DEFINITION_INVALID"] is ExitCode.INVALID


def test_what_is_neither_fact_nor_system_is_called_a_bug(tmp_path: Path) -> None:
    program = "from raysaga.api import cli\ncli.cli_read.Archive.open = None\ncli.main()\n"
    done = subprocess.run(
        [sys.executable, "-c", program, "list", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.BUG
    assert "this is a bug" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_where_an_error_came_from(cli: Cli, tmp_path: Path) -> None:
    result = cli("--debug", "list", "--data", tmp_path / "none")
    assert result.exit_code == 4
    assert "Traceback" in result.stderr


def test_the_help_tells_the_exit_codes_and_of_each_command_an_example(cli: Cli) -> None:
    from raysaga.api.cli import app

    shown = cli("--help").stdout
    assert "Exit codes: 0 done" in shown
    commands = [str(command.name) for command in app.registered_commands]
    assert {"run", "submit", "show", "doctor"} <= set(commands)
    for command in commands:
        told = cli(command, "--help")
        assert told.exit_code == 0
        for word in (f"raysaga {command}", "--data", "--json"):
            assert word in told.stdout, f"{command} does not tell {word}"


@pytest.mark.parametrize("command", ["skip", "force"])
def test_a_person_is_asked_before_what_cannot_be_taken_back(keeper: Any, command: str) -> None:
    """The answer no changes nothing, and starts nothing.

    Method: a pseudo-terminal as standard input, since without one nobody is asked.
    """
    keeper.tell("o-1", calls_max=2)
    keeper.close()
    before = sorted(str(path) for path in keeper.path.rglob("*"))
    person, terminal = os.openpty()
    os.write(person, b"n\n")
    program = "from raysaga.api.cli import main; main()"
    arguments = [command, "o-1", "--note", "why", "--data", str(keeper.path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdin=terminal,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(terminal)
    os.close(person)
    assert done.returncode == 1, done.stderr
    assert "order:o-1" in done.stderr
    assert "[y/N]" in done.stderr
    assert done.stdout == ""
    assert sorted(str(path) for path in keeper.path.rglob("*")) == before


def test_no_colour_is_written_where_none_is_wanted(
    cli: Cli, keeper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.tell("o-1")
    keeper.close()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "")
    assert "\x1b[3" not in cli("show", "o-1", "--data", keeper.path).stdout
