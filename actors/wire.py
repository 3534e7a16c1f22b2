"""Messages between actors as bytes: msgpack values one after the other, the sender's name first.

Each message is packed when it is handed over, so that one bad object fails its
own sender and not a batch, and so that a batch can be bounded in bytes. What
comes out is plain data and nothing else: no extension types, no pickles.
"""

from __future__ import annotations

from typing import Any

import msgpack

from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.structure import Structure, pack_structures

BATCH_BYTES_MAX = 8 << 20
"""Largest batch that is taken; a larger one is refused before it is read."""

MESSAGE_BYTES_MAX = 1 << 20
"""Largest message; a saga's input is bounded to a quarter of it."""

_pack = msgpack.Packer(autoreset=True).pack


def pack_message(message: Any) -> bytes:
    """Return one message as bytes.

    Raises:
        ValidationError: If it is no plain data, or too large.
    """
    try:
        packed: bytes = (
            pack_structures(message) if isinstance(message, Structure) else _pack(message)
        )
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError(f"the message cannot be sent: {error}") from error
    if len(packed) > MESSAGE_BYTES_MAX:
        raise ValidationError(f"the message is {len(packed)} bytes, over {MESSAGE_BYTES_MAX}")
    return packed


def unpack_messages(batch: bytes) -> list[Any]:
    """Return the messages of a batch; tuples come back as lists.

    Raises:
        ValidationError: If the bytes are anything else.
    """
    if len(batch) > BATCH_BYTES_MAX + MESSAGE_BYTES_MAX:
        raise ValidationError(f"the batch is {len(batch)} bytes, over {BATCH_BYTES_MAX}")
    try:
        unpacker = msgpack.Unpacker(
            max_buffer_size=len(batch) or 1, ext_hook=_refuse_extension, strict_map_key=True
        )
        unpacker.feed(batch)
        messages = list(unpacker)
        left = len(batch) - unpacker.tell()
    except (TypeError, ValueError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        raise ValidationError(f"the batch cannot be read: {error}") from error
    if left:
        raise ValidationError(f"the batch ends in the middle of a message, {left} bytes left")
    return messages


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not plain data")
