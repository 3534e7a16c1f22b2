"""The options of `raysaga bench`, and what they come to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from raysaga.bench.peers.run import PEERS
from raysaga.bench.workloads import SKEWS, STRATEGIES, WORKLOADS
from raysaga.statemachines.definition import Durability

LEVELS = (1, 16, 128, 512)
"""Callers at a time, by default."""

SAGAS = 2_000
"""Sagas that wait or are killed, by default."""

SPECIAL = (
    "contended",
    "waiting",
    "recovery",
    "recovery-standing",
    "overload",
    "reads",
    "one-process",
    "skeleton",
    "bare-actors",
)
"""Workloads that are more than a loop at some levels."""

WorkloadOption = Annotated[
    list[str] | None,
    typer.Option(help=f"{' | '.join((*WORKLOADS, *SPECIAL))}; repeat for several."),
]
InFlightOption = Annotated[
    list[int] | None, typer.Option(min=1, help="Callers at a time; repeat for several levels.")
]
SecondsOption = Annotated[float, typer.Option(min=0.1, help="Aim of one measurement.")]
RepetitionsOption = Annotated[int, typer.Option(min=1)]
RateOption = Annotated[
    list[float] | None,
    typer.Option(min=0.1, help="Open loop: Poisson arrivals a second; repeat for several."),
]
DurabilityOption = Annotated[
    list[Durability] | None, typer.Option(help="Of the definition; repeat for several.")
]
StrategyOption = Annotated[
    list[str] | None, typer.Option(help="Of the inventory, for `contended`; all by default.")
]
SkewOption = Annotated[
    list[str] | None,
    typer.Option(help=f"For `contended`: {' | '.join((*SKEWS, 'hot'))}; all by default."),
]
ThinkOption = Annotated[
    float, typer.Option(min=0.0, help="Between reading and taking stock, for `contended`.")
]
SagasOption = Annotated[
    list[int] | None, typer.Option(min=1, help="Sagas that wait, or are in flight at the kill.")
]
DedicatedOption = Annotated[bool, typer.Option("--dedicated", help="One Ray actor for each saga.")]
ShardsOption = Annotated[int, typer.Option(min=1)]
EngineOption = Annotated[
    str, typer.Option(metavar="JSON", help="Settings of the engine other than the defaults.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of arrivals; certificates note it.")]
DataFolderOption = Annotated[Path | None, typer.Option(help="Where data folders are made.")]
ProfileOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Profile the loops instead; flame graphs go to DIR."),
]
PeersOption = Annotated[
    bool, typer.Option("--peers", help="Measure the peers as well, turn by turn.")
]
PeerOption = Annotated[
    list[str] | None, typer.Option(help=f"Only these peers: {' | '.join(PEERS)}.")
]
ResultsOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Append the lines to this file.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be measured; see the options above."""

    workloads: tuple[str, ...] = ("happy",)
    in_flight: tuple[int, ...] = LEVELS
    seconds: float
    repetitions: int
    rates_per_s: tuple[float, ...] = ()
    durability: tuple[Durability, ...] = (Durability.PIPELINED,)
    strategies: tuple[str, ...] = STRATEGIES
    skews: tuple[str, ...] = (*SKEWS, "hot")
    think_ms: float = 2.0
    sagas: tuple[int, ...] = (SAGAS,)
    dedicated: bool = False
    shards: int = 1
    engine: dict[str, Any]
    seed: int = 1
    pictures: Path | None = None
    peers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for given, known, option in (
            (self.workloads, (*WORKLOADS, *SPECIAL), "--workload"),
            (self.strategies, STRATEGIES, "--strategy"),
            (self.skews, (*SKEWS, "hot"), "--skew"),
            (self.peers, tuple(PEERS), "--peer"),
        ):
            for name in given:
                if name not in known:
                    raise typer.BadParameter(f"there is no {name!r}", param_hint=option)


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given, lists as tuples; those left out take their default."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None
    }


def settings_in(text: str) -> dict[str, Any]:
    """Return the engine's settings that a JSON object tells.

    Raises:
        typer.BadParameter: If it is none.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint="--engine") from error
    if not isinstance(found, dict):
        raise typer.BadParameter("must be an object", param_hint="--engine")
    return found
