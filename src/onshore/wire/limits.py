"""How much one file may ask of a reader; every figure is compared before the memory is spent."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on one recording; sizes in bytes.

    `expansion` bounds what compressed chunks may grow to in total, as a multiple of the file's own size (a floor of
    64 MiB lets small, honest files of text through).
    """

    file_bytes: int = 4096 * MIB
    chunk_bytes: int = 64 * MIB
    expansion: int = 40
    expansion_floor_bytes: int = 64 * MIB
    messages: int = 4_000_000
    frame_pixels: int = 64_000_000

    def total_bytes(self, file_bytes: int) -> int:
        """What all chunks of a file of `file_bytes` may hold once decompressed."""
        return max(self.expansion_floor_bytes, self.expansion * file_bytes)
