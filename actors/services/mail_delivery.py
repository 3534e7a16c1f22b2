"""Brings letters out of the house: into a maildir, or to a mail server.

Maildir. Guarantees: a letter is one file, whose name is made from the step's key, and which
appears complete or not at all; writing it again puts the same file in the same place.
Costs: two waits for the disk for each letter, unless that is switched off.

Mail server. Guarantees: a letter is handed over at most once, and what is known is said:
handed over, certainly not, or unknown. A connection that breaks after the message was sent
and before it was acknowledged leaves it unknown for ever (RFC 1047 is about nothing else),
and SMTP has no way to ask, so such a letter is never sent again.
Refuses: `RECIPIENT_REFUSED` and `MESSAGE_REFUSED` when the server says so for good,
`MAIL_SERVER_UNAVAILABLE` when it could not be reached often enough; each certainly unsent.
"""

from __future__ import annotations

import asyncio
import mailbox
import os
import smtplib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, model_validator

from raysaga.actors.clock import Clock, SystemClock
from raysaga.actors.provider import ProviderAnswer, ProviderStatus
from raysaga.actors.services.mail import Letter, LetterKind, write_letter
from raysaga.statemachines.retry import RetryPolicy

RECIPIENT_REFUSED = "RECIPIENT_REFUSED"
MESSAGE_REFUSED = "MESSAGE_REFUSED"
MAIL_SERVER_UNAVAILABLE = "MAIL_SERVER_UNAVAILABLE"

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

_log = structlog.get_logger(__name__)


class MaildirDelivery:
    """Puts letters into a maildir (D. J. Bernstein's, as `mailbox.Maildir` reads it)."""

    def __init__(self, path: Path, *, sender: str, syncs_files: bool = True) -> None:
        """Make the maildir if it is not there.

        Raises:
            OSError: If it cannot be made.
        """
        self._path = path
        self._sender = sender
        self._syncs_files = syncs_files
        path.parent.mkdir(parents=True, exist_ok=True)
        mailbox.Maildir(path, create=True).close()

    def deliver(self, letter: Letter) -> None:
        """Write the letter; it is on disk on return, if files are synced.

        Raises:
            OSError: If it could not be written; then nothing has appeared.
        """
        data = write_letter(letter, self._sender).as_bytes()
        draft = self._path / "tmp" / letter.name
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if self._syncs_files:
                os.fsync(file.fileno())
        os.replace(draft, self._path / "new" / letter.name)
        if self._syncs_files:
            _sync_folder(self._path / "new")

    def delivered(self) -> frozenset[str]:
        """Return the names of all letters in the maildir, read ones included."""
        names: set[str] = set()
        for folder in ("new", "cur"):
            # A mail reader adds flags after a colon when it moves a letter.
            names.update(name.partition(":")[0] for name in os.listdir(self._path / folder))
        return frozenset(names)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SmtpSettings(BaseModel):
    """Which mail server takes the letters, and how long to try.

    Attributes:
        host: Name or address.
        port: Usually 25 within a house, 587 with `starttls`.
        starttls: Whether to encrypt; then the server's certificate is checked.
        username: For servers that want to know who sends; None for others.
        password_file: Holds the password that goes with it, in one line; a file, so that no
            secret is in settings, which are stored, shown and sent around.
        timeout_ms: Wait for each of the server's answers. The tries together should end
            before the step's own time-out: what is given up half way is unknown for ever.
        tries_max: Connections made for one letter while it is certain that it was not sent.
        retry_ms_first: Ceiling of the first wait between them; it doubles.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    port: Annotated[int, Field(ge=1, le=65_535)] = 25
    starttls: bool = False
    username: str | None = None
    password_file: Path | None = None
    timeout_ms: Annotated[int, Field(ge=10, le=600_000)] = 1_500
    tries_max: Annotated[int, Field(ge=1, le=20)] = 3
    retry_ms_first: Annotated[int, Field(ge=1, le=60_000)] = 100

    @model_validator(mode="after")
    def _both_or_none(self) -> SmtpSettings:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        if self.username is not None and not self.starttls and self.host not in _LOOPBACK:
            raise ValueError("a password goes to another machine with starttls only")
        return self


class SmtpProvider:
    """A mail server as an outside provider, in the sense of the ledger kit."""

    horizon_ms = 60_000
    is_askable = False
    is_idempotent = False

    def __init__(self, settings: SmtpSettings, *, sender: str, clock: Clock | None = None) -> None:
        self._settings = settings
        self._sender = sender
        self._clock: Clock = clock or SystemClock()
        tries_max, first_ms = settings.tries_max, settings.retry_ms_first
        self._waits = RetryPolicy(
            attempts_max=tries_max, delay_ms_first=first_ms, delay_ms_max=first_ms << 10
        )

    async def submit(
        self,
        key: str,  # noqa: ARG002 - the letter's own id is made from it
        request: Mapping[str, Any],
        not_after_ms: int,
    ) -> ProviderAnswer:
        """Hand a letter over; try again while it is certain that it was not taken.

        A request that holds `refusal` is refused with it, and nobody is asked. None is begun
        after `not_after_ms`; one that has begun ends with the server's time-out.
        """
        if "refusal" in request:
            code, message = request["refusal"]
            return ProviderAnswer(ProviderStatus.REFUSED, None, code, message)
        letter = letter_from(request["letter"], at_ms=self._clock.now_ms())
        answer = _not_sent(TimeoutError(), MESSAGE_REFUSED)
        attempt = 1
        while self._clock.now_ms() <= not_after_ms:
            answer = await asyncio.to_thread(self._hand_over, letter)
            if answer.code != MAIL_SERVER_UNAVAILABLE:
                return answer
            delay_ms = self._waits.delay_ms(attempt, 0.5)
            if delay_ms is None:
                return answer
            await self._clock.sleep_ms(delay_ms)
            attempt += 1
        return answer

    async def ask(self, key: str) -> ProviderAnswer:  # noqa: ARG002
        """Return that nothing is known: SMTP cannot be asked."""
        return ProviderAnswer(ProviderStatus.UNKNOWN)

    async def cancel(self, key: str) -> ProviderAnswer:  # noqa: ARG002
        """Return that nothing is known: a letter cannot be called back."""
        return ProviderAnswer(ProviderStatus.UNKNOWN)

    def _hand_over(self, letter: Letter) -> ProviderAnswer:
        data = write_letter(letter, self._sender).as_bytes()
        server: smtplib.SMTP | None = None
        try:
            server = self._connect()
            self._envelope(server, letter)
        except (smtplib.SMTPException, OSError) as error:
            # The message itself has not been sent yet, so it cannot have been taken.
            _leave(server)
            return _not_sent(error, RECIPIENT_REFUSED)
        try:
            code, text = server.data(data)
        except smtplib.SMTPDataError as error:
            _leave(server)
            return _not_sent(error, MESSAGE_REFUSED)
        except (smtplib.SMTPException, OSError) as error:
            _log.warning("mail_outcome_unknown", letter=letter.name, error=type(error).__name__)
            _leave(server)
            return ProviderAnswer(ProviderStatus.UNKNOWN)
        _leave(server)
        if code >= 400:
            return _not_sent(smtplib.SMTPDataError(code, text), MESSAGE_REFUSED)
        return ProviderAnswer(ProviderStatus.SUCCEEDED, {"message_id": letter.message_id})

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_ms / 1000)
        try:
            server.ehlo_or_helo_if_needed()
            if settings.starttls:
                server.starttls()
                server.ehlo()
            if settings.username is not None and settings.password_file is not None:
                password = settings.password_file.read_text("utf-8", "replace").strip()
                server.login(settings.username, password)
        except BaseException:
            server.close()
            raise
        return server

    def _envelope(self, server: smtplib.SMTP, letter: Letter) -> None:
        code, text = server.mail(self._sender)
        if code != 250:
            raise smtplib.SMTPSenderRefused(code, text, self._sender)
        code, text = server.rcpt(letter.recipient)
        if code not in (250, 251):
            raise smtplib.SMTPResponseException(code, text)


def letter_from(fields: Sequence[str], *, at_ms: int) -> Letter:
    """Return the letter that a provider's request describes."""
    notice_id, kind, order_id, recipient = fields
    return Letter(notice_id, LetterKind(kind), order_id, recipient, at_ms)


def _not_sent(error: Exception, code_if_final: str) -> ProviderAnswer:
    """Return what is said of a letter that was certainly not taken.

    5yz is a permanent answer, anything else a transient one (RFC 5321, section 4.2.1). The
    server's own words are left out: they may quote the address.
    """
    said = error.smtp_code if isinstance(error, smtplib.SMTPResponseException) else 0
    is_login = isinstance(error, smtplib.SMTPAuthenticationError)
    if said >= 500 and not is_login:
        what = f"the mail server refused it for good, with {said}"
        return ProviderAnswer(ProviderStatus.REFUSED, None, code_if_final, what)
    what = f"the mail server could not take it ({said or type(error).__name__}); it was not sent"
    return ProviderAnswer(ProviderStatus.REFUSED, None, MAIL_SERVER_UNAVAILABLE, what)


def _leave(server: smtplib.SMTP | None) -> None:
    """Say goodbye; whatever comes of that changes nothing."""
    if server is None:
        return
    try:
        server.quit()
    except (smtplib.SMTPException, OSError):
        server.close()
