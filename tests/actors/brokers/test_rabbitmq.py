"""Sagas whose participants are behind a RabbitMQ, when all goes well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from .rabbit_process import RabbitProcess
from .shop import SERVICES, Shop


@pytest.mark.parametrize("body_format", ["msgpack", "json"])
async def test_an_order_completes_with_every_service_behind_the_broker(
    rabbit: RabbitProcess, open_shop: Callable[..., Shop], body_format: str
) -> None:
    queues = {
        name: f"{rabbit.url}/?queue={body_format}.{name}&format={body_format}" for name in SERVICES
    }
    shop = await open_shop(brokered=queues).open()
    outcomes = await asyncio.gather(*(shop.order() for _ in range(50)))
    assert {outcome["phase"] for outcome in outcomes} == {"completed"}
    refused = await shop.order(item="rare")
    assert (refused["phase"], refused["step"]) == ("compensated", "reserve_inventory")
