"""Time of day and weather as the camera sees them: how light falls, how far one sees, what shines.

Rule: physics, the same in every region; colours of the region's own sky and ground come from its pack. A look changes
pictures alone: nobody drives differently because it rains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import UsageError
from onshore.world.roads import Colour

#: Places in the vector that the camera's kernel reads.
AMBIENT, BEAM, HAZE, HAZE_RGB, WET, GLOW, ZENITH, HORIZON, PLAIN = 0, 3, 4, 5, 8, 9, 10, 13, 16
SIZE = 17


@dataclass(frozen=True, kw_only=True)
class Look:
    """Light on surfaces (share of daylight by colour), headlights, haze (distance at which 37 % is left), wetness, halos.

    sky and horizon: share of the region's daylight sky, and a colour added to it. identities: what is seen of plates and faces:
    nothing, themselves, or the solid boxes that the anonymiser puts over them.
    """

    name: str
    ambient: tuple[float, float, float] = (1.0, 1.0, 1.0)
    beam: float = 0.0
    haze_m: float | None = None
    haze: Colour = (190, 195, 200)
    wet: float = 0.0
    glow: float = 0.0
    sky_share: float = 1.0
    sky_plus: Colour = (0, 0, 0)
    horizon_plus: Colour = (0, 0, 0)
    identities: Literal["none", "shown", "redacted"] = "none"

    def vector(self, sky: Colour) -> NDArray[np.float32]:
        """What the kernel reads, in one region's sky."""
        out = np.zeros(SIZE, np.float32)
        day = np.array(sky, np.float32)
        out[AMBIENT : AMBIENT + 3] = self.ambient
        out[BEAM], out[WET], out[GLOW] = self.beam, self.wet, self.glow
        out[HAZE] = 0.0 if self.haze_m is None else 1.0 / self.haze_m
        out[HAZE_RGB : HAZE_RGB + 3] = self.haze
        out[ZENITH : ZENITH + 3] = np.clip(day * self.sky_share + self.sky_plus, 0, 255)
        pale = day * 0.7 + 245 * 0.3
        out[HORIZON : HORIZON + 3] = np.clip(pale * self.sky_share + self.horizon_plus, 0, 255)
        out[PLAIN] = float(self.ambient == (1.0, 1.0, 1.0) and self.haze_m is None and not self.wet)
        return out


LOOKS: dict[str, Look] = {
    look.name: look
    for look in (
        Look(name="day"),
        Look(
            name="dusk",
            ambient=(0.62, 0.5, 0.46),
            beam=0.45,
            haze_m=400.0,
            haze=(150, 110, 100),
            glow=0.45,
            sky_share=0.32,
            sky_plus=(30, 25, 45),
            horizon_plus=(150, 75, 30),
        ),
        Look(
            name="night",
            ambient=(0.25, 0.24, 0.25),
            beam=1.2,
            haze_m=260.0,
            haze=(14, 15, 22),
            glow=0.9,
            sky_share=0.03,
            sky_plus=(8, 9, 16),
            horizon_plus=(22, 20, 24),
        ),
        Look(
            name="rain",
            ambient=(0.62, 0.65, 0.68),
            beam=0.25,
            haze_m=110.0,
            haze=(150, 156, 162),
            wet=1.0,
            glow=0.4,
            sky_share=0.25,
            sky_plus=(100, 106, 112),
            horizon_plus=(105, 110, 116),
        ),
    )
}

#: Daylight in which plates and faces can be read, and the same as a center keeps it: to ask what learning with solid boxes costs.
IDENTIFIABLE, REDACTED = (
    Look(name="identifiable", identities="shown"),
    Look(name="redacted", identities="redacted"),
)
_NAMED = {**LOOKS, **{look.name: look for look in (IDENTIFIABLE, REDACTED)}}


def look_named(name: str) -> Look:
    """A look by name; UsageError names the known ones."""
    if name not in _NAMED:
        raise UsageError(f"look {name!r}", f"choose one of {', '.join(_NAMED)}.")
    return _NAMED[name]
