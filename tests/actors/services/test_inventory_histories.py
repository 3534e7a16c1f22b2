"""Random histories of orders leave the stock that a sheet of paper would show."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysaga.actors.participant import Effects
from raysaga.actors.services.catalogue import build_participant
from raysaga.actors.services.inventory_stock import (
    Stock,
    StockConflictError,
    StockLine,
    stock_lines,
)
from raysaga.actors.services.inventory_strategies import StrategyName
from raysaga.actors.services.service import change_tables
from raysaga.actors.services.settings import ServicesSettings
from raysaga.statemachines.calls import Outcome

from ..service_house import House, items, order

ITEMS = ("milk", "bread", "eggs")


class Move(NamedTuple):
    verb: str
    order: int
    wanted: dict[str, int]


moves = st.lists(
    st.builds(
        Move,
        verb=st.sampled_from(["reserve", "reserve", "release", "complete", "reopen"]),
        order=st.integers(0, 5),
        wanted=st.dictionaries(st.sampled_from(ITEMS), st.integers(1, 6), min_size=1),
    ),
    max_size=25,
)


@given(
    strategy=st.sampled_from(list(StrategyName)),
    initial=st.fixed_dictionaries({name: st.integers(0, 12) for name in ITEMS}),
    history=moves,
)
@settings(max_examples=40, deadline=None)
def test_any_history_leaves_the_stock_that_a_sheet_of_paper_shows(
    strategy: str, initial: dict[str, int], history: list[Move]
) -> None:
    held, shown = asyncio.run(_play(strategy, initial, history))
    assert held == shown


async def _play(
    strategy: str, initial: dict[str, int], history: list[Move]
) -> tuple[list[StockLine], list[StockLine]]:
    """Play the history until the two differ, and return both."""
    chosen = ServicesSettings.calm(
        inventory={"strategy": strategy, "bucket_count": 3, "stock": {"items": initial}}
    )
    with tempfile.TemporaryDirectory() as folder:
        house = House(lambda: build_participant("inventory", chosen), Path(folder) / "ledger")
        await house.open()
        try:
            sheet = Sheet(initial)
            for move in history:
                if move.verb == "reopen":
                    await house.reopen()
                else:
                    await sheet.play(house, move)
                if list(stock_lines(house.ledger)) != sheet.lines():
                    break
            return list(stock_lines(house.ledger)), sheet.lines()
        finally:
            await house.close()


class Sheet:
    """Stock as one would keep it by hand; an order is asked for once, as its ledger row is."""

    def __init__(self, initial: dict[str, int]) -> None:
        self.initial = initial
        self.reserved: Counter[str] = Counter()
        self.sold: Counter[str] = Counter()
        self.requests: dict[int, dict[str, int]] = {}
        self.standing: set[int] = set()
        self.over: set[int] = set()

    def lines(self) -> list[StockLine]:
        return [
            StockLine(
                name,
                count,
                count - self.reserved[name] - self.sold[name],
                self.reserved[name],
                self.sold[name],
            )
            for name, count in sorted(self.initial.items())
        ]

    async def play(self, house: House, move: Move) -> None:
        wanted = self.requests.setdefault(move.order, move.wanted)
        request = order(order_id=f"o-{move.order}", items=items(**wanted))
        saga = f"s{move.order}"
        is_known = move.order in self.over or move.order in self.standing
        if move.verb == "reserve":
            reply = await house.act(saga, request)
            if not is_known:
                fits = all(
                    count <= self.initial[name] - self.reserved[name] - self.sold[name]
                    for name, count in wanted.items()
                )
                assert (reply.outcome == Outcome.SUCCEEDED) == fits
                if fits:
                    self.standing.add(move.order)
                    self.reserved.update(wanted)
                else:
                    self.over.add(move.order)
        elif move.verb == "release":
            assert (await house.undo(saga, request)).outcome == Outcome.SUCCEEDED or is_known
            if move.order in self.standing:
                self.standing.discard(move.order)
                self.reserved.subtract(wanted)
            self.over.add(move.order)
        elif move.order in self.standing:
            assert (await house.release(saga, "completed")).outcome == Outcome.SUCCEEDED
            self.standing.discard(move.order)
            self.over.add(move.order)
            self.reserved.subtract(wanted)
            self.sold.update(wanted)


@given(
    first=st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 50)),
    more=st.dictionaries(st.sampled_from(ITEMS), st.integers(0, 50)),
)
@settings(max_examples=25, deadline=None)
def test_a_top_up_raises_and_never_lowers(first: dict[str, int], more: dict[str, int]) -> None:
    chosen = ServicesSettings.calm(inventory={"stock": {"items": first}})

    async def compare() -> None:
        with tempfile.TemporaryDirectory() as folder:
            house = House(lambda: build_participant("inventory", chosen), Path(folder) / "ledger")
            await house.open()
            try:
                before = {line.item_id: line.initial for line in stock_lines(house.ledger)}
                assert before == first
                is_lower = any(more[name] < count for name, count in first.items() if name in more)
                service: Any = house.service
                with pytest.raises(StockConflictError) if is_lower else nullcontext():
                    service.load(house.ledger, Stock(items=more), top_up=True)
                expected = first if is_lower else {**first, **more}
                after = {line.item_id: line.initial for line in stock_lines(house.ledger)}
                assert after == expected
            finally:
                await house.close()

    asyncio.run(compare())


async def test_a_change_that_raises_changes_nothing(tmp_path: Path) -> None:
    chosen = ServicesSettings.calm(inventory={"stock": {"items": {"milk": 3}}})
    house = House(lambda: build_participant("inventory", chosen), tmp_path / "ledger")
    await house.open()
    try:

        def body(effects: Effects) -> None:
            effects.put("stock", "milk", None)
            raise LookupError

        with pytest.raises(LookupError):
            change_tables(house.ledger, 0, body)
        assert [line.initial for line in stock_lines(house.ledger)] == [3]
    finally:
        await house.close()
