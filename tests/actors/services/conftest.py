"""Houses for services, closed when a test is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from raysaga.actors.participant_server import ParticipantLimits
from raysaga.actors.services.service import Service

from ..service_house import House, OpenHouse


@pytest.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """Open a house for `build()`; a name tells two of one test apart."""
    opened: list[House] = []

    async def open_one(
        build: Callable[[], Service],
        name: str = "ledger",
        limits: ParticipantLimits | None = None,
    ) -> House:
        house = House(build, tmp_path / name, limits)
        opened.append(house)
        return await house.open()

    yield open_one
    for house in opened:
        await house.close()
        assert not house.fatal
