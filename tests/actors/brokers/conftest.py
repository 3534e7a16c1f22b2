"""A RabbitMQ for all tests of this folder; without it, they say by name what is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from .rabbit_process import RabbitProcess, is_installed
from .shop import Shop


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Who signs, the chain and the key of a server on this machine."""
    trustme = pytest.importorskip("trustme")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    server = authority.issue_cert("localhost")
    paths = folder / "ca.pem", folder / "chain.pem", folder / "key.pem"
    authority.cert_pem.write_to_path(paths[0])
    for blob in server.cert_chain_pems:
        blob.write_to_path(paths[1], append=True)
    server.private_key_pem.write_to_path(paths[2])
    return paths


@pytest.fixture(scope="session")
def _rabbit(
    tmp_path_factory: pytest.TempPathFactory, certificates: tuple[Path, Path, Path]
) -> Iterator[RabbitProcess]:
    if not is_installed():
        pytest.skip("RabbitMQ is not installed: `make brokers` installs it")
    process = RabbitProcess(tmp_path_factory.mktemp("rabbit"), certificates)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def rabbit(_rabbit: RabbitProcess) -> RabbitProcess:
    """The broker of the session. A test that kills it starts it again."""
    return _rabbit


@pytest.fixture
async def open_shop(tmp_path: Path) -> AsyncIterator[Callable[..., Shop]]:
    """Open a shop on a folder of its own; at the end of the test its books are checked."""
    shops: list[Shop] = []

    def make(**options: object) -> Shop:
        shop = Shop(tmp_path / f"shop-{len(shops)}", **options)  # type: ignore[arg-type]
        shops.append(shop)
        return shop

    yield make
    for shop in shops:
        await shop.close()
        shop.check_books()
