"""One letter for each order and direction, in a maildir that crashes cannot spoil."""

from __future__ import annotations

import asyncio
import email.policy
import mailbox
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from raysaga.actors.services.catalogue import build_participant
from raysaga.actors.services.mail_delivery import MaildirDelivery
from raysaga.actors.services.notification import Notification, letters
from raysaga.actors.services.service import Service
from raysaga.actors.services.settings import ServicesSettings
from raysaga.statemachines.calls import Code, Outcome

from ..service_house import ORDER, House, OpenHouse, order


def notification(folder: Path | None, **changed: Any) -> Callable[[], Service]:
    mine = {**changed, **({} if folder is None else {"maildir": str(folder / "mail")})}
    settings = ServicesSettings.calm(notification=mine)
    return lambda: build_participant("notification", settings)


def mail(folder: Path) -> list[EmailMessage]:
    """Read all letters, in the order of their names."""
    box = mailbox.Maildir(folder / "mail", create=False)
    found = []
    for key in sorted(box.keys()):
        data = box.get_bytes(key)
        message = email.message_from_bytes(data, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        assert not message.defects
        found.append(message)
    assert not list((folder / "mail" / "tmp").iterdir())
    return found


def subjects(folder: Path) -> list[str]:
    return [str(message["Subject"]) for message in mail(folder)]


class Broken(MaildirDelivery):
    """A maildir on a disk that is full, or a process that dies before or after the rename."""

    dies: str = ""

    def deliver(self, letter: Any) -> None:
        if self.dies == "before":
            raise OSError(28, "No space left on device")
        super().deliver(letter)
        if self.dies == "after":
            raise OSError(5, "Input/output error")


def break_delivery(house: House, dies: str) -> Broken:
    service = house.service
    assert isinstance(service, Notification)
    assert service._delivery is not None
    service._delivery.__class__ = Broken
    broken = service._delivery
    assert isinstance(broken, Broken)
    broken.dies = dies
    return broken


async def test_an_order_is_confirmed_by_one_letter(open_house: OpenHouse, tmp_path: Path) -> None:
    house = await open_house(notification(tmp_path))
    given = await house.act("a", ORDER)
    assert given.outcome == Outcome.SUCCEEDED
    [message] = mail(tmp_path)
    assert message["To"] == "c-7@customers.invalid"
    assert message["From"] == "orders@shop.invalid"
    assert message["Message-ID"] == given.result["message_id"]
    assert "o-1" in message["Subject"]
    assert "o-1" in message.get_content()


async def test_a_letter_is_taken_back_by_a_second_one(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    house = await open_house(notification(tmp_path))
    await house.act("a", ORDER)
    undone = await house.undo("a", ORDER)
    first, second = mail(tmp_path)
    assert second["In-Reply-To"] == first["Message-ID"]
    assert second["Message-ID"] == undone.result["message_id"]
    assert "cancelled" in second["Subject"]


async def test_a_letter_that_was_never_written_is_not_taken_back(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    house = await open_house(notification(tmp_path))
    assert (await house.undo("a", ORDER)).outcome == Outcome.SUCCEEDED
    assert (await house.act("a", ORDER)).code == Code.CANCELLED_BEFORE_START
    assert mail(tmp_path) == []


async def test_a_call_that_comes_twice_writes_once(open_house: OpenHouse, tmp_path: Path) -> None:
    house = await open_house(notification(tmp_path))
    for _ in range(2):
        await asyncio.gather(*(house.act(f"s{n}", ORDER) for n in range(20) for _ in range(3)))
        await house.reopen()
    assert len(mail(tmp_path)) == 20


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_a_crash_around_the_file_leaves_one_letter_in_the_end(
    dies: str, open_house: OpenHouse, tmp_path: Path
) -> None:
    """The letter is decided and durable; the process dies before or after its file appears."""
    house = await open_house(notification(tmp_path))
    break_delivery(house, dies)
    assert (await house.act("a", ORDER)).outcome == Outcome.SUCCEEDED
    assert len(mail(tmp_path)) == (dies == "after")
    await house.reopen()
    await house.act("b", order(order_id="o-2"))
    assert len(mail(tmp_path)) == 2
    assert len({message["Message-ID"] for message in mail(tmp_path)}) == 2


async def test_a_letter_that_was_read_or_thrown_away_does_not_come_back(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    """A mail reader deletes one letter, and moves another that is not noted as brought out yet."""
    house = await open_house(notification(tmp_path))
    await house.act("deleted", ORDER)
    await house.act("moved", ORDER)
    names = {letter.name for letter in letters(house.ledger)}
    # The second call has noted the first one's letter.
    [moved] = [name for name, _ in house.ledger.scan("outbox")]
    [deleted] = names - {moved}
    box = mailbox.Maildir(tmp_path / "mail", create=False)
    box.remove(deleted)
    message = box[moved]
    message.set_subdir("cur")
    message.add_flag("S")
    box[moved] = message
    await house.reopen()
    await house.act("other", ORDER)
    assert len(mail(tmp_path)) == 2


async def test_a_full_disk_holds_up_letters_and_not_orders(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    house = await open_house(notification(tmp_path))
    broken = break_delivery(house, "before")
    for n in range(3):
        assert (await house.act(f"s{n}", ORDER)).outcome == Outcome.SUCCEEDED
    assert mail(tmp_path) == []
    broken.dies = ""
    await house.act("s3", ORDER)
    assert len(mail(tmp_path)) == 4


async def test_the_first_letter_goes_out_before_the_one_that_takes_it_back(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    house = await open_house(notification(tmp_path))
    break_delivery(house, "before")
    await house.act("a", ORDER)
    await house.reopen()
    await house.undo("a", ORDER)
    assert [("cancelled" in subject) for subject in subjects(tmp_path)] == [False, True]


async def test_what_was_brought_out_is_noted_with_the_next_call(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    """However many letters there were, few are still in the house, and none after the end."""
    house = await open_house(notification(tmp_path))
    for n in range(30):
        await house.act(f"s{n}", ORDER)
    assert len(list(house.ledger.scan("outbox"))) <= 2
    await house.release("s0", "completed")
    assert list(house.ledger.scan("outbox")) == []
    assert len(list(letters(house.ledger))) == 30


async def test_without_a_maildir_letters_stay_in_the_table(open_house: OpenHouse) -> None:
    house = await open_house(notification(None))
    await house.act("a", ORDER)
    await house.undo("a", ORDER)
    assert [letter.kind for letter in letters(house.ledger)] == ["confirmation", "take-back"]
    assert list(house.ledger.scan("outbox")) == []


async def test_a_directory_knows_the_addresses(open_house: OpenHouse, tmp_path: Path) -> None:
    directory = {"c-7": "ada@example.invalid"}
    house = await open_house(notification(tmp_path, directory=directory, sender="me@shop.invalid"))
    await house.act("a", ORDER)
    refused = await house.act("b", order(customer_id="c-8"))
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "RECIPIENT_UNKNOWN")
    [message] = mail(tmp_path)
    assert (message["To"], message["From"]) == ("ada@example.invalid", "me@shop.invalid")


@pytest.mark.parametrize(
    "changed",
    [
        {"order_id": "o-1\r\nBcc: all@shop.invalid"},
        {"customer_id": "c-7@elsewhere.invalid>\nX: y"},
        {"customer_id": None},
    ],
)
async def test_nobody_can_write_into_the_headers(
    changed: dict[str, Any], open_house: OpenHouse, tmp_path: Path
) -> None:
    house = await open_house(notification(tmp_path))
    reply = await house.act("a", order(**changed))
    assert (reply.outcome, reply.code) == (Outcome.REFUSED, Code.INVALID_REQUEST)
    assert mail(tmp_path) == []
