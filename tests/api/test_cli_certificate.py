"""An audit's certificate: written of a folder in order, and held against it later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_within import engine_within

from raysaga.api.cli_terminal import ExitCode
from raysaga.statemachines.order import order_saga
from raysaga.storage.data_folder import DataFolder

Cli = Callable[..., Any]
MakeOrder = Callable[..., dict[str, Any]]


async def order(path: Path, make_order: MakeOrder, *keys: str) -> None:
    """Let an engine take these orders to their ends."""
    async with engine_within(path) as engine:
        for key in keys:
            handle = await engine.sagas.submit(order_saga, make_order(key), key=key)
            await handle.result(timeout_s=30)


@pytest.fixture
async def data(tmp_path: Path, make_order: MakeOrder) -> Path:
    """A folder with three orders that went well."""
    await order(tmp_path / "data", make_order, "o-1", "o-2", "o-3")
    return tmp_path / "data"


def certified(cli: Cli, data: Path) -> Path:
    """Write a certificate, and return where it is."""
    path = data.parent / "certificate.json"
    done = cli("audit", "--data", data, "--certificate", path)
    assert done.exit_code == ExitCode.OK, done.output
    assert "certificate written" in done.stderr
    return path


def held_against(cli: Cli, data: Path, path: Path) -> dict[str, Any]:
    """Return what verifying a certificate tells; its exit code must agree with that."""
    done = cli("audit", "--data", data, "--verify-certificate", path, "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.exit_code == (ExitCode.OK if report["holds"] else ExitCode.PROBLEM)
    return report


async def test_a_certificate_tells_what_was_counted_and_by_whom(cli: Cli, data: Path) -> None:
    certificate = json.loads(certified(cli, data).read_text())
    folder = DataFolder.open(data, shard_count=None, create=False)
    assert certificate["folder"] == {"uuid": folder.uuid, "shard_count": 1}
    assert certificate["counts"]["sagas"] == 3
    assert all(check["examined_count"] >= 0 for check in certificate["checks"])
    assert len(certificate["checks"]) == 15
    assert {"raysaga", "lmdb", "python"} <= set(certificate["versions"])
    [shard] = certificate["shards"]
    assert shard["saga_count"] == 3
    assert len(bytes.fromhex(shard["chain_head"])) == 16


async def test_the_same_folder_is_equal_and_one_that_went_on_has_grown(
    cli: Cli, data: Path, make_order: MakeOrder
) -> None:
    path = certified(cli, data)
    assert held_against(cli, data, path)["verdict"] == "equal"
    await order(data, make_order, "o-4", "o-5")
    report = held_against(cli, data, path)
    assert report["verdict"] == "grown"
    assert (report["certified_count"], report["new_count"]) == (3, 2)
    told = cli("audit", "--data", data, "--verify-certificate", path).stdout
    assert "the folder has grown from what the certificate says" in told


async def test_another_folder_differs(
    cli: Cli, data: Path, tmp_path: Path, make_order: MakeOrder
) -> None:
    path = certified(cli, data)
    await order(tmp_path / "other", make_order, "o-1", "o-2", "o-3")
    report = held_against(cli, tmp_path / "other", path)
    assert report["verdict"] == "differs"
    assert "of another data folder" in report["differences"][0]


async def test_an_earlier_state_of_the_folder_differs(
    cli: Cli, data: Path, tmp_path: Path, make_order: MakeOrder
) -> None:
    """As after a disk was put back that had missed the latest commits."""
    shutil.copytree(data, tmp_path / "earlier")
    await order(data, make_order, "o-4")
    path = certified(cli, data)
    report = held_against(cli, tmp_path / "earlier", path)
    assert report["verdict"] == "differs"
    assert "order:o-4 is gone" in report["differences"][0]


async def test_a_record_that_was_altered_differs(cli: Cli, data: Path) -> None:
    """The indexes still say what the certificate says; the records are looked at, too."""
    path = certified(cli, data)
    journal = data / "shards" / "000" / "data.mdb"
    content = journal.read_bytes()
    assert b"tok_abc" in content
    journal.write_bytes(content.replace(b"tok_abc", b"tok_abd"))
    report = held_against(cli, data, path)
    assert report["verdict"] == "differs"
    assert report["differences"] == ["shard 0: it does not verify: 3 problems"]
    done = cli("audit", "--data", data, "--certificate", data.parent / "another.json")
    assert done.exit_code != ExitCode.OK
    assert not (data.parent / "another.json").exists()


async def test_a_certificate_that_was_changed_is_refused(cli: Cli, data: Path) -> None:
    path = certified(cli, data)
    certificate = json.loads(path.read_text())
    certificate["counts"]["sagas"] = 4
    path.write_text(json.dumps(certificate))
    done = cli("audit", "--data", data, "--verify-certificate", path)
    assert done.exit_code == ExitCode.INVALID
    assert "its seal is broken" in done.stderr


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"certificate": 1}', "\x00", "[" * 5_000])
def test_what_is_no_certificate_is_refused(cli: Cli, tmp_path: Path, text: str) -> None:
    path = tmp_path / "no.json"
    path.write_text(text)
    done = cli("audit", "--data", tmp_path, "--verify-certificate", path)
    assert done.exit_code == ExitCode.INVALID
    assert "is no certificate" in done.stderr


async def test_a_file_that_is_there_is_not_overwritten(cli: Cli, data: Path) -> None:
    path = certified(cli, data)
    before = path.read_bytes()
    done = cli("audit", "--data", data, "--certificate", path)
    assert done.exit_code == ExitCode.INVALID
    assert path.read_bytes() == before


def test_to_write_one_and_to_verify_one_are_two_things(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    done = cli("audit", "--certificate", path, "--verify-certificate", path)
    assert done.exit_code == ExitCode.INVALID
