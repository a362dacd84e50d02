"""Labels that a network read from video that has no signals: an artifact of its own beside the segment, never in it.

Rule: they stand where nothing was recorded; moments that were rejected are not there, and half a second without one ends
the track. What is learned from them says so in the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.clip.motion import MAX_GAP_S
from onshore.core.errors import CorruptError, InputError
from onshore.core.recording import Signals
from onshore.dataset.proxy import pack_arrays, unpack_arrays


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """One segment's labels: speed and yaw rate as signals, and the half widths of their intervals (M)."""

    segment: str
    signals: Signals
    speed_half_mps: NDArray[np.float64]
    yaw_half_radps: NDArray[np.float64]

    @property
    def seconds(self) -> float:
        """Time that the labels cover, gaps left out."""
        steps = np.diff(self.signals.t_ns) / 1e9
        return float(steps[steps <= MAX_GAP_S].sum())

    def to_bytes(self) -> bytes:
        arrays: dict[str, NDArray[Any]] = {
            "t_ns": self.signals.t_ns,
            "speed_mps": self.signals.speed_mps,
            "yaw_rate_radps": self.signals.yaw_rate_radps,
            "speed_half_mps": self.speed_half_mps,
            "yaw_half_radps": self.yaw_half_radps,
        }
        return pack_arrays({"schema_version": 1, "segment": self.segment}, arrays)

    @classmethod
    def from_bytes(cls, data: bytes, subject: str = "pseudo-labels") -> PseudoLabels:
        """Raises CorruptError when the bytes are not such labels."""
        head, arrays = unpack_arrays(data, subject)
        try:
            known = {name: arrays[name] for name in ("speed_mps", "yaw_rate_radps")}
            return cls(
                segment=head["segment"],
                signals=Signals.build(arrays["t_ns"], **known),
                speed_half_mps=arrays["speed_half_mps"],
                yaw_half_radps=arrays["yaw_half_radps"],
            )
        except (KeyError, InputError) as problem:
            raise CorruptError("corrupt", subject, f"these are no pseudo-labels ({problem!r}).") from problem
