"""Finds the settings of the four services for a run: how they behave, and what is in stock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raysaga.actors.archive import Archive
from raysaga.actors.services.settings import (
    MAILDIR_USUAL,
    ServicesSettings,
    ServicesSettingsError,
)
from raysaga.api.defaults import ORDER_SERVICES
from raysaga.statemachines.errors import SagaError, ValidationError

PRESETS = {"calm": ServicesSettings.calm, "lively": ServicesSettings.lively}
"""Settings that have a name."""


def services_of(
    services: str, stock: Path | None, data: Path, *, needs_stock: bool = True
) -> dict[str, Any]:
    """Return the settings of the services, as plain data.

    Letters go to a maildir in the data folder, unless the settings say where they go.

    Args:
        services: The name of a preset, or the path of a file of settings.
        stock: File of what is in stock at first; None for what the settings or the folder hold.
        data: The data folder; it need not exist.
        needs_stock: Whether the inventory is among those that are to be served.

    Raises:
        ServicesSettingsError: If a file cannot be read, or breaks a rule.
        ValidationError: If there would be no stock at all: every order would be refused.
    """
    preset = PRESETS.get(services)
    settings = preset() if preset is not None else ServicesSettings.from_file(Path(services))
    is_delivery_said = settings.notification.model_fields_set & {"maildir", "smtp"}
    if stock is not None:
        settings = _with_stock(settings, stock)
    elif needs_stock and settings.inventory.stock is None and not _has_stock(data):
        raise ValidationError(
            "there is no stock yet, so every order would be refused; give the stock file that "
            '`raysaga orders import` wrote, or one such as {"default": 100}',
            "--stock",
        )
    fields = settings.model_dump(mode="json")
    if not is_delivery_said:
        fields["notification"]["maildir"] = MAILDIR_USUAL
    return fields


def usual_services(data: Path) -> dict[str, Any]:
    """Return the settings of the services of `data` for who says nothing of them.

    A stock is given to a folder without an inventory only: one that has it would refuse
    another, and it would be in the way of whoever only wants to join or to go on.
    """
    services = {name: dict(fields) for name, fields in ORDER_SERVICES.items()}
    if _has_stock(data):
        del services["inventory"]["stock"]
    return services


def _with_stock(settings: ServicesSettings, path: Path) -> ServicesSettings:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ServicesSettingsError(str(path), error.strerror or "cannot be read") from error
    except (ValueError, RecursionError) as error:
        raise ServicesSettingsError(str(path), "is not JSON") from error
    fields = settings.model_dump(mode="json")
    fields["inventory"]["stock"] = content
    return ServicesSettings.from_json(json.dumps(fields), source=str(path))


def _has_stock(data: Path) -> bool:
    """Return whether an inventory is in the data folder, or may be in one that cannot be used."""
    if not data.exists() or (data.is_dir() and not any(data.iterdir())):
        return False
    try:
        with Archive.open(data) as archive:
            return "inventory" in archive.folder.service_names()
    except SagaError:
        # That it cannot be used, and why, is told by whoever opens it for writing.
        return True
