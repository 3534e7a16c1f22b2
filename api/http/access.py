"""Who may do what: bearer tokens with rights, and a rate for each caller.

Guarantees: only hashes of tokens are stored and compared, in constant time. A token is
shown once, when it is made.
Refuses: a token file that others than its owner may read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic import ValidationError as ModelError

from raysaga.api.http.errors import ForbiddenError, RateLimitedError, UnauthenticatedError
from raysaga.api.http.settings import HttpSettings
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.ids import is_key

TOKENS_NAME = "http-tokens.json"
"""In the data folder."""

TOKEN_BYTES = 32
"""Beyond any guessing; an unsalted hash of it is as good as itself."""


class Right(StrEnum):
    """What a token may be good for."""

    SUBMIT = "submit"
    READ = "read"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Attributes:
        name: Of the token; empty if none is needed.
        rights: What the caller may do.
    """

    name: str
    rights: frozenset[Right]


class Token(BaseModel):
    """A token as it is stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9._:-]{1,100}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rights: frozenset[Right]
    made_at_ms: int


_TOKENS = TypeAdapter(list[Token])


def load_tokens(path: Path) -> list[Token]:
    """Return the tokens in a file; none if there is no file.

    Raises:
        ValidationError: If it is not a token file, or not its owner's alone.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    if stat.S_IMODE(mode) & 0o077:
        raise ValidationError(f"others may read it; chmod 600 {path}", str(path))
    try:
        return _TOKENS.validate_json(content)
    except ModelError as error:
        raise ValidationError("is not a file of tokens", str(path)) from error


def make_token(path: Path, name: str, rights: Iterable[Right]) -> str:
    """Return a new token, after its hash was added to the file; one of that name is replaced.

    Raises:
        ValidationError: If the name is none, or the file is not a token file.
    """
    if not is_key(name):
        raise ValidationError("must be 1 to 100 of A-Z a-z 0-9 . _ : -", "name")
    text = secrets.token_urlsafe(TOKEN_BYTES)
    made = Token(
        name=name,
        sha256=_hash(text),
        rights=frozenset(rights),
        made_at_ms=time.time_ns() // 1_000_000,
    )
    kept = [token for token in load_tokens(path) if token.name != name]
    rows = [token.model_dump(mode="json") for token in (*kept, made)]
    for row in rows:
        row["rights"].sort()
    new = path.with_name(path.name + ".new")
    opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "w", encoding="utf-8") as file:
        file.write(json.dumps(rows, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return text


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class Access:
    """Decides whether a request is let in."""

    def __init__(
        self,
        tokens: Sequence[Token] | None,
        settings: HttpSettings,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make one.

        Args:
            tokens: Those that are known; None if everybody may do everything.
            settings: The rates.
            monotonic_s: Time.
        """
        self._tokens = tokens
        self._settings = settings
        self._monotonic_s = monotonic_s
        # Caller to what is left of his burst, and when that was reckoned.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @property
    def needs_token(self) -> bool:
        """Whether a request without a token is refused."""
        return self._tokens is not None

    def admit(self, right: Right, token: str | None, address: str) -> Caller:
        """Return who asks, if he may have `right` now.

        Raises:
            UnauthenticatedError: If a token is needed and none that is known was given.
            ForbiddenError: If it is not good for this.
            RateLimitedError: If there were too many requests.
        """
        if self._tokens is None:
            self._spend(f"address {address}")
            return Caller(name="", rights=frozenset(Right))
        found = None
        given = _hash(token or "")
        for known in self._tokens:
            if hmac.compare_digest(known.sha256, given):
                found = known
        if found is None:
            self._spend(f"address {address}")
            raise UnauthenticatedError
        self._spend(f"token {found.name}")
        if right not in found.rights:
            raise ForbiddenError(right.value)
        return Caller(name=found.name, rights=found.rights)

    def _spend(self, who: str) -> None:
        """Take one request from the caller's token bucket."""
        settings = self._settings
        now_s = self._monotonic_s()
        left, at_s = self._buckets.pop(who, (float(settings.requests_burst), now_s))
        earned = (now_s - at_s) * settings.requests_per_s
        left = min(left + earned, float(settings.requests_burst))
        if left < 1.0:
            self._buckets[who] = (left, now_s)
            wait_s = (1.0 - left) / settings.requests_per_s
            raise RateLimitedError(max(1, int(wait_s * 1_000) + 1))
        self._buckets[who] = (left - 1.0, now_s)
        if len(self._buckets) > settings.callers_max:
            self._buckets.popitem(last=False)
