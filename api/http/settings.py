"""Every bound of the HTTP interface, with its unit and its reason."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

WAIT_S_MAX = 60.0
"""Longest `?wait=`; proxies close what is silent for longer."""

ROWS_MAX = 1_000
"""Largest page of a list."""

ROWS_USUAL = 50
"""A screenful."""


class HttpSettings(BaseModel):
    """How one server behaves. Unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    body_bytes_max: int = Field(256 * 1024, ge=1)
    """Largest body, counted as it streams; as much as a saga's input may have."""

    body_wait_s: float = Field(10.0, gt=0)
    """How long a body may take to arrive."""

    requests_per_s: float = Field(500.0, gt=0)
    """Requests a second of one token, or of one address without tokens, in the long run."""

    requests_burst: int = Field(1_000, ge=1)
    """Requests at once, after a quiet while."""

    callers_max: int = Field(10_000, ge=1)
    """Callers whose rate is remembered; the longest silent is forgotten first."""

    streams_max: int = Field(64, ge=1)
    """Event streams open at a time; each holds a connection."""

    look_every_s: float = Field(1.0, gt=0)
    """Pause between two looks at the engine, for all who watch it."""

    follow_every_s: float = Field(0.3, gt=0)
    """Pause between two looks at a saga that somebody follows."""

    heartbeat_s: float = Field(15.0, gt=0)
    """After so long without an event a stream says that it is alive."""

    looks_max: int = Field(20_000, ge=1)
    """Sagas looked at for one page of a list; 0.2 s, in a journal of a million."""

    reads_max: int = Field(10_000, ge=1)
    """Sagas looked at for one page when their inputs are searched; 0.18 s."""

    ready_wait_s: float = Field(2.0, gt=0)
    """How long the engine may take to answer before it does not count as ready."""

    map_ratio_max: float = Field(0.9, gt=0, le=1)
    """Share of a journal's cap in use from which the server is not ready for more."""
