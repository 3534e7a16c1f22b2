"""A broker of each kind for all tests of this folder; without it, they say what is missing."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from . import kafka_process, rabbit_process
from .kafka_process import KafkaProcess
from .rabbit_process import RabbitProcess
from .shop import AnyBroker, Shop, TheirBroker


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
    if not rabbit_process.is_installed():
        pytest.skip("RabbitMQ is not installed: `make brokers` installs it")
    process = RabbitProcess(tmp_path_factory.mktemp("rabbit"), certificates)
    process.start()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def _kafka(
    tmp_path_factory: pytest.TempPathFactory, certificates: tuple[Path, Path, Path]
) -> Iterator[KafkaProcess]:
    if not kafka_process.is_installed():
        pytest.skip("Kafka or Java is not installed: `make brokers` installs them")
    process = KafkaProcess(tmp_path_factory.mktemp("kafka"), certificates)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def rabbit(_rabbit: RabbitProcess) -> RabbitProcess:
    """The broker of the session. A test that kills it starts it again."""
    return _rabbit


@pytest.fixture
def kafka(_kafka: KafkaProcess) -> KafkaProcess:
    """The broker of the session. A test that kills it starts it again."""
    return _kafka


@pytest.fixture(params=["rabbitmq", "kafka"])
def broker(request: pytest.FixtureRequest) -> AnyBroker:
    """Each kind of broker: that of the session, or the one that the environment names."""
    kind: str = request.param
    url = os.environ.get(f"RAYSAGA_TEST_{kind.upper()}")
    if url is not None:
        return TheirBroker(url)
    own: AnyBroker = request.getfixturevalue("rabbit" if kind == "rabbitmq" else "kafka")
    return own


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
