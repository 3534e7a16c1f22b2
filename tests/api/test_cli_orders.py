"""Proves what `raysaga orders` prints, how it ends, and that it makes the sample again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raysaga.api.cli import app
from raysaga.api.order_schema import parse_order_line
from raysaga.api.sample_orders import sample_paths

HEADER = "order,who,sku,n,price"
NAMES = ["--order-id=order", "--customer=who", "--item=sku", "--quantity=n", "--price=price"]


def command(folder: Path, *arguments: str) -> list[str]:
    return [
        *("orders", "import"),
        *arguments,
        *("--out", str(folder / "orders.jsonl")),
        *("--rejects", str(folder / "rejects.jsonl")),
        *("--stock", str(folder / "stock.json")),
    ]


def test_the_sample_is_valid_and_its_command_gives_it_again(tmp_path: Path) -> None:
    orders_path, stock_path = sample_paths()
    asked = command(tmp_path, "completejourney", "--limit-orders", "1000", "--json")
    result = CliRunner().invoke(app, asked)
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["orders_written"] == 1000
    assert (tmp_path / "orders.jsonl").read_bytes() == orders_path.read_bytes()
    assert (tmp_path / "stock.json").read_bytes() == stock_path.read_bytes()
    assert (orders_path.parent / "ATTRIBUTION.md").is_file()
    assert orders_path.stat().st_size + stock_path.stat().st_size < 1_500_000


def test_between_five_and_ten_percent_of_the_sample_find_too_little_stock() -> None:
    orders_path, stock_path = sample_paths()
    left: dict[str, int] = json.loads(stock_path.read_bytes())["items"]
    refused_count = 0
    orders = [parse_order_line(line) for line in orders_path.read_bytes().splitlines()]
    for order in orders:
        if any(left[item.item_id] < item.quantity for item in order.items):
            refused_count += 1
            continue
        for item in order.items:
            left[item.item_id] -= item.quantity
    assert len({order.order_id for order in orders}) == 1000
    assert 50 <= refused_count <= 100


def test_the_command_prints_a_table_for_people(tmp_path: Path) -> None:
    path = tmp_path / "[bold]lines.csv"
    path.write_text(f"{HEADER}\na,c,milk,2,1.25\nb,c,milk,0,1\n")
    result = CliRunner().invoke(app, command(tmp_path, str(path), *NAMES))
    assert (result.exit_code, result.stderr) == (0, "")
    words = [line.split() for line in result.stdout.splitlines()]
    assert ["orders", "written", "1"] in words
    assert ["ORDER_EMPTY", "1"] in words


def test_the_command_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text("a,b\n1,2\n")
    for file, sentence in [
        (path, f"{path}: has no column 'order'; it has: a, b"),
        (tmp_path / "no.csv", f"{tmp_path / 'no.csv'}: does not exist"),
    ]:
        result = CliRunner().invoke(app, command(tmp_path, str(file), *NAMES))
        told = f"error: {sentence} (VALIDATION)\n"
        assert (result.exit_code, result.stdout, result.stderr) == (2, "", told)
        result = CliRunner().invoke(app, command(tmp_path, str(file), *NAMES, "--json"))
        assert (result.exit_code, result.stdout) == (2, "")
        assert json.loads(result.stderr)["error"]["message"] == sentence


def test_a_file_without_a_valid_order_ends_with_2_and_says_where_to_look(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text(f"{HEADER}\na,c,milk,0,1\n")
    result = CliRunner().invoke(app, command(tmp_path, str(path), *NAMES))
    assert result.exit_code == 2
    sentence = f"{path}: holds no valid order; {tmp_path}/rejects.jsonl says why"
    assert result.stderr == f"error: {sentence} (VALIDATION)\n"


def test_a_full_disk_ends_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "lines.csv"
    path.write_text(f"{HEADER}\na,c,milk,1,1\n")
    monkeypatch.setattr(os, "fsync", fail)
    result = CliRunner().invoke(app, command(tmp_path, str(path), *NAMES))
    assert result.exit_code == 4
    assert result.stderr == (
        "error: No space left on device; free space, then try again (STORAGE_FULL)\n"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["lines.csv"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lines.csv", *NAMES[:4]], "--price"),
        (["completejourney", "--item=sku"], "--item"),
        (["completejourney", "--price-is=each"], "--price-is"),
        (["lines.csv", *NAMES, "--shortage=1.1"], "--shortage"),
        (["lines.csv", *NAMES, "--shortage=nan"], "--shortage"),
        (["lines.csv", *NAMES, "--currency=usd"], "--currency"),
        (["lines.csv", *NAMES, "--limit-orders=0"], "--limit-orders"),
        (["lines.csv", *NAMES, "--delimiter=ab"], "--delimiter"),
        (["lines.csv", *NAMES, "--delimiter=a"], "has no column"),
        (["lines.csv", *NAMES, "--price-unit=euro"], "--price-unit"),
    ],
)
def test_a_wrong_option_ends_with_2_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    Path("lines.csv").write_text(f"{HEADER}\na,c,milk,1,1\n")
    result = CliRunner().invoke(app, command(tmp_path, *arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["lines.csv"]


def test_a_delimiter_that_is_named_is_used(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text("order\twho\tsku\tn\tprice\na\tc\tmilk\t1\t1\n")
    asked = command(tmp_path, str(path), *NAMES, "--delimiter", "tab")
    assert CliRunner().invoke(app, asked).exit_code == 0
