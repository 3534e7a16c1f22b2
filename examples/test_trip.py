"""The trip without Ray: in virtual time, with full hotels, lost answers and dead engines."""

from pathlib import Path

import pytest
from trip import Bank, Places, trip_of, trip_saga

from raysaga.testing import Rehearsal

BOOKINGS = ("book_flight", "book_hotel", "rent_car")


@pytest.fixture
def rehearsal(tmp_path: Path) -> Rehearsal:
    """Return an engine with two seats, one room, two cars, and a bank."""
    return Rehearsal(tmp_path, Places("flights", 2), Places("hotels", 1), Places("cars", 2), Bank())


def test_a_trip_books_three_things_pays_and_issues_the_ticket(rehearsal: Rehearsal) -> None:
    outcome = rehearsal.play(trip_saga, trip_of("ada"), key="ada")
    assert outcome.is_completed
    assert outcome.results["issue_ticket"] == {"ticket": "ada, seat 1"}
    assert sorted(rehearsal.calls[:3]) == sorted(BOOKINGS)
    assert rehearsal.calls[3:] == ["pay", "issue_ticket"]


def test_a_full_hotel_gives_seat_and_car_back(rehearsal: Rehearsal) -> None:
    rehearsal.play(trip_saga, trip_of("ada"), key="ada")
    outcome = rehearsal.play(trip_saga, trip_of("grace"), key="grace")
    assert (outcome.status, outcome.code, outcome.step) == ("compensated", "SOLD_OUT", "book_hotel")
    assert rehearsal.table("flights", "places") == {"FRA-LIS": ["trip:ada", ""]}
    assert rehearsal.table("cars", "places") == {"small": ["trip:ada", ""]}
    assert rehearsal.table("bank", "balances") == {"ada": 20_000}


def test_who_cannot_pay_keeps_nothing(rehearsal: Rehearsal) -> None:
    outcome = rehearsal.play(trip_saga, trip_of("alan", 200_000), key="alan")
    assert (outcome.status, outcome.code) == ("compensated", "INSUFFICIENT_FUNDS")
    for name in ("flights", "hotels", "cars"):
        assert not any(*rehearsal.table(name, "places").values())


@pytest.mark.parametrize("call", [*BOOKINGS, "pay", "issue_ticket"])
def test_a_lost_answer_is_asked_for_again_and_nothing_is_booked_twice(
    rehearsal: Rehearsal, call: str
) -> None:
    rehearsal.lose_answers(call)
    assert rehearsal.play(trip_saga, trip_of("ada"), key="ada").is_completed
    assert rehearsal.calls.count(call) == 2
    assert rehearsal.table("flights", "places") == {"FRA-LIS": ["trip:ada", ""]}
    assert rehearsal.table("bank", "balances") == {"ada": 20_000}


@pytest.mark.parametrize("call", [*BOOKINGS, "pay", "issue_ticket"])
def test_an_engine_that_dies_at_any_step_has_a_successor_that_ends_the_trip(
    rehearsal: Rehearsal, call: str
) -> None:
    rehearsal.kill_engine_at(call)
    outcome = rehearsal.play(trip_saga, trip_of("ada"), key="ada")
    assert outcome.is_completed
    assert rehearsal.table("bank", "balances") == {"ada": 20_000}


def test_an_engine_that_dies_on_the_way_back_still_gives_everything_back(
    rehearsal: Rehearsal,
) -> None:
    rehearsal.kill_engine_at("undo book_flight")
    outcome = rehearsal.play(trip_saga, trip_of("alan", 200_000), key="alan")
    assert outcome.status == "compensated"
    assert rehearsal.table("flights", "places") == {"FRA-LIS": ["", ""]}
