"""Where a broker is and which queue is meant, from one line such as `amqp://host/?queue=stock`.

Guarantees: what is shown of an address has no password in it.
Refuses: a scheme that no driver serves, and an option that nobody reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit, urlunsplit

from raysaga.actors.brokers.errors import BrokerAddressError

SCHEMES = ("amqp", "amqps", "kafka", "kafkas")
"""RabbitMQ without and with TLS, Kafka without and with."""

FORMATS = ("msgpack", "json")
"""How bodies are written; both are read, whatever is written."""

_NO_PASSWORD = "***"  # noqa: S105 - it is none

_OPTIONS = frozenset({"queue", "format", "cafile"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """One line, taken apart.

    Attributes:
        url: The broker alone, with its password; for a driver only.
        shown: The broker alone, for people.
        scheme: One of `SCHEMES`.
        queue: The queue or topic; empty for the usual one.
        format: How bodies are written.
        cafile: Certificates to trust instead of the system's; empty for those.
    """

    url: str
    shown: str
    scheme: str
    queue: str
    format: str
    cafile: str

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"BrokerAddress({self.shown!r}, queue={self.queue!r})"

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme in ("amqps", "kafkas")


def is_broker_address(target: str) -> bool:
    """Return whether a participant's target is a broker and not `module:function`."""
    return target.partition("://")[0] in SCHEMES


def without_password(target: str) -> str:
    """Return a participant's target as it may be written down."""
    if not is_broker_address(target):
        return target
    parts = urlsplit(target)
    if parts.password is None:
        return target
    netloc = f"{parts.username}:{_NO_PASSWORD}@{parts.netloc.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=netloc))


def lacks_password(target: str) -> bool:
    """Return whether a target was written down without its password."""
    return is_broker_address(target) and f":{_NO_PASSWORD}@" in target


def parse_address(text: str) -> BrokerAddress:
    """Return the parts of a line.

    Raises:
        BrokerAddressError: If it is no address of a broker.
    """
    try:
        parts = urlsplit(text)
        port, password = parts.port, parts.password
    except ValueError:
        raise BrokerAddressError("the address", "cannot be read as a URL") from None
    bare = parts.netloc.rpartition("@")[2]
    user = parts.username or ""
    shown = (
        f"{user}:{_NO_PASSWORD}@{bare}"
        if password is not None
        else f"{user}@{bare}"
        if user
        else bare
    )
    shown = urlunsplit((parts.scheme, shown, parts.path, "", ""))
    if parts.scheme not in SCHEMES:
        raise BrokerAddressError(shown, f"must begin with one of {', '.join(SCHEMES)}")
    if not parts.hostname or port == 0:
        raise BrokerAddressError(shown, "names no host")
    options = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise BrokerAddressError(shown, f"has an option {unknown[0]!r}; it can have {_LISTED}")
    given = {name: values[-1] for name, values in options.items()}
    body_format = given.get("format", FORMATS[0])
    if body_format not in FORMATS:
        raise BrokerAddressError(shown, f"format must be one of {', '.join(FORMATS)}")
    return BrokerAddress(
        url=urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")),
        shown=shown,
        scheme=parts.scheme,
        queue=given.get("queue", ""),
        format=body_format,
        cafile=given.get("cafile", ""),
    )


_LISTED = ", ".join(sorted(_OPTIONS))
