"""Every bound of what is stored, with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    """How large one shard's journal may become.

    Attributes:
        map_bytes_first: Size of the map to begin with. It costs address space only, and
            each doubling holds up one commit by about 100 microseconds.
        map_bytes_max: Cap. A saga takes about 1.5 KiB until it is pruned, and 200 bytes
            afterwards, so this is room for ten million.
        reserve_ratio: Part of the cap kept for finishing what was begun.
    """

    map_bytes_first: int = 64 * MIB
    map_bytes_max: int = 16 * 1024 * MIB
    reserve_ratio: float = 0.05

    def __post_init__(self) -> None:
        assert self.map_bytes_first > 0
        assert self.map_bytes_max > 0
        assert 0 <= self.reserve_ratio < 1

    @property
    def reserve_bytes(self) -> int:
        """The reserve in bytes."""
        return int(self.map_bytes_max * self.reserve_ratio)
