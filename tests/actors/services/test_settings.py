"""Settings are checked as a whole, come from a file, and tell what is wrong without values."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from raysaga.actors.services.catalogue import (
    SERVICE_NAMES,
    UnknownServiceError,
    build_participant,
)
from raysaga.actors.services.inventory_strategies import (
    Buckets,
    Escrow,
    Optimistic,
    Pessimistic,
)
from raysaga.actors.services.settings import ServicesSettings, ServicesSettingsError
from raysaga.statemachines.order import order_saga

EXAMPLE = {
    "seed": 7,
    "inventory": {
        "strategy": "buckets",
        "bucket_count": 8,
        "think_ms": 2,
        "stock": {"items": {"milk": 40}, "default": 100},
    },
    "payment": {
        "credit_limit_minor": 100_000,
        "behaviour": {
            "latency": {"distribution": "lognormal", "median_ms": 3},
            "chance_unavailable": 0.02,
        },
    },
    "shipping": {"carrier_capacity": 500, "unserviceable_prefixes": ["island-"]},
    "notification": {"maildir": "mail"},
}


def test_the_example_of_the_module_is_a_document_of_settings(tmp_path: Path) -> None:
    text = ServicesSettings.__module__
    source = __import__(text, fromlist=["__doc__"]).__doc__
    shown = source[source.index('{"seed"') :]
    assert json.loads(shown) == EXAMPLE
    path = tmp_path / "services.json"
    path.write_text(shown)
    settings = ServicesSettings.from_file(path)
    assert settings.inventory.bucket_count == 8
    assert settings.payment.behaviour.latency.distribution == "lognormal"


def test_settings_survive_json_and_pickle() -> None:
    for settings in (
        ServicesSettings.lively(),
        ServicesSettings.model_validate(EXAMPLE),
        ServicesSettings.calm(),
    ):
        again = ServicesSettings.from_json(settings.model_dump_json())
        assert again == settings
        assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"inventry": {}}, "inventry"),
        ({"inventory": {"strategy": "hope"}}, "inventory.strategy"),
        ({"inventory": {"stock": {"items": {"milk": -1}}}}, "inventory.stock.items.milk"),
        ({"inventory": {"stock": {"items": {"milk": "4"}}}}, "inventory.stock.items.milk"),
        ({"inventory": {"stock": {"items": {"a/b": 4}}}}, "inventory.stock.items"),
        ({"payment": {"behaviour": {"chance_hang": 2}}}, "payment.behaviour.chance_hang"),
        ({"payment": {"currencies": ["usd"]}}, "payment.currencies"),
        ({"shipping": {"unserviceable_prefixes": [""]}}, "shipping.unserviceable_prefixes"),
        ({"notification": {"sender": "a\r\nBcc: b@c.invalid"}}, "notification.sender"),
        ({"notification": {"directory": {"c": "nobody"}}}, "notification.directory.c"),
        ({"notification": {"maildir": "m", "smtp": {"host": "h"}}}, "not to both"),
        ([], "document"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(document: Any, told: str, tmp_path: Path) -> None:
    path = tmp_path / "services.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ServicesSettingsError) as caught:
        ServicesSettings.from_file(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message


def test_a_password_is_never_in_the_settings_themselves() -> None:
    for smtp in (
        {"host": "h", "password": "correct-horse"},
        {"host": "h", "username": "shop"},
        {"host": "h", "password_file": "secret"},
        {"host": "h", "username": "shop", "password_file": "secret"},
    ):
        with pytest.raises(ServicesSettingsError) as caught:
            ServicesSettings.from_json(json.dumps({"notification": {"smtp": smtp}}))
        assert "correct-horse" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null"])
def test_a_file_that_is_no_document_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "services.json"
    path.write_bytes(content)
    with pytest.raises(ServicesSettingsError):
        ServicesSettings.from_file(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServicesSettingsError, match="No such file"):
        ServicesSettings.from_file(tmp_path / "nothing.json")


def test_every_participant_of_the_order_saga_is_in_the_catalogue() -> None:
    assert tuple(step.participant for step in order_saga.steps) == SERVICE_NAMES
    for step in order_saga.steps:
        service = build_participant(step.participant, ServicesSettings.calm())
        assert service.name == step.participant
        assert service.operations[step.action].undo_name == step.compensation


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("pessimistic", Pessimistic),
        ("optimistic", Optimistic),
        ("escrow", Escrow),
        ("buckets", Buckets),
    ],
)
def test_the_strategy_is_the_one_of_the_settings(name: str, strategy: type) -> None:
    service: Any = build_participant(
        "inventory", ServicesSettings.calm(inventory={"strategy": name})
    )
    assert type(service._strategy) is strategy


def test_a_name_that_is_no_service_is_refused() -> None:
    with pytest.raises(UnknownServiceError) as caught:
        build_participant("billing", ServicesSettings.calm())
    assert "inventory, payment, shipping, notification" in str(caught.value)


def test_a_relative_maildir_lies_in_the_data_folder(tmp_path: Path) -> None:
    settings = ServicesSettings.calm(notification={"maildir": "mail"})
    build_participant("notification", settings, data_folder=tmp_path)
    assert (tmp_path / "mail" / "new").is_dir()


def test_a_stock_is_the_same_whatever_the_order_of_its_items() -> None:
    documents = ['{"items": {"a": 1, "b": 2}}', '{"items": {"b": 2, "a": 1}}']
    stocks = [
        ServicesSettings.from_json(f'{{"inventory": {{"stock": {text}}}}}').inventory.stock
        for text in documents
    ]
    assert stocks[0] is not None
    assert stocks[1] is not None
    assert stocks[0].fingerprint == stocks[1].fingerprint
