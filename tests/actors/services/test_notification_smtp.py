"""A letter is handed to a mail server at most once, and what is not known is said."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from raysaga.actors.services.catalogue import build_participant
from raysaga.actors.services.notification import letters
from raysaga.actors.services.settings import ServicesSettings
from raysaga.statemachines.calls import Code, LedgerStatus, Outcome

from ..service_house import ORDER, House, OpenHouse


class PostOffice:
    """A real mail server on the loopback, which does what it is told.

    Attributes:
        taken: Every message that it has taken.
        recipient_answers: What it says to the next recipients; `250 OK` afterwards.
        message_answers: The same for messages; an empty one cuts the line instead.
    """

    def __init__(self) -> None:
        self.taken: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.recipient_answers: list[str] = []
        self.message_answers: list[str] = []
        self.password = b""
        self._server: asyncio.Server | None = None
        self.port = 0

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(
                self,
                enable_SMTPUTF8=False,
                authenticator=self.authenticate if self.password else None,
                auth_require_tls=False,
                auth_required=bool(self.password),
            ),
            "127.0.0.1",
            self.port,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: Any
    ) -> AuthResult:
        return AuthResult(success=login.password == self.password, handled=False)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        answer = self.recipient_answers.pop(0) if self.recipient_answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = self.message_answers.pop(0) if self.message_answers else "250 OK"
        if answer.startswith("250") or not answer:
            content = envelope.content
            assert isinstance(content, bytes)
            message = email.message_from_bytes(content, policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            self.taken.append(message)
            self.recipients += envelope.rcpt_tos
        if not answer:
            assert server.transport is not None
            server.transport.abort()
        return answer or "250 OK"


@pytest.fixture
async def office() -> AsyncIterator[PostOffice]:
    office = PostOffice()
    await office.open()
    yield office
    await office.close()


async def mailed(open_house: OpenHouse, office: PostOffice, **changed: Any) -> House:
    smtp = {
        "host": "127.0.0.1",
        "port": office.port,
        "timeout_ms": 5_000,
        "retry_ms_first": 1,
        **changed,
    }
    settings = ServicesSettings.calm(notification={"smtp": smtp, "sender": "shop@shop.invalid"})
    return await open_house(lambda: build_participant("notification", settings))


async def status(house: House, saga: str) -> str:
    told = await house.ask(saga)
    assert told.result is not None
    return str(told.result["status"])


async def test_a_letter_is_handed_over_and_taken_back(
    open_house: OpenHouse, office: PostOffice
) -> None:
    house = await mailed(open_house, office)
    given = await house.act("a", ORDER)
    assert given.outcome == Outcome.SUCCEEDED
    assert given.stored
    undone = await house.undo("a", ORDER)
    assert undone.outcome == Outcome.SUCCEEDED
    first, second = office.taken
    assert office.recipients == ["c-7@customers.invalid"] * 2
    assert first["Message-ID"] == given.result["message_id"]
    assert second["Message-ID"] == undone.result["message_id"]
    assert second["In-Reply-To"] == first["Message-ID"]
    assert not first.defects
    assert "o-1" in first.get_content()
    assert len(list(letters(house.ledger))) == 2


async def test_a_call_that_comes_twice_sends_once(
    open_house: OpenHouse, office: PostOffice
) -> None:
    house = await mailed(open_house, office)
    await asyncio.gather(*(house.act("a", ORDER, attempt=n) for n in (1, 2, 3)))
    await house.reopen()
    await house.act("a", ORDER, attempt=4)
    assert len(office.taken) == 1


@pytest.mark.parametrize(
    ("recipient_answers", "message_answers", "code"),
    [
        (["550 no such mailbox"], [], "RECIPIENT_REFUSED"),
        ([], ["554 we do not like it"], "MESSAGE_REFUSED"),
    ],
)
async def test_what_the_server_refuses_for_good_is_refused(
    recipient_answers: list[str],
    message_answers: list[str],
    code: str,
    open_house: OpenHouse,
    office: PostOffice,
) -> None:
    office.recipient_answers, office.message_answers = recipient_answers, message_answers
    house = await mailed(open_house, office)
    for attempt in (1, 2):
        reply = await house.act("a", ORDER, attempt=attempt)
        assert (reply.outcome, reply.code, reply.stored) == (Outcome.REFUSED, code, True)
        assert "mailbox" not in reply.message
    assert office.taken == []
    assert (await house.undo("a", ORDER)).outcome == Outcome.SUCCEEDED
    assert office.taken == []


@pytest.mark.parametrize("where", ["recipient_answers", "message_answers"])
async def test_what_the_server_cannot_take_now_is_tried_again(
    where: str, open_house: OpenHouse, office: PostOffice
) -> None:
    setattr(office, where, ["451 later", "452 a little later"])
    house = await mailed(open_house, office, tries_max=3)
    assert (await house.act("a", ORDER)).outcome == Outcome.SUCCEEDED
    assert len(office.taken) == 1


async def test_a_server_that_cannot_be_reached_leaves_the_letter_certainly_unsent(
    open_house: OpenHouse, office: PostOffice
) -> None:
    await office.close()
    house = await mailed(open_house, office)
    reply = await house.act("a", ORDER)
    assert (reply.outcome, reply.code) == (Outcome.REFUSED, "MAIL_SERVER_UNAVAILABLE")
    await office.open()
    # The refusal is this key's answer for ever; another order gets its letter.
    assert (await house.act("a", ORDER, attempt=2)).duplicate
    assert (await house.act("b", ORDER)).outcome == Outcome.SUCCEEDED
    assert len(office.taken) == 1


async def test_a_cut_line_leaves_the_letter_unknown_and_it_is_not_sent_again(
    open_house: OpenHouse, office: PostOffice
) -> None:
    """The server has taken the message, and its answer is lost; nobody can tell from here."""
    office.message_answers = [""]
    house = await mailed(open_house, office)
    for attempt in (1, 2):
        reply = await house.act("a", ORDER, attempt=attempt)
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, Code.OUTCOME_UNKNOWN)
    assert await status(house, "a") == LedgerStatus.UNKNOWN
    assert len(office.taken) == 1
    # Whoever got it is told that it is void; whoever did not loses nothing.
    assert (await house.undo("a", ORDER)).outcome == Outcome.SUCCEEDED
    assert len(office.taken) == 2
    assert "cancelled" in office.taken[1]["Subject"]
    assert await status(house, "a") == LedgerStatus.UNDONE


async def test_after_a_crash_a_letter_under_way_is_unknown_and_not_sent_again(
    open_house: OpenHouse, office: PostOffice
) -> None:
    """The process dies after PENDING was durable; whether it had sent is not to be known."""
    house = await mailed(open_house, office)
    provider: Any = house.service.operations["send"].provider  # type: ignore[attr-defined]
    asked = asyncio.Event()

    async def die(*arguments: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    provider.submit = die
    call = asyncio.create_task(house.act("a", ORDER))
    await asked.wait()
    [row] = house.ledger.rows()
    assert row.status is LedgerStatus.PENDING
    await house.reopen()
    call.cancel()
    reply = await house.act("a", ORDER, attempt=2)
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, Code.OUTCOME_UNKNOWN)
    assert office.taken == []
    assert await status(house, "a") == LedgerStatus.UNKNOWN


@pytest.mark.parametrize("changed", [{"order_id": None}, {"customer_id": "a\nb"}])
async def test_what_makes_no_sense_is_refused_without_asking_the_server(
    changed: dict[str, Any], open_house: OpenHouse, office: PostOffice
) -> None:
    house = await mailed(open_house, office)
    reply = await house.act("a", {**ORDER, **changed})
    assert (reply.outcome, reply.code) == (Outcome.REFUSED, "INVALID_REQUEST")
    assert office.taken == []


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
async def test_a_server_that_wants_a_login_gets_the_one_from_the_file(
    open_house: OpenHouse, office: PostOffice, tmp_path: Path
) -> None:
    """A wrong password leaves the letter certainly unsent; it may be right the next time."""
    office.password = b"correct-horse"
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    house = await mailed(
        open_house, office, username="shop", password_file=str(secret), tries_max=1
    )
    refused = await house.act("a", ORDER)
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "MAIL_SERVER_UNAVAILABLE")
    secret.write_text("correct-horse\n")
    assert (await house.act("b", ORDER)).outcome == Outcome.SUCCEEDED
    assert len(office.taken) == 1
