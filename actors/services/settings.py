"""Every choice about the four services, as one document of settings.

Guarantees: what is loaded has been checked as a whole; a name that is not known is an error
and not a silence. Two presets: `calm`, without delay or trouble, and `lively`, in which some
of everything goes wrong, reproducibly by its seed.
Refuses: files that are no JSON, too large, or break a rule (`ServicesSettingsError`).

    {"seed": 7,
     "inventory": {"strategy": "buckets", "bucket_count": 8, "think_ms": 2,
                   "stock": {"items": {"milk": 40}, "default": 100}},
     "payment": {"credit_limit_minor": 100000,
                 "behaviour": {"latency": {"distribution": "lognormal", "median_ms": 3},
                               "chance_unavailable": 0.02}},
     "shipping": {"carrier_capacity": 500, "unserviceable_prefixes": ["island-"]},
     "notification": {"maildir": "mail"}}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from raysaga.actors.services.behaviour import (
    CALM,
    DELAY_MS_MAX,
    LognormalLatency,
    ServiceBehaviour,
)
from raysaga.actors.services.inventory_stock import SHELVES_MAX, Stock
from raysaga.actors.services.inventory_strategies import StrategyName
from raysaga.actors.services.mail import SENDER_DEFAULT, parse_address
from raysaga.actors.services.mail_delivery import SmtpSettings
from raysaga.actors.services.payment import CURRENCIES
from raysaga.statemachines.errors import SagaError

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A stock of a million items takes half of it."""


class ServicesSettingsError(SagaError):
    """The settings of the services cannot be used; nothing was started.

    Attributes:
        source: The file, or what was built.
        message: What is wrong, without the values.
    """

    code = "SERVICES_SETTINGS_INVALID"

    def __init__(self, source: str, message: str) -> None:
        super().__init__(source, message)
        self.source = source
        self.message = message

    def __str__(self) -> str:
        return f"{self.source}: {self.message}"


def _address(text: str) -> str:
    parse_address(text)
    return text


MailAddress = Annotated[str, AfterValidator(_address)]
Prefix = Annotated[str, Field(min_length=1, max_length=100)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class InventorySettings(_Settings):
    """How stock is kept.

    Attributes:
        strategy: See `inventory_strategies`.
        think_ms: Time between looking at the stock and taking from it.
        bucket_count: Shelves of a hot item, under the strategy `buckets`.
        hot_items: Which items are hot; None: all of them.
        stock: What there is at first; None: it is loaded by somebody else.
        behaviour: See `ServiceBehaviour`.
    """

    strategy: StrategyName = StrategyName.ESCROW
    think_ms: float = Field(default=0.0, ge=0, le=DELAY_MS_MAX)
    bucket_count: int = Field(default=8, ge=1, le=SHELVES_MAX)
    hot_items: tuple[str, ...] | None = None
    stock: Stock | None = None
    behaviour: ServiceBehaviour = CALM


class PaymentSettings(_Settings):
    """How orders are paid.

    Attributes:
        currencies: Those that are accepted.
        credit_limit_minor: What one token can owe in one currency; None: any sum.
        behaviour: See `ServiceBehaviour`.
    """

    currencies: tuple[Currency, ...] = CURRENCIES
    credit_limit_minor: int | None = Field(default=None, ge=0)
    behaviour: ServiceBehaviour = CALM


class ShippingSettings(_Settings):
    """How orders are shipped.

    Attributes:
        carrier_capacity: Shipments scheduled at one time; None: any number.
        unserviceable_prefixes: Customers whose id begins so cannot be reached.
        behaviour: See `ServiceBehaviour`.
    """

    carrier_capacity: int | None = Field(default=None, ge=0)
    unserviceable_prefixes: tuple[Prefix, ...] = ()
    behaviour: ServiceBehaviour = CALM


MAILDIR_USUAL: Final = "mail"
"""Where letters go when nothing is said about them, in the data folder."""


class NotificationSettings(_Settings):
    """How customers are told.

    Attributes:
        maildir: Folder for letters; relative to the data folder if it is relative. Neither
            this nor `smtp`: letters stay in the service's own table.
        syncs_files: Whether a letter waits for the disk; without, a power cut may lose some.
        smtp: The mail server that takes letters instead.
        sender: Who writes.
        directory: Address of each customer; None: made from the customer's id.
        behaviour: See `ServiceBehaviour`.
    """

    maildir: Path | None = None
    syncs_files: bool = True
    smtp: SmtpSettings | None = None
    sender: MailAddress = SENDER_DEFAULT
    directory: Mapping[str, MailAddress] | None = None
    behaviour: ServiceBehaviour = CALM

    @model_validator(mode="after")
    def _one_way_out(self) -> NotificationSettings:
        if self.maildir is not None and self.smtp is not None:
            raise ValueError("letters go to a maildir or to a mail server, not to both")
        return self


class ServicesSettings(_Settings):
    """The four services together.

    Attributes:
        seed: Decides all trouble by chance.
        inventory: See `InventorySettings`.
        payment: See `PaymentSettings`.
        shipping: See `ShippingSettings`.
        notification: See `NotificationSettings`.
    """

    seed: int = 0
    inventory: InventorySettings = InventorySettings()
    payment: PaymentSettings = PaymentSettings()
    shipping: ShippingSettings = ShippingSettings()
    notification: NotificationSettings = NotificationSettings()

    @classmethod
    def from_file(cls, path: Path) -> ServicesSettings:
        """Return the settings in the JSON file `path`.

        Raises:
            ServicesSettingsError: If it cannot be read, or breaks a rule.
        """
        try:
            if path.stat().st_size > FILE_BYTES_MAX:
                raise ServicesSettingsError(str(path), f"more than {FILE_BYTES_MAX} bytes")
            data = path.read_bytes()
        except OSError as error:
            raise ServicesSettingsError(str(path), error.strerror or "cannot be read") from error
        return cls.from_json(data, source=str(path))

    @classmethod
    def from_json(cls, data: bytes | str, *, source: str = "settings") -> ServicesSettings:
        """Return the settings in a JSON document.

        Raises:
            ServicesSettingsError: If it is none, or breaks a rule; `source` names it.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            found = [
                f"{'.'.join(map(str, flaw['loc'])) or 'document'}: {flaw['msg']}"
                for flaw in error.errors(include_url=False, include_input=False)
            ]
            # Not chained: the cause would show what was given.
            raise ServicesSettingsError(source, "; ".join(found)) from None

    @classmethod
    def calm(cls, **changed: object) -> ServicesSettings:
        """Return settings without any delay or trouble, but for what is `changed`."""
        return cls.model_validate(changed)

    @classmethod
    def lively(cls, **changed: object) -> ServicesSettings:
        """Return settings in which a few calls in a hundred go wrong; for demonstrations.

        About one order in nine is refused somewhere and undone; the rest completes, some of
        it after a retry.
        """
        preset = {
            "seed": 7,
            "inventory": {"behaviour": _lively(median_ms=1.0, refuse=0.02)},
            "payment": {"behaviour": _lively(median_ms=4.0, refuse=0.05)},
            "shipping": {"behaviour": _lively(median_ms=2.0, refuse=0.03)},
            "notification": {"behaviour": _lively(median_ms=1.0, refuse=0.02)},
        }
        return cls.model_validate({**preset, **changed})


def _lively(*, median_ms: float, refuse: float) -> ServiceBehaviour:
    return ServiceBehaviour(
        latency=LognormalLatency(median_ms=median_ms, sigma=0.5),
        chance_unavailable=0.03,
        chance_slow=0.01,
        slow_ms_min=50.0,
        chance_lose_reply=0.01,
        chance_refuse=refuse,
    )
