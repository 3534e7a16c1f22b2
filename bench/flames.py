"""Draws a flame graph of collapsed stacks as one SVG that needs nothing else to be looked at.

B. Gregg, "The Flame Graph", CACM 59:6 (2016): width is time, and the stack grows upwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from html import escape

WIDTH, ROW, FONT = 1_200.0, 16.0, 11.0
"""Pixels: of the picture, of a frame's height, and of its text."""

TEXT_FROM = 35.0
"""Width in pixels from which on a frame has a text; all have a tooltip."""

DRAWN_FROM = 0.3
"""Width in pixels below which a frame is left out."""

CHARACTER = 6.2
"""Width of a character, about."""

Stacks = Mapping[tuple[str, ...], float]
"""Frames from the root to the leaf, and their weight."""


class _Frame:
    __slots__ = ("children", "weight")

    def __init__(self) -> None:
        self.children: dict[str, _Frame] = {}
        self.weight = 0.0


def flame_graph(title: str, stacks: Stacks) -> str:
    """Return the picture of `stacks`."""
    root = _Frame()
    for stack, weight in stacks.items():
        root.weight += weight
        at = root
        for name in stack:
            at = at.children.setdefault(name, _Frame())
            at.weight += weight
    depth = max((len(stack) for stack in stacks), default=0)
    height = (depth + 3) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}">',
        f'<g font-family="monospace" font-size="{FONT:.0f}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="4" y="{ROW - 4:.0f}" font-size="13">{escape(title)}</text>',
    ]
    if root.weight:
        _draw(parts, root, 0.0, height - ROW, WIDTH / root.weight, root.weight)
    parts.append("</g></svg>")
    return "\n".join(parts)


def _draw(parts: list[str], frame: _Frame, x: float, y: float, scale: float, total: float) -> None:
    for name, child in sorted(frame.children.items()):
        width = child.weight * scale
        if width >= DRAWN_FROM:
            share = f"{name}: {child.weight / total:.1%}"
            parts.append(
                f'<g><title>{escape(share)}</title><rect x="{x:.1f}" y="{y - ROW:.1f}" '
                f'width="{width:.1f}" height="{ROW - 1:.1f}" fill="{_colour(name)}"/>'
            )
            if width >= TEXT_FROM:
                text = escape(name[: int(width / CHARACTER)])
                parts.append(f'<text x="{x + 2:.1f}" y="{y - 4:.1f}">{text}</text>')
            parts.append("</g>")
            _draw(parts, child, x, y - ROW, scale, total)
        x += width


def _colour(name: str) -> str:
    """Return a warm colour that is the same for the same file."""
    file = name.rpartition("(")[2]
    hue = hashlib.blake2b(file.encode(), digest_size=1).digest()[0] * 55 // 255
    return f"hsl({hue},80%,68%)"
