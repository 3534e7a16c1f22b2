"""One browser, and one engine with a lively story, for all tests of the page."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from playwright.async_api import Browser, async_playwright

for folder in ("console", "api/http", "api"):
    here = str(Path(__file__).parents[1] / folder)
    if here not in sys.path:
        sys.path.insert(0, here)

from browser import OPTIONS, NoBrowserError, chromium  # noqa: E402
from story import Shown, shown  # noqa: E402


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is; without one the tests are skipped, and fail in CI."""
    try:
        return chromium()
    except NoBrowserError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def _quiet_logs() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium_path: str) -> AsyncIterator[Browser]:
    """A running browser."""
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=chromium_path, args=list(OPTIONS))
        yield found
        await found.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Shown]:
    """The page of an engine with finished, undone and parked sagas."""
    async with shown(tmp_path_factory.mktemp("console") / "data", browser) as found:
        yield found
