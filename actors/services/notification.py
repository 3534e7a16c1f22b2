"""Tells customers of their orders by letter, and takes a letter back with another one.

Guarantees: one letter for each step key and direction. Into a maildir: the letter is decided
in the transaction of its ledger row, and brought out afterwards under a name made from the
key; what a crash leaves inside is brought out when the next letter comes. To a mail server:
see `mail_delivery`; the ledger says PENDING before it is sent, and UNKNOWN if nobody will
ever know.
Refuses: `RECIPIENT_UNKNOWN` for customers whom a directory does not list, and whatever the
mail server refuses for good.
Costs: two writes for each letter, and the maildir's.

Request: `{"order_id", "customer_id"}`. Answer of `send` and of `take_back`: `{"message_id"}`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from typing import Any, Final

import structlog

from raysaga.actors.clock import Clock
from raysaga.actors.participant import Effects, LedgerRow, Operation, Refusal, View
from raysaga.actors.provider import ProviderOperation
from raysaga.actors.services.behaviour import SeededBehaviour
from raysaga.actors.services.mail import Letter, LetterKind, customer_address
from raysaga.actors.services.mail_delivery import (
    MAIL_SERVER_UNAVAILABLE,
    MESSAGE_REFUSED,
    RECIPIENT_REFUSED,
    MaildirDelivery,
    SmtpProvider,
    SmtpSettings,
)
from raysaga.actors.services.requests import id_from_key, key_of, name_in
from raysaga.actors.services.service import Service
from raysaga.statemachines.calls import ACTION, COMPENSATION, StepCall

RECIPIENT_UNKNOWN = "RECIPIENT_UNKNOWN"

LETTERS, OUTBOX = "letters", "outbox"
"""Tables: every letter by name, and the names of those that are still in the house."""

_MARKED_MAX: Final = 8
"""Letters noted as brought out along with one call; it adds two, so none are left behind."""

_log = structlog.get_logger(__name__)


class Notification(Service):
    """The notification service of the order saga, with a maildir or with a table alone."""

    name = "notification"
    tables = (LETTERS, OUTBOX)
    refusals = (RECIPIENT_UNKNOWN, RECIPIENT_REFUSED, MESSAGE_REFUSED, MAIL_SERVER_UNAVAILABLE)
    refusal_by_chance = RECIPIENT_REFUSED

    def __init__(
        self,
        *,
        delivery: MaildirDelivery | None = None,
        directory: Mapping[str, str] | None = None,
        trouble: SeededBehaviour | None = None,
    ) -> None:
        """Bring letters out by `delivery`; None keeps them in the table of letters.

        Args:
            delivery: Where letters go.
            directory: Address of each customer; None: made from the customer's id.
            trouble: See `Service`.
        """
        super().__init__(trouble)
        self.operations: Mapping[str, Operation] = {
            "send": Operation(apply=self.send, undo_name="take_back", undo=self.take_back)
        }
        self._delivery = delivery
        self._directory = directory
        self._is_swept = False
        self._sweeping = asyncio.Lock()
        self._carried = _Carried()

    def is_guarded(self, call: StepCall) -> bool:
        """Whether a letter may have to be brought out after the call."""
        return self._delivery is not None and call.verb in (ACTION, COMPENSATION)

    def guard(self, call: StepCall, view: View) -> AbstractAsyncContextManager[Any]:
        """Return what brings the call's letter out once it is decided for good."""
        return self._bringing_out(call, view) if self.is_guarded(call) else self.unguarded

    def send(
        self,
        effects: Effects,
        call: StepCall,
        context: Any,  # noqa: ARG002 - nothing is looked at before
    ) -> Mapping[str, Any]:
        """Decide the letter that confirms the order.

        Raises:
            Refusal: `RECIPIENT_UNKNOWN`, `INVALID_REQUEST`, or by chance.
        """
        order_id, recipient = self.addressed(call)
        self.refuse_by_chance(call)
        return self._decide(effects, call, LetterKind.CONFIRMATION, order_id, recipient)

    def take_back(
        self,
        effects: Effects,
        call: StepCall,
        applied: Mapping[str, Any] | None,  # noqa: ARG002 - a letter is taken back in any case
        context: Any,  # noqa: ARG002 - nothing is looked at before
    ) -> Mapping[str, Any]:
        """Decide the letter that takes the first one back."""
        order_id, recipient = self.addressed(call)
        return self._decide(effects, call, LetterKind.TAKE_BACK, order_id, recipient)

    def settle(
        self,
        effects: Effects,
        row: LedgerRow,  # noqa: ARG002 - letters are kept
        outcome: str,  # noqa: ARG002 - whatever it was
    ) -> None:
        """Note along the way what has been brought out."""
        self._mark_carried(effects)

    def addressed(self, call: StepCall) -> tuple[str, str]:
        """Return the order and the address that the call is about.

        Raises:
            Refusal: `RECIPIENT_UNKNOWN` or `INVALID_REQUEST`.
        """
        order_id = name_in(call.request, "order_id")
        customer_id = name_in(call.request, "customer_id")
        if self._directory is None:
            return order_id, customer_address(customer_id)
        recipient = self._directory.get(customer_id)
        if recipient is None:
            raise Refusal(RECIPIENT_UNKNOWN, "the directory does not list the customer")
        return order_id, recipient

    async def sweep(self, view: View) -> int:
        """Bring out every letter that is still in the house; return how many there were.

        Happens by itself before the first call that may write a letter, and again after one
        that went wrong. What has a file already is not written again.

        Raises:
            OSError: If the maildir cannot be written to.
        """
        delivery = self._delivery
        if delivery is None:
            return 0
        inside = [name for name, _ in view.scan(OUTBOX) if name not in self._carried]
        if not inside:
            return 0
        outside = await asyncio.to_thread(delivery.delivered)
        for name in inside:
            if name in outside:
                self._carried.add(name)
            else:
                await self._bring_out(name, view)
        return len(inside)

    @asynccontextmanager
    async def _bringing_out(self, call: StepCall, view: View) -> AsyncIterator[None]:
        try:
            await self._sweep_once(view)
        except OSError as error:
            # The letters are safe in the table; this call's own is tried below all the same.
            _log.warning("maildir_sweep_failed", error=repr(error))
        try:
            yield None
        except BaseException:
            # Whether a letter was decided is not known here; the next sweep will see.
            self._is_swept = False
            raise
        notice_id = id_from_key("msg", key_of(call))
        # Both, in their order, in case the first one is still inside.
        for kind in LetterKind:
            name = f"{notice_id}-{kind.value}"
            try:
                await self._bring_out(name, view)
            except (OSError, asyncio.CancelledError) as error:
                self._is_swept = False
                if not isinstance(error, OSError):
                    raise
                _log.warning("letter_not_delivered", letter=name, error=repr(error))
        self._forget_marked(view)

    async def _sweep_once(self, view: View) -> None:
        if self._is_swept:
            return
        async with self._sweeping:
            if not self._is_swept:
                await self.sweep(view)
                self._is_swept = True

    async def _bring_out(self, name: str, view: View) -> None:
        assert self._delivery is not None
        # What is read here is committed; what was only decided may yet come to nothing.
        if name in self._carried or view.get(OUTBOX, name) is None:
            return
        letter = _from_row(name, view.get(LETTERS, name))
        await asyncio.to_thread(self._delivery.deliver, letter)
        self._carried.add(name)

    def _decide(
        self,
        effects: Effects,
        call: StepCall,
        kind: LetterKind,
        order_id: str,
        recipient: str,
    ) -> Mapping[str, Any]:
        notice_id = id_from_key("msg", key_of(call))
        letter = Letter(notice_id, kind, order_id, recipient, effects.now_ms)
        assert effects.get(LETTERS, letter.name) is None, "one key writes once"
        effects.put(LETTERS, letter.name, [kind.value, order_id, recipient, letter.at_ms])
        if self._delivery is not None:
            effects.put(OUTBOX, letter.name, letter.at_ms)
        self._mark_carried(effects)
        return {"message_id": letter.message_id}

    def _mark_carried(self, effects: Effects) -> None:
        """Note in the table what has been brought out; a fact, whatever becomes of the call."""
        for name in self._carried.some(_MARKED_MAX):
            effects.delete(OUTBOX, name)

    def _forget_marked(self, view: View) -> None:
        """Forget what a committed transaction has noted."""
        for name in self._carried.some(_MARKED_MAX):
            if view.get(OUTBOX, name) is None:
                self._carried.discard(name)


class MailedNotification(Notification):
    """The notification service with a mail server, which cannot be asked about a letter."""

    def __init__(
        self,
        smtp: SmtpSettings,
        *,
        sender: str,
        directory: Mapping[str, str] | None = None,
        trouble: SeededBehaviour | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(directory=directory, trouble=trouble)
        self.operations = {
            "send": ProviderOperation(
                apply=self.note_sent,
                undo_name="take_back",
                undo=self.note_taken_back,
                provider=SmtpProvider(smtp, sender=sender, clock=clock),
                submission=self.submission,
                reversal=self.reversal,
            )
        }

    def submission(self, call: StepCall) -> Mapping[str, Any]:
        """Return what the mail server is asked for; or the refusal that spares it the question."""
        try:
            order_id, recipient = self.addressed(call)
            self.refuse_by_chance(call)
        except Refusal as refusal:
            return {"refusal": [refusal.code, refusal.message]}
        return _handed_over(call, LetterKind.CONFIRMATION, order_id, recipient)

    def reversal(
        self,
        call: StepCall,
        applied: Mapping[str, Any] | None,  # noqa: ARG002 - a letter is taken back in any case
    ) -> Mapping[str, Any]:
        """Return the second letter; it is right even if nobody knows whether the first arrived."""
        order_id, recipient = self.addressed(call)
        return _handed_over(call, LetterKind.TAKE_BACK, order_id, recipient)

    def note_sent(self, effects: Effects, call: StepCall, given: Any) -> Mapping[str, Any]:
        """Keep the letter that the mail server has taken."""
        return self._note(effects, call, LetterKind.CONFIRMATION, given)

    def note_taken_back(
        self,
        effects: Effects,
        call: StepCall,
        applied: Mapping[str, Any] | None,  # noqa: ARG002 - a letter is taken back in any case
        given: Any,
    ) -> Mapping[str, Any]:
        """Keep the second letter that the mail server has taken."""
        return self._note(effects, call, LetterKind.TAKE_BACK, given)

    def _note(
        self, effects: Effects, call: StepCall, kind: LetterKind, given: Any
    ) -> Mapping[str, Any]:
        order_id, recipient = self.addressed(call)
        self._decide(effects, call, kind, order_id, recipient)
        return {"message_id": given["message_id"]}


class _Carried:
    """Names of letters that are outside while the table still has them inside.

    The loop adds to it, and handlers, in the thread that writes, take from it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        with self._lock:
            return name in self._names

    def add(self, name: str) -> None:
        with self._lock:
            self._names.add(name)

    def discard(self, name: str) -> None:
        with self._lock:
            self._names.discard(name)

    def some(self, count_max: int) -> list[str]:
        with self._lock:
            return list(islice(self._names, count_max))


def letters(view: View) -> Iterator[Letter]:
    """Yield every letter that was decided, by name."""
    for name, row in view.scan(LETTERS):
        yield _from_row(name, row)


def _from_row(name: str, row: list[Any]) -> Letter:
    kind, order_id, recipient, at_ms = row
    return Letter(name.removesuffix(f"-{kind}"), LetterKind(kind), order_id, recipient, at_ms)


def _handed_over(
    call: StepCall, kind: LetterKind, order_id: str, recipient: str
) -> Mapping[str, Any]:
    return {"letter": [id_from_key("msg", key_of(call)), kind.value, order_id, recipient]}
