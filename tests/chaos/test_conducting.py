"""What a run is conducted with: diaries, orders, the choice of faults, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raysaga.simulation.chaos.catalogue import FAULTS, chosen
from raysaga.simulation.chaos.diary import Diary, read_diaries, unfinished
from raysaga.simulation.chaos.fault import Blow, Fault
from raysaga.simulation.chaos.nemesis import tally
from raysaga.simulation.chaos.orders import CANARY, DEFINITIONS, order, request_of
from raysaga.simulation.chaos.run import Run
from raysaga.simulation.chaos.tail import Tail
from raysaga.simulation.checker import Violation
from raysaga.statemachines.card_numbers import has_card_number
from raysaga.statemachines.errors import ValidationError


def blow(fault: str, *, bit: bool) -> Blow:
    found = Blow(fault=fault, number=1, chance=None)  # type: ignore[arg-type]
    found.inflicted("something")
    if bit:
        found.bit("it is gone")
    return found


def run_of(*faults: Fault, for_s: float, blows: list[Blow]) -> Run:
    return Run(workplace=Path("nowhere"), seed=1, faults=faults, for_s=for_s, blows=blows)


def test_an_order_is_the_same_whenever_it_is_made() -> None:
    assert [order(7, n) for n in range(50)] == [order(7, n) for n in range(50)]
    assert order(7, 1) != order(8, 1)


def test_the_orders_of_a_run_ask_for_everything() -> None:
    orders = [order(1, n) for n in range(2_000)]
    assert {one.definition for one in orders} == set(DEFINITIONS)
    for asked in ("twice", "conflicts", "dedicated"):
        assert any(getattr(one, asked) for one in orders), asked
    assert any(one.cancel_after_s is not None for one in orders)
    assert any(CANARY in one.request["payment"]["token"] for one in orders)


def test_no_token_is_taken_for_the_number_of_a_card() -> None:
    tokens = [request_of(f"k-{n}-{1_795_444_944_000 + n}")["payment"]["token"] for n in range(20)]
    assert [token for token in tokens if has_card_number(token)] == []


def test_a_caller_who_comes_back_asks_for_what_he_never_heard_the_end_of(tmp_path: Path) -> None:
    diary = Diary(tmp_path, 1)
    for number, end in ((1, "ended"), (2, "error"), (3, "lost"), (4, "")):
        diary.asked("caller", "submit", f"order:o{number}", number=number)
        if end:
            diary.told("caller", "submit", f"order:o{number}", end, code="X")
    left, newest = unfinished(tmp_path)
    assert (set(left), newest) == ({"order:o3", "order:o4"}, 4)


def test_a_line_that_a_kill_has_cut_off_is_left_out(tmp_path: Path) -> None:
    Diary(tmp_path, 1).asked("caller", "submit", "order:o1", number=1)
    (path,) = tmp_path.iterdir()
    with path.open("a") as file:
        file.write('["told", 17')
    assert len(list(read_diaries(tmp_path))) == 1


def test_a_tail_gives_what_was_added_since_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[1]\n")
    tail = Tail(tmp_path, "*.jsonl")
    assert tail.lines() == []
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("[2]\n[3")
    assert tail.lines() == [[2]]
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("]\n")
    (tmp_path / "b.jsonl").write_text("[4]\n")
    assert sorted(tail.lines()) == [[2], [3], [4]]


def test_every_fault_has_a_name_of_its_own_and_rows_of_the_matrix() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names))
    for fault in FAULTS:
        assert fault.numbers, fault.name
        assert fault.what, fault.name
        assert 0 < fault.seconds <= fault.strike_s_max, fault.name


def test_every_fault_is_in_the_documentation(pytestconfig: pytest.Config) -> None:
    text = (pytestconfig.rootpath / "docs" / "CHAOS.md").read_text()
    assert [fault.name for fault in FAULTS if f"`{fault.name}`" not in text] == []


def test_a_fault_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="kill-shard"):
        chosen(["kill-everything"])
    assert [fault.name for fault in chosen(["kill-shard"])] == ["kill-shard"]


def test_what_was_inflicted_and_did_not_bite_is_counted_apart() -> None:
    counts = tally([blow("a", bit=True), blow("a", bit=False)])
    assert dict(counts["a"]) == {"inflicted": 2, "bit": 1, "missed": 1}


def test_a_full_run_in_which_a_fault_never_bit_does_not_hold() -> None:
    (fault,) = chosen(["kill-shard"])
    missed = [blow("kill-shard", bit=False)]
    full = run_of(fault, for_s=600, blows=missed)
    assert (full.never_bit, full.holds) == (["kill-shard"], False)
    short = run_of(fault, for_s=1, blows=missed)
    assert (short.never_bit, short.holds) == (["kill-shard"], True)
    assert run_of(fault, for_s=600, blows=[blow("kill-shard", bit=True)]).holds


def test_a_broken_promise_is_one_however_short_the_run() -> None:
    run = run_of(*chosen(["kill-shard"]), for_s=1, blows=[blow("kill-shard", bit=True)])
    run.violations = [Violation("I5", "order:o1", "it was accepted, and is lost")]
    assert not run.holds


def test_what_a_blow_notes_is_plain_data() -> None:
    assert json.loads(json.dumps(blow("a", bit=True).to_data()))["evidence"] == ["it is gone"]
