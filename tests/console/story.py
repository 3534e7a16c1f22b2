"""An engine with something to show, its page in a browser, and what the browser complained of."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, expect
from serving_within import Served, an_order, hasty, served

from raysaga.actors.services.settings import ServicesSettings
from raysaga.api.http.settings import HttpSettings
from raysaga.console.pages import console_router
from raysaga.statemachines.order import order_saga

ORDERS = 60
PARKED = ("stuck-1", "stuck-2", "stuck-3")
SIZE: Any = {"width": 1280, "height": 860}
PICTURES = Path(__file__).parents[2] / "docs" / "console"

expect.set_options(timeout=30_000)


@dataclass
class Shown:
    """A page in a browser.

    Attributes:
        server: What serves it.
        context: The browser's window.
        complaints: What the browser logged as errors, and requests to other hosts.
    """

    server: Served
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    async def open(self, place: str = "") -> Page:
        """Return a new tab at a page."""
        page = await self.context.new_page()
        page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._asked)
        await page.goto(f"{self.server.url}/#/{place}")
        await expect(page.locator("main h1")).to_be_visible()
        return page

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "data:")):
            self.complaints.append(f"asked {request.url}")


async def picture(page: Page, name: str, *, whole: bool = True) -> None:
    """Keep a picture of a page for the docs, if RAYSAGA_PICTURES asks for that."""
    if os.environ.get("RAYSAGA_PICTURES"):
        await page.evaluate("scrollTo(0, 0)")
        await page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)


def services() -> ServicesSettings:
    """Return services with delays that can be seen, some refusals, and three stuck sagas."""

    def lively(median_ms: float, refuse: float, scripted: list[Any]) -> dict[str, Any]:
        latency = {"distribution": "lognormal", "median_ms": median_ms, "sigma": 0.5}
        return {
            "latency": latency,
            "chance_refuse": refuse,
            "chance_unavailable": 0.06,
            "scripted": scripted,
        }

    stuck = [f"hasty:{name}" for name in PARKED]
    refused = [{"trouble": "refuse", "operation": "schedule", "saga_id": one} for one in stuck]
    failed = [
        {"trouble": "unavailable", "operation": "refund", "calls": 2, "saga_id": one}
        for one in stuck
    ]
    stock = {"items": {"milk": 100_000, "tea": 100_000, "rare": 2}, "default": None}
    return ServicesSettings.calm(
        seed=5,
        inventory={"stock": stock, "behaviour": lively(6, 0.03, [])},
        payment={"behaviour": lively(24, 0.06, failed)},
        shipping={"behaviour": lively(12, 0.03, refused)},
        notification={"behaviour": lively(8, 0.02, [])},
    )


async def submit(server: Served, name: str, definition: str = "order", **changes: Any) -> None:
    """Submit a saga and wait for its end."""
    answer = await server.client.post(
        f"/sagas/{definition}?wait=20s",
        json=an_order(name, **changes),
        headers={"Idempotency-Key": name},
    )
    assert answer.status_code == 200, answer.text


@asynccontextmanager
async def shown(path: Path, browser: Browser) -> AsyncIterator[Shown]:
    """Give the page of an engine that has been busy."""
    settings = HttpSettings(look_every_s=0.5, follow_every_s=0.05, reads_max=20)
    options: dict[str, Any] = {
        "services": services(),
        "settings": settings,
        "definitions": (order_saga, hasty()),
        "routers": [console_router()],
    }
    async with served(path, **options) as server:
        await asyncio.gather(*(submit(server, name, "hasty") for name in PARKED))
        await submit(server, "sold-out", items=[{"item_id": "rare", "quantity": 3}])
        for first in range(0, ORDERS, 6):
            names = [f"{31_198_000 + first + i}" for i in range(6)]
            await asyncio.gather(*(submit(server, name) for name in names))
        await submit(server, "tea-1", customer_id="ada", items=[{"item_id": "tea", "quantity": 1}])
        context = await browser.new_context(viewport=SIZE, color_scheme="light", locale="en")
        yield Shown(server, context)
        await context.close()
