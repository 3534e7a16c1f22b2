"""Tokens are charged once and given back once; card numbers get no further than the door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysaga.actors.services.catalogue import build_participant
from raysaga.actors.services.payment import CurrencyTotals, currency_totals, entries
from raysaga.actors.services.service import Service
from raysaga.actors.services.settings import ServicesSettings
from raysaga.statemachines.calls import Code, Outcome

from ..service_house import ORDER, House, OpenHouse, order

CARD = "4111111111111111"


def payment(**changed: Any) -> Callable[[], Service]:
    settings = ServicesSettings.calm(payment=changed)
    return lambda: build_participant("payment", settings)


def paying(token: str = "tok_abc", amount_minor: Any = 378, currency: Any = "USD") -> Any:
    return {"token": token, "amount_minor": amount_minor, "currency": currency}


def balance(house: House) -> int:
    """Add up all entries; the legs of each movement must cancel each other out."""
    accounts: dict[str, int] = {}
    for entry in entries(house.ledger):
        accounts[entry.account] = accounts.get(entry.account, 0) + entry.amount_minor
    assert sum(accounts.values()) == 0
    return accounts.get("provider", 0)


async def test_a_charge_is_captured_and_its_refund_brings_it_back(open_house: OpenHouse) -> None:
    house = await open_house(payment())
    given = await house.act("a", ORDER)
    assert given.outcome == Outcome.SUCCEEDED
    assert given.result is not None
    assert given.result["charge_id"].startswith("ch_")
    assert list(currency_totals(house.ledger)) == [CurrencyTotals("USD", 378, 0, 1, 0)]
    assert balance(house) == 378
    undone = await house.undo("a", ORDER)
    assert dict(undone.result or {}) == dict(given.result)
    assert list(currency_totals(house.ledger)) == [CurrencyTotals("USD", 378, 378, 1, 1)]
    assert balance(house) == 0


async def test_a_call_that_comes_twice_moves_money_once(open_house: OpenHouse) -> None:
    house = await open_house(payment())
    await asyncio.gather(*(house.act("a", ORDER, attempt=n) for n in (1, 2, 3)))
    await house.act("a", ORDER, attempt=4)
    assert balance(house) == 378
    await asyncio.gather(*(house.undo("a", ORDER, attempt=n) for n in (1, 2, 3)))
    await house.reopen()
    await house.undo("a", ORDER, attempt=4)
    assert balance(house) == 0
    assert len(list(entries(house.ledger))) == 4


async def test_charge_ids_are_made_from_the_key_alone(open_house: OpenHouse) -> None:
    houses = [await open_house(payment(), name) for name in ("one", "two")]
    ids = [(await house.act("a", ORDER)).result["charge_id"] for house in houses]
    assert ids[0] == ids[1]
    other = await houses[0].act("b", ORDER)
    assert other.result["charge_id"] != ids[0]


@pytest.mark.parametrize(
    "request_",
    [
        order(payment=paying(token=CARD)),
        order(payment=paying(token="4111-1111-1111-1111")),
        order(order_id=CARD),
        order(note=f"please use {CARD}"),
        order(card={"number": int(CARD)}),
        order(payment={**paying(), CARD: "x"}),
        # Wrong in every other way too: the card number is what is told.
        {"order_id": 5, "payment": [CARD]},
    ],
)
async def test_a_card_number_is_refused_and_kept_nowhere(
    request_: Any,
    open_house: OpenHouse,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The number is in no message, no log, no row, no line of the log, and no page on disk."""
    house = await open_house(payment())
    for attempt in (1, 2):
        reply = await house.act("a", request_, attempt=attempt)
        assert (reply.outcome, reply.code, reply.stored) == (
            Outcome.REFUSED,
            "CARD_NUMBER_REFUSED",
            True,
        )
    assert (await house.undo("a", request_)).outcome == Outcome.SUCCEEDED
    [row] = house.ledger.rows()
    [line] = house.ledger.effects()
    shown = capfd.readouterr()
    for told in (repr(reply), repr(row), repr(line), shown.out, shown.err):
        assert CARD not in told.replace("-", "")
    await house.close()
    for path in (tmp_path / "ledger").iterdir():
        assert CARD.encode() not in path.read_bytes().replace(b"-", b"")


async def test_no_token_is_kept(open_house: OpenHouse, tmp_path: Path) -> None:
    house = await open_house(payment(credit_limit_minor=1_000))
    assert (await house.act("a", ORDER)).outcome == Outcome.SUCCEEDED
    await house.close()
    for path in (tmp_path / "ledger").iterdir():
        assert b"tok_abc" not in path.read_bytes()


async def test_declined_tokens_are_declined(open_house: OpenHouse) -> None:
    house = await open_house(payment())
    for token in ("tok_declined", "tok_declined_later"):
        reply = await house.act(token, order(payment=paying(token=token)))
        assert (reply.outcome, reply.code) == (Outcome.REFUSED, "PAYMENT_DECLINED")
        assert token not in reply.message
    assert balance(house) == 0


async def test_a_token_owes_no_more_than_its_limit(open_house: OpenHouse) -> None:
    """Ten orders of 300 want to be paid with each of two tokens, at once; refunds make room."""
    house = await open_house(payment(credit_limit_minor=1_000))

    async def pay(saga: str, token: str) -> bool:
        reply = await house.act(saga, order(payment=paying(token, 300)))
        assert reply.code in ("", "PAYMENT_DECLINED")
        return reply.outcome == Outcome.SUCCEEDED

    paid = await asyncio.gather(
        *(pay(f"{token}{n}", token) for n in range(10) for token in ("tok_a", "tok_b"))
    )
    assert sum(paid) == 6
    first = paid.index(True) // 2
    await house.undo(f"tok_a{first}", order(payment=paying("tok_a", 300)))
    assert await pay("again", "tok_a")
    assert not await pay("more", "tok_a")
    assert balance(house) == 1_800


async def test_a_limit_that_came_later_does_not_count_older_charges(
    open_house: OpenHouse,
) -> None:
    house = await open_house(payment())
    request = order(payment=paying("tok_a", 900))
    await house.act("old", request)
    await house.close()
    house._build = payment(credit_limit_minor=1_000)
    await house.open()
    assert (await house.act("new", request)).outcome == Outcome.SUCCEEDED
    assert (await house.undo("old", request)).outcome == Outcome.SUCCEEDED
    assert (await house.act("third", request)).code == "PAYMENT_DECLINED"


async def test_currencies_are_those_of_the_settings(open_house: OpenHouse) -> None:
    house = await open_house(payment(currencies=["EUR"]))
    assert (await house.act("a", ORDER)).code == "CURRENCY_UNSUPPORTED"
    given = await house.act("b", order(payment=paying(currency="EUR")))
    assert given.outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize(
    "changed",
    [
        {"order_id": None},
        {"customer_id": "a b"},
        {"payment": None},
        {"payment": {}},
        {"payment": paying(token="a\r\nb")},
        {"payment": paying(amount_minor=-1)},
        {"payment": paying(amount_minor=1.5)},
        {"payment": paying(amount_minor=True)},
        {"payment": paying(amount_minor=10**15)},
        {"payment": paying(currency="usd")},
        {"payment": paying(currency="ÄÖÜ")},
        {"payment": paying(currency=840)},
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_for_good(
    changed: dict[str, Any], open_house: OpenHouse
) -> None:
    house = await open_house(payment())
    reply = await house.act("a", order(**changed))
    assert (reply.outcome, reply.code) == (Outcome.REFUSED, Code.INVALID_REQUEST)
    assert next(iter(changed)) in reply.message


async def test_an_order_of_nothing_is_charged_nothing(open_house: OpenHouse) -> None:
    house = await open_house(payment())
    given = await house.act("a", order(payment=paying(amount_minor=0)))
    assert given.result["amount_minor"] == 0
    assert (await house.undo("a", order(payment=paying(amount_minor=0)))).outcome == (
        Outcome.SUCCEEDED
    )
    assert list(currency_totals(house.ledger)) == [CurrencyTotals("USD", 0, 0, 1, 1)]
