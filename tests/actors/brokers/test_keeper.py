"""A keeper makes the next link, whatever became of the last one."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from raysaga.actors.brokers import broker as brokers
from raysaga.actors.brokers.address import BrokerAddress, parse_address
from raysaga.actors.brokers.broker import Keeper
from raysaga.actors.brokers.errors import BrokerUnavailableError

from .shop import until


class FragileLink:
    """Is lost at once, and fails while it is closed."""

    def __init__(self, failure: BaseException | None) -> None:
        self.lost: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._failure = failure
        if failure is not None:
            self.lost.set_result(ConnectionError("cut"))

    async def close(self) -> None:
        if self._failure is not None:
            raise self._failure


class FragileBroker:
    """Fails in each of the given ways, one connection after the other; then it is well."""

    def __init__(self, failures: list[BaseException]) -> None:
        self.address: BrokerAddress = parse_address("amqp://nowhere")
        self.failures = failures

    async def connect(self) -> FragileLink:
        if not self.failures:
            return FragileLink(None)
        failure = self.failures.pop(0)
        if isinstance(failure, BrokerUnavailableError):
            raise failure
        return FragileLink(failure)


async def test_a_link_that_fails_while_it_is_closed_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Client libraries cancel what waits for them, and that must not end the keeper."""
    monkeypatch.setattr(brokers, "BACKOFF_MS_MAX", 1)
    broker = FragileBroker(
        [
            asyncio.CancelledError(),
            BrokerUnavailableError("amqp://nowhere", "away"),
            RuntimeError("broken"),
        ]
    )

    async def set_up(_link: object) -> None:
        """Nothing."""

    keeper = Keeper(broker, set_up, structlog.get_logger())  # type: ignore[arg-type]
    keeper.start()
    await until(lambda: not broker.failures and keeper.link is not None, "it is up")
    assert keeper.connected_count == 3
    await keeper.stop()
    assert keeper.link is None
