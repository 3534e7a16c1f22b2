"""An audit calls honest books clean, and finds every kind of cheating."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysaga.actors.services.audit import AuditReport, SagaEnd, audit
from raysaga.actors.services.audit_books import Books, StepHistory, open_ledgers, read_books
from raysaga.actors.services.catalogue import SERVICE_NAMES, build_participant
from raysaga.actors.services.inventory_stock import StockLine
from raysaga.actors.services.service import change_tables
from raysaga.actors.services.settings import ServicesSettings
from raysaga.statemachines.calls import LedgerStatus, Outcome, StepReply
from raysaga.statemachines.ids import StepKey
from raysaga.statemachines.tables import Phase

from ..service_house import JOURNAL, STEPS, House, OpenHouse, items, order

TROUBLE = {"chance_unavailable": 0.1, "chance_refuse": 0.08}


async def definite(send: Callable[[int], Any]) -> StepReply:
    attempt = 1
    while True:
        # Everything is sent twice at once, as a nervous network would.
        replies = await asyncio.gather(send(attempt), send(attempt))
        for reply in replies:
            if reply.outcome != Outcome.UNKNOWN:
                assert isinstance(reply, StepReply)
                return reply
        attempt += 1


class Shop:
    """The four services, and a hand that leads orders through them."""

    def __init__(self, houses: Mapping[str, House]) -> None:
        self.houses = houses
        self.ends: list[SagaEnd] = []

    async def serve(self, saga: str, wanted: dict[str, Any], stops_after: int = 99) -> None:
        """Lead an order to its end; or leave it parked after so many steps."""
        done: list[str] = []
        for name in SERVICE_NAMES[:stops_after]:
            house = self.houses[name]
            done.append(name)
            reply = await definite(lambda n, at=house: at.act(saga, wanted, attempt=n))
            if reply.outcome == Outcome.REFUSED:
                for back in reversed(done):
                    house = self.houses[back]
                    await definite(lambda n, at=house: at.undo(saga, wanted, attempt=n))
                return await self._end(saga, wanted, Phase.COMPENSATED)
        if len(done) < len(SERVICE_NAMES):
            remaining = frozenset(STEPS[name] for name in done)
            end = SagaEnd.of(
                {"saga_id": f"order:{saga}", "phase": "parked_running", "remaining": remaining},
                wanted,
            )
            self.ends.append(end)
            return None
        return await self._end(saga, wanted, Phase.COMPLETED)

    async def _end(self, saga: str, wanted: dict[str, Any], phase: Phase) -> None:
        outcome = {"saga_id": f"order:{saga}", "phase": phase.value, "remaining": []}
        self.ends.append(SagaEnd.of(outcome, wanted))
        for house in self.houses.values():
            await house.release(saga, phase.value)

    def books(self) -> Books:
        return read_books({name: house.ledger for name, house in self.houses.items()})

    def audit(self) -> AuditReport:
        return audit(self.books(), self.ends)


OpenShop = Callable[..., Any]


@pytest.fixture
async def open_shop(open_house: OpenHouse, tmp_path: Path) -> OpenShop:
    async def open_it(**trouble: float) -> Shop:
        settings = ServicesSettings.calm(
            seed=11,
            inventory={
                "strategy": "buckets",
                "stock": {"items": {"milk": 60, "bread": 500}, "default": 40},
                "behaviour": trouble,
            },
            payment={"behaviour": trouble, "credit_limit_minor": 4_000},
            shipping={"behaviour": trouble, "carrier_capacity": 60},
            notification={"behaviour": trouble, "maildir": "mail"},
        )

        def builder(name: str) -> Callable[[], Any]:
            return lambda: build_participant(name, settings, data_folder=tmp_path)

        return Shop({name: await open_house(builder(name), name) for name in SERVICE_NAMES})

    return open_it


def wish(number: int) -> dict[str, Any]:
    return order(
        order_id=f"o-{number}",
        customer_id=f"c-{number % 9}",
        items=items(milk=1 + number % 3, bread=2, **{f"soap-{number % 4}": 1}),
        payment={
            "token": f"tok_{number % 5}",
            "amount_minor": 100 + number,
            "currency": ("USD", "EUR")[number % 2],
        },
    )


async def test_honest_books_are_clean(open_shop: OpenShop, tmp_path: Path) -> None:
    """Eighty orders at once, each call sent twice, with refusals of every kind, some parked."""
    shop = await open_shop(**TROUBLE)
    await asyncio.gather(
        *(
            shop.serve(f"s{n}", wish(n), stops_after=n % 4 or 99 if n % 10 == 0 else 99)
            for n in range(80)
        )
    )
    report = shop.audit()
    assert report.is_clean, str(report)
    counts = report.counts
    assert counts["sagas"] == 80
    for kind in ("completed", "compensated", "parked_running"):
        assert counts[f"sagas_{kind}"] > 0, counts
    assert all(check.examined_count for check in report.checks), str(report)
    assert json.loads(json.dumps(report.to_data()))["is_clean"] is True
    for house in shop.houses.values():
        await house.close()
    readers = open_ledgers({name: tmp_path / name for name in SERVICE_NAMES})
    try:
        assert audit(read_books(readers), shop.ends).to_data() == report.to_data()
    finally:
        for reader in readers.values():
            reader.close()


@pytest.fixture
async def small(open_shop: OpenShop) -> Shop:
    """One order completed, one compensated, one parked after its payment."""
    shop: Shop = await open_shop()
    await shop.serve("done", wish(1))
    refused = wish(2) | {"payment": {**wish(2)["payment"], "token": "tok_declined"}}
    await shop.serve("undone", refused)
    await shop.serve("parked", wish(3), stops_after=2)
    assert shop.audit().is_clean, str(shop.audit())
    return shop


def failed(report: AuditReport) -> set[str]:
    assert not report.is_clean
    return {check.name for check in report.failed}


def history_of(books: Books, service: str, saga: str) -> StepHistory:
    return books.histories[service][StepKey(JOURNAL, f"order:{saga}", STEPS[service])]


def ends_with(shop: Shop, saga: str, **changed: Any) -> list[SagaEnd]:
    return [end._replace(**changed) if end.saga_id == f"order:{saga}" else end for end in shop.ends]


def put(shop: Shop, service: str, table: str, key: str, value: Any) -> None:
    ledger = shop.houses[service].ledger
    change_tables(ledger, 0, lambda effects: effects.put(table, key, value))


async def test_an_effect_that_happened_twice_is_found(small: Shop) -> None:
    books = small.books()
    history_of(books, "payment", "done").actions = 2
    found = failed(audit(books, small.ends))
    assert {"effects_at_most_once", "completed_whole", "rows_match_effects"} <= found


async def test_an_action_after_its_undo_is_found(small: Shop) -> None:
    books = small.books()
    history_of(books, "inventory", "undone").acted_late = True
    assert failed(audit(books, small.ends)) == {"no_action_after_undo"}


async def test_a_row_that_contradicts_the_log_is_found(small: Shop) -> None:
    books = small.books()
    history_of(books, "shipping", "done").status = LedgerStatus.UNDONE
    assert failed(audit(books, small.ends)) == {"rows_match_effects"}


async def test_a_completed_saga_without_all_its_effects_is_found(small: Shop) -> None:
    report = audit(small.books(), ends_with(small, "parked", phase=Phase.COMPLETED))
    assert failed(report) == {"completed_whole"} or "completed_whole" in failed(report)
    ends = [*small.ends, SagaEnd("order:ghost", Phase.COMPLETED)]
    [check] = audit(small.books(), ends).failed
    assert check.name == "completed_whole"
    assert check.offender_count == 4


async def test_a_completed_saga_may_lack_what_it_lists(small: Shop) -> None:
    ends = [
        *small.ends,
        SagaEnd("order:ghost", Phase.COMPLETED, remaining=frozenset(STEPS.values())),
    ]
    assert audit(small.books(), ends).is_clean


async def test_an_effect_left_behind_is_found(small: Shop) -> None:
    report = audit(small.books(), ends_with(small, "done", phase=Phase.COMPENSATED))
    assert "others_undone" in failed(report)
    parked = audit(small.books(), ends_with(small, "parked", remaining=frozenset()))
    assert failed(parked) == {"others_undone"}


async def test_a_saga_that_never_ended_is_found(small: Shop) -> None:
    report = audit(small.books(), ends_with(small, "undone", phase=Phase.RUNNING))
    assert failed(report) == {"sagas_ended"}


async def test_effects_of_an_unknown_saga_are_found(small: Shop) -> None:
    ends = [end for end in small.ends if end.saga_id != "order:done"]
    assert failed(audit(small.books(), ends)) == {"no_orphans"}


@pytest.mark.parametrize(
    ("row", "checks"),
    [
        # There are 57 on hand, 1 reserved, 2 sold, of 60.
        ([60, 1, 2, 9, 60, 1], {"stock_conserved"}),
        ([58, 1, 1, 9, 60, 1], {"stock_matches_effects"}),
        ([57, 2, 2, 9, 60, 1], {"stock_conserved", "stock_matches_effects"}),
        ([-1, 59, 2, 9, 60, 1], {"stock_conserved", "stock_matches_effects"}),
    ],
)
async def test_stock_that_does_not_add_up_is_found(
    row: list[int], checks: set[str], small: Shop
) -> None:
    put(small, "inventory", "stock", "milk", row)
    assert failed(small.audit()) == checks


async def test_stock_that_adds_up_to_the_wrong_orders_is_found(small: Shop) -> None:
    """A piece moved from the shelf to the reserved ones: conserved, but no order took it."""
    room = small.houses["inventory"].ledger
    row = room.get("stock", "bread")
    put(small, "inventory", "stock", "bread", [row[0] - 1, row[1] + 1, *row[2:]])
    assert failed(small.audit()) == {"stock_matches_effects"}


async def test_stock_that_was_overdrawn_on_the_way_is_found(small: Shop) -> None:
    """At the end everything is back, but in between more was taken than there was."""
    books = small.books()
    lines = [StockLine("milk", 1, 1, 0, 0), *books.stock]
    assert "stock_conserved" not in {check.name for check in audit(books, small.ends).failed}
    from raysaga.actors.services.audit_books import find_overdrafts

    overdrafts = tuple(find_overdrafts(small.houses["inventory"].ledger.effects(), lines[:1]))
    assert {draft.item_id for draft in overdrafts} >= {"milk"}
    assert "stock_conserved" in failed(audit(replace(books, overdrafts=overdrafts), small.ends))


async def test_an_order_that_got_other_pieces_is_found(small: Shop) -> None:
    report = audit(small.books(), ends_with(small, "done", items={"milk": 99}))
    assert failed(report) == {"stock_matches_orders"}


async def test_an_order_that_paid_another_price_is_found(small: Shop) -> None:
    report = audit(small.books(), ends_with(small, "done", amount_minor=1))
    assert failed(report) == {"money_matches_orders"}
    report = audit(small.books(), ends_with(small, "done", currency="CHF"))
    assert failed(report) == {"money_matches_orders"}


async def test_entries_that_do_not_add_up_are_found(small: Shop) -> None:
    [charge_id, *_] = [key for key, _ in small.houses["payment"].ledger.scan("charges")]
    put(small, "payment", "entries", f"{charge_id}/capture/provider", [1, "EUR"])
    found = failed(small.audit())
    assert {"money_balanced", "money_matches_effects"} <= found


async def test_totals_that_nobody_booked_are_found(small: Shop) -> None:
    put(small, "payment", "totals", "CHF", [100, 0, 1, 0])
    assert failed(small.audit()) == {"money_balanced"}


async def test_a_charge_that_no_step_made_is_found(small: Shop) -> None:
    for account, amount_minor in (("provider", 5), ("orders", -5)):
        put(small, "payment", "entries", f"ch_x/capture/{account}", [amount_minor, "EUR"])
    found = failed(small.audit())
    assert {"money_balanced", "money_matches_effects", "money_matches_orders"} <= found


async def test_a_shipment_in_the_wrong_place_is_found(small: Shop) -> None:
    ledger = small.houses["shipping"].ledger
    [(tracking_id, row)] = ledger.scan("shipments")
    put(small, "shipping", "shipments", tracking_id, [*row[:3], "cancelled"])
    assert failed(small.audit()) == {"shipments_match_effects"}
    put(small, "shipping", "shipments", tracking_id, row)
    put(small, "shipping", "load", "scheduled", 3)
    assert failed(small.audit()) == {"shipments_match_effects"}
    put(small, "shipping", "load", "scheduled", 0)
    put(small, "shipping", "shipments", "trk_x", [*row[:3], "dispatched"])
    assert failed(small.audit()) == {"shipments_match_effects"}


async def test_a_letter_too_many_or_too_few_is_found(small: Shop) -> None:
    ledger = small.houses["notification"].ledger
    [(name, row)] = ledger.scan("letters")
    put(small, "notification", "letters", "msg_x-confirmation", row)
    assert failed(small.audit()) == {"letters_match_effects"}
    change_tables(ledger, 0, lambda effects: effects.delete("letters", "msg_x-confirmation"))
    assert small.audit().is_clean
    change_tables(ledger, 0, lambda effects: effects.delete("letters", name))
    assert failed(small.audit()) == {"letters_match_effects"}


@pytest.mark.parametrize("lines_max", [1, 1_000])
async def test_a_log_that_was_pruned_is_told_and_not_called_wrong(
    lines_max: int, small: Shop
) -> None:
    for house in small.houses.values():
        house.ledger.prune_effects(2**62, lines_max=lines_max)
    report = small.audit()
    assert report.is_clean, str(report)
    assert {note.partition(":")[0] for note in report.notes} == set(SERVICE_NAMES)
    # What the rows alone can show is still found.
    assert failed(audit(small.books(), ends_with(small, "parked", remaining=frozenset()))) == {
        "others_undone"
    }


async def test_rows_that_were_pruned_are_not_missed(small: Shop) -> None:
    for house in small.houses.values():
        assert house.ledger.prune(2**50, 0) >= 1
    assert small.audit().is_clean
    assert not small.audit().notes
    for house in small.houses.values():
        house.ledger.prune_effects(2**62)
    report = small.audit()
    assert report.is_clean, str(report)
    assert len(report.notes) == len(SERVICE_NAMES)


async def test_a_report_is_readable_and_bounded(small: Shop) -> None:
    ends = [*small.ends, *(SagaEnd(f"order:g{n}", Phase.COMPLETED) for n in range(100))]
    report = audit(small.books(), ends)
    [check] = report.failed
    assert check.offender_count == 400
    assert len(check.offenders) == 50
    text = str(report)
    assert "FAIL completed_whole" in text
    assert "ok   money_balanced" in text
