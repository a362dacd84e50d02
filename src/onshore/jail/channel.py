"""What a jail's child and its parent say to each other: JSON values that may hold bytes, over a pair of pipes.

Rule: nothing that arrives is executed or unpickled, and nothing is believed about its size; pipes carry no descriptors.
Layout of a message: length of the JSON (4 bytes, little-endian), the JSON, then the bytes that it stands for, in order.
Standard library only: the child reads this before its fences stand.
"""

from __future__ import annotations

import json
import os
from typing import Any

TEXT_LIMIT_BYTES = 256 << 20
#: A JSON object of this one key stands for that many bytes behind the JSON.
PLACE = "$bytes"


class Garbled(Exception):
    """The other side sent what is no message, or closed its end."""


class Channel:
    """One end. limit_bytes: the most that one received message may carry."""

    def __init__(self, reading: int, writing: int, *, limit_bytes: int) -> None:
        self._reading, self._writing, self.limit_bytes = os.fdopen(reading, "rb"), os.fdopen(writing, "wb"), limit_bytes

    def send(self, value: Any) -> None:
        """Errors: TypeError or ValueError for what JSON cannot say, BrokenPipeError when nobody listens."""
        blocks: list[bytes] = []
        text = json.dumps(_laid_aside(value, blocks)).encode()
        if len(text) > TEXT_LIMIT_BYTES:
            raise ValueError(f"a message of {len(text)} bytes of text; send bytes as bytes.")
        self._writing.write(len(text).to_bytes(4, "little") + text)
        for block in blocks:
            self._writing.write(block)
        self._writing.flush()

    def receive(self) -> Any:
        """Errors: Garbled."""
        size = int.from_bytes(self._exactly(4), "little")
        if size > min(TEXT_LIMIT_BYTES, self.limit_bytes):
            raise Garbled(f"a message of {size} bytes of text is longer than allowed")
        left = self.limit_bytes - size

        def put_back(found: dict[str, Any]) -> Any:
            nonlocal left
            if found.keys() != {PLACE}:
                return found
            count = found[PLACE]
            if not isinstance(count, int) or not 0 <= count <= left:
                raise Garbled("a message that is longer than allowed")
            left -= count
            return self._exactly(count)

        try:
            return json.loads(self._exactly(size), object_hook=put_back)
        except (ValueError, RecursionError) as fault:
            raise Garbled("a message that is not JSON") from fault

    def close(self) -> None:
        for file in (self._reading, self._writing):
            try:
                file.close()
            except OSError:  # bytes that nobody took
                continue

    def _exactly(self, count: int) -> bytes:
        data = self._reading.read(count)
        if len(data) != count:
            raise Garbled("no answer")
        return data


def _laid_aside(value: Any, blocks: list[bytes]) -> Any:
    """The value with every bytes object replaced by its place, in the order in which JSON will name them."""
    if isinstance(value, bytes):
        blocks.append(value)
        return {PLACE: len(value)}
    if isinstance(value, dict):
        if PLACE in value:
            raise ValueError(f"{PLACE!r} cannot be a key.")
        return {key: _laid_aside(item, blocks) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_laid_aside(item, blocks) for item in value]
    return value
