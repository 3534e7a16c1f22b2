"""Every error is a fact: a code of its own, whether a retry helps, and it survives Ray."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import pickle
import pkgutil
import types
import typing
from collections.abc import Iterator
from enum import Enum
from importlib.machinery import FileFinder
from pathlib import Path
from typing import Any

import pytest

import raysaga
from raysaga.statemachines.errors import SagaError


def _modules() -> Iterator[types.ModuleType]:
    """Yield all modules, but those with requirements of their own, which run elsewhere."""
    for info in pkgutil.walk_packages(raysaga.__path__, "raysaga."):
        assert isinstance(info.module_finder, FileFinder)
        is_apart = (Path(info.module_finder.path) / "requirements.txt").exists()
        if not is_apart and not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def _descendants(error: type[SagaError]) -> Iterator[type[SagaError]]:
    for child in error.__subclasses__():
        yield child
        yield from _descendants(child)


def errors() -> list[type[SagaError]]:
    """Return every error of the package, each once."""
    for _ in _modules():
        pass
    found: set[type[SagaError]] = {SagaError, *_descendants(SagaError)}
    ours = [error for error in found if error.__module__.startswith("raysaga.")]
    return sorted(ours, key=lambda error: (error.__module__, error.__name__))


def sample(hint: Any, name: str, number: int) -> Any:
    """Return some value of the type that `hint` names; numbers grow with `number`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, typing.NewType):
        return sample(hint.__supertype__, name, number)
    if origin in (typing.Union, types.UnionType):
        return sample(next(one for one in arguments if one is not type(None)), name, number)
    if origin is typing.Literal:
        return arguments[0]
    if origin is tuple:
        return tuple(sample(one, name, number) for one in arguments if one is not ...)
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
        return [sample(arguments[0], name, number)]
    if origin in (dict, collections.abc.Mapping):
        return {sample(arguments[0], name, number): sample(arguments[1], name, number)}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next(iter(hint))
    samples: dict[Any, Any] = {
        str: f"some {name}",
        int: number,
        float: float(number),
        bool: True,
        bytes: name.encode(),
        Path: Path(name),
        Any: name,
        object: name,
    }
    assert hint in samples, f"say here what a sample of {hint} is"
    return samples[hint]


def instance(error: type[SagaError]) -> SagaError:
    """Return an instance with a sample for each argument of the constructor."""
    if "__init__" not in {name for base in error.__mro__[:-3] for name in vars(base)}:
        return error("some message")
    signature = inspect.signature(error.__init__)
    hints = typing.get_type_hints(error.__init__)
    facts, named = [], {}
    for number, parameter in enumerate(list(signature.parameters.values())[1:], 1):
        value = sample(hints.get(parameter.name, str), parameter.name, number)
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        elif parameter.kind is not parameter.VAR_KEYWORD:
            facts.append(value)
    return error(*facts, **named)


ERRORS = errors()


def test_the_scan_finds_the_errors() -> None:
    names = {error.__name__ for error in ERRORS}
    assert {"SagaError", "DefinitionError", "StaleEpochError", "StorageFullError"} <= names


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_says_what_it_is_and_whether_a_retry_helps(error: type[SagaError]) -> None:
    assert isinstance(error.code, str)
    assert error.code == error.code.upper()
    assert error.code.replace("_", "").isalnum()
    assert isinstance(error.retryable, bool)
    assert inspect.getdoc(error)


def test_two_kinds_of_error_never_share_a_code() -> None:
    """A kind may inherit its parent's code, when a program should treat them alike."""
    owners: dict[str, list[str]] = {}
    for error in ERRORS:
        if "code" in vars(error):
            owners.setdefault(error.code, []).append(error.__name__)
    assert {code: names for code, names in owners.items() if len(names) > 1} == {}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_an_error_crosses_ray_whole(error: type[SagaError]) -> None:
    """Ray carries an exception as a pickle of its class and its `args`."""
    raised = instance(error)
    arrived = pickle.loads(pickle.dumps(raised))
    assert type(arrived) is error
    assert str(arrived) == str(raised)
    assert str(arrived)
    assert vars(arrived) == vars(raised)
