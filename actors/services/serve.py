"""What an engine calls in the process of each service of the order saga."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError as PydanticValidationError

from raysaga.actors.services.catalogue import build_participant
from raysaga.actors.services.service import Service
from raysaga.actors.services.settings import ServicesSettings, ServicesSettingsError


def serve(name: str, settings: Mapping[str, Any]) -> Service:
    """Return the service `name`.

    Args:
        name: One of the four services.
        settings: Fields of `ServicesSettings` as plain data, and `folder`, the data folder.

    Raises:
        UnknownServiceError: If there is no such service.
        ServicesSettingsError: If a setting is none.
    """
    fields = {key: value for key, value in settings.items() if key != "folder"}
    try:
        checked = ServicesSettings.model_validate(fields)
    except PydanticValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ServicesSettingsError("services", f"{where}: {first['msg']}") from error
    return build_participant(name, checked, data_folder=Path(settings["folder"]))
