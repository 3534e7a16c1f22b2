"""Builds the services of the order saga by name.

Guarantees: the same settings give services that behave the same.
Refuses: names that are no service (`UnknownServiceError`), and a stock that contradicts the
one an inventory already holds (`StockConflictError`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from raysaga.actors.clock import Clock, SystemClock
from raysaga.actors.services.behaviour import SeededBehaviour, ServiceBehaviour
from raysaga.actors.services.inventory import Inventory
from raysaga.actors.services.inventory_strategies import (
    Buckets,
    Escrow,
    Optimistic,
    Pessimistic,
    Strategy,
    StrategyName,
)
from raysaga.actors.services.mail_delivery import MaildirDelivery
from raysaga.actors.services.notification import MailedNotification, Notification
from raysaga.actors.services.payment import Payment
from raysaga.actors.services.service import Service
from raysaga.actors.services.settings import InventorySettings, ServicesSettings
from raysaga.actors.services.shipping import Shipping
from raysaga.statemachines.errors import SagaError


class UnknownServiceError(SagaError):
    """There is no service of that name.

    Attributes:
        name: What was asked for.
    """

    code = "UNKNOWN_SERVICE"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name!r} is no service; there are {', '.join(SERVICE_NAMES)}"


def build_participant(
    name: str,
    settings: ServicesSettings,
    *,
    data_folder: Path | None = None,
    clock: Clock | None = None,
) -> Service:
    """Return the service `name`.

    Args:
        name: One of `SERVICE_NAMES`.
        settings: Of all services.
        data_folder: Where a relative maildir lies; None: in the current folder.
        clock: Time of simulated delays.

    Raises:
        UnknownServiceError: If there is no such service.
        OSError: If a maildir cannot be made.
    """
    builder = _BUILDERS.get(name)
    if builder is None:
        raise UnknownServiceError(name)
    return builder(settings, data_folder or Path(), clock or SystemClock())


def _inventory(settings: ServicesSettings, folder: Path, clock: Clock) -> Service:  # noqa: ARG001
    mine = settings.inventory
    return Inventory(
        _strategy(mine, clock),
        stock=mine.stock,
        trouble=_trouble(mine.behaviour, settings, clock),
    )


def _strategy(mine: InventorySettings, clock: Clock) -> Strategy:
    match mine.strategy:
        case StrategyName.PESSIMISTIC:
            return Pessimistic(clock, mine.think_ms)
        case StrategyName.OPTIMISTIC:
            return Optimistic(clock, mine.think_ms)
        case StrategyName.ESCROW:
            return Escrow(clock, mine.think_ms)
        case StrategyName.BUCKETS:
            return Buckets(
                clock, mine.think_ms, bucket_count=mine.bucket_count, hot_items=mine.hot_items
            )


def _payment(settings: ServicesSettings, folder: Path, clock: Clock) -> Service:  # noqa: ARG001
    mine = settings.payment
    return Payment(
        currencies=mine.currencies,
        credit_limit_minor=mine.credit_limit_minor,
        trouble=_trouble(mine.behaviour, settings, clock),
    )


def _shipping(settings: ServicesSettings, folder: Path, clock: Clock) -> Service:  # noqa: ARG001
    mine = settings.shipping
    return Shipping(
        carrier_capacity=mine.carrier_capacity,
        unserviceable_prefixes=mine.unserviceable_prefixes,
        trouble=_trouble(mine.behaviour, settings, clock),
    )


def _notification(settings: ServicesSettings, folder: Path, clock: Clock) -> Service:
    mine = settings.notification
    trouble = _trouble(mine.behaviour, settings, clock)
    if mine.smtp is not None:
        return MailedNotification(
            mine.smtp,
            sender=mine.sender,
            directory=mine.directory,
            trouble=trouble,
            clock=clock,
        )
    delivery = None
    if mine.maildir is not None:
        path = folder / mine.maildir
        delivery = MaildirDelivery(path, sender=mine.sender, syncs_files=mine.syncs_files)
    return Notification(delivery=delivery, directory=mine.directory, trouble=trouble)


def _trouble(
    behaviour: ServiceBehaviour, settings: ServicesSettings, clock: Clock
) -> SeededBehaviour:
    return SeededBehaviour(behaviour, seed=settings.seed, clock=clock)


_BUILDERS: Final[Mapping[str, Callable[[ServicesSettings, Path, Clock], Service]]] = (
    MappingProxyType(
        {
            "inventory": _inventory,
            "payment": _payment,
            "shipping": _shipping,
            "notification": _notification,
        }
    )
)

SERVICE_NAMES: Final = tuple(_BUILDERS)
"""The services of the order saga, in the order in which it calls them."""
