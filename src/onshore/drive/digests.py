"""What makes a segment the same segment: digests over its signals and over its encoded pictures, never over containers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from onshore.core.digest import record_digest
from onshore.core.recording import Signals, Video


def signals_digest(signals: Signals) -> str:
    """SHA-256 (hex) over times and every column, little-endian; unknown values are one NaN."""
    digest = hashlib.sha256(np.ascontiguousarray(signals.t_ns, "<i8").tobytes())
    for name in Signals.COLUMNS:
        column = np.asarray(getattr(signals, name), "<f8").copy()
        column[np.isnan(column)] = np.nan
        digest.update(column.tobytes())
    return digest.hexdigest()


def video_digest(videos: Iterable[Video]) -> str:
    """SHA-256 (hex) over codec and packet bytes of every camera."""
    digest = hashlib.sha256()
    for video in videos:
        digest.update(f"{video.camera}|{video.codec}|{len(video.packets)}|".encode())
        for packet in video.packets:
            digest.update(len(packet.data).to_bytes(8, "little") + packet.data)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_digest(files: Iterable[Path]) -> str:
    """One digest for the bytes of all files of a source; a single file's own digest stays itself."""
    digests = [file_digest(path) for path in files]
    return digests[0] if len(digests) == 1 else record_digest(digests)
