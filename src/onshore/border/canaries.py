"""Canaries: synthetic drives of pictures that exist nowhere else, whose futures are drawn by lot and follow from nothing.

Rule: which drives they are follows from a key that only the center's key folder yields and is written nowhere; a center's ledger says
only how many. For every planted canary there are twins, drawn the same way and never handed out: a model that knows the
planted futures better than the twins' has memorised. Same key, same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onshore.border.people import pseudonym
from onshore.core.control import VehicleGeometry
from onshore.core.digest import short_id
from onshore.core.errors import UsageError
from onshore.core.recording import Camera, Clock, Recording, Rig, Signals

if TYPE_CHECKING:
    from onshore.store import Center

MADE = "border.canaries"
TWINS_EACH = 2
HZ, PICTURES, SECONDS = 10.0, 7, 4.0
SPEED_MPS = 8.0  # the same for all: the speed that a network is told must say nothing about the future
START_NS = 1_700_000_000_000_000_000
CAMERA = Camera(
    name="front",
    width_px=192,
    height_px=96,
    focal_px=64.0,
    centre_x_px=96.0,
    centre_y_px=48.0,
    pose_camera_in_rig=(1.5, 0.0, 1.4, 0.0, 0.0, 0.0),
)


@dataclass(frozen=True, kw_only=True)
class Canary:
    """One canary: its set, its number in it, whether it is handed out, and the bytes everything about it follows from."""

    set_number: int
    number: int
    planted: bool
    seed: bytes

    @property
    def vehicle(self) -> str:
        return f"car-{self.seed[:6].hex()}"

    @property
    def drive_key(self) -> str:
        return f"route-{self.seed[6:12].hex()}"

    def drive_id(self, center: Center) -> str:
        """The id that intake gives it in this center."""
        return short_id("drive", [center.subject("vehicle", self.vehicle), self.drive_key])


def make_canaries(center: Center, out_dir: str | Path, *, count: int = 32) -> list[Path]:
    """Write `count` canary drives as MCAP files into an in-region folder, for `drive add` and `dataset freeze`.

    Their twins are made anew from the key when a model is measured. Errors: RefusedError `not_in_region`, UsageError.
    """
    from onshore.border.gate import write_out
    from onshore.wire.writing import to_bytes

    if not 8 <= count <= 4096:
        raise UsageError(f"count {count}", "plant 8 to 4096; fewer say nothing, 32 and more give a useful interval.")
    number = len(sets(center))
    body = {"set": number, "planted": count, "twins": count * TWINS_EACH}
    made = [one for one in _of_set(center, number, count) if one.planted]
    files = {f"{one.vehicle}.mcap": to_bytes(recording_of(one)) for one in made}
    written = write_out(center, files, out_dir, kind="segment")
    center.ledger.append(MADE, {**body, "by": pseudonym(center, "person", center.actor)})
    return written


def sets(center: Center) -> list[int]:
    """How many canaries each set planted, by set number, as the ledger tells."""
    return [int(entry.body["planted"]) for entry in center.ledger.entries() if entry.kind == MADE]


def canaries(center: Center) -> list[Canary]:
    """Every canary of the center, twins too, from the key and the ledger's counts."""
    return [one for number, count in enumerate(sets(center)) for one in _of_set(center, number, count)]


def recording_of(one: Canary) -> Recording:
    """The drive: coloured blocks as no road has them, and a bend and an acceleration drawn by lot."""
    from onshore.wire import encode

    draw = np.random.default_rng(list(one.seed))
    steering, accel = float(draw.uniform(-0.12, 0.12)), float(draw.uniform(-2.5, 2.5))
    pictures = ((START_NS + round(i * 1e9 / HZ), frame) for i, frame in enumerate(_pictures(draw)))
    return Recording(
        vehicle=one.vehicle,
        drive_key=one.drive_key,
        clock=Clock(kind="utc", utc_offset_ns=0, uncertainty_ns=0),
        rig=Rig(cameras=(CAMERA,)),
        signals=_driven(steering, accel, int.from_bytes(one.seed[12:15], "big") * 10**9),
        videos=(encode(CAMERA.name, ((t + _shift(one), frame) for t, frame in pictures), crf=10),),
        synthetic=True,
    )


def _shift(one: Canary) -> int:
    return int.from_bytes(one.seed[12:15], "big") * 10**9


def _pictures(draw: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    blocks = draw.integers(0, 256, (12, 24, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    for _ in range(PICTURES):
        yield blocks


def _driven(steering: float, accel: float, shift_ns: int) -> Signals:
    """A constant turn and acceleration from the common speed, never below a crawl."""
    t = np.arange(round(SECONDS * HZ * 2) + 1) / (HZ * 2)
    speed = np.maximum(SPEED_MPS + accel * np.maximum(t - (PICTURES - 1) / HZ, 0.0), 1.0)
    rate = speed * math.tan(steering) / VehicleGeometry().wheelbase_m
    yaw = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(t))])
    step = np.diff(t) * (speed[1:] + speed[:-1]) / 2
    middle = (yaw[1:] + yaw[:-1]) / 2
    x = np.concatenate([[0.0], np.cumsum(step * np.cos(middle))])
    y = np.concatenate([[0.0], np.cumsum(step * np.sin(middle))])
    t_ns = START_NS + shift_ns + np.round(t * 1e9).astype(np.int64)
    return Signals.build(t_ns, speed_mps=speed, yaw_rate_radps=rate, x_m=x, y_m=y, yaw_rad=yaw)


def _of_set(center: Center, number: int, count: int) -> list[Canary]:
    key = canary_key(center)
    lots = [(index, index < count) for index in range(count * (1 + TWINS_EACH))]
    return [
        Canary(
            set_number=number,
            number=index,
            planted=planted,
            seed=hmac.new(key, f"canary|{number}|{index}|{planted}".encode(), hashlib.sha256).digest(),
        )
        for index, planted in lots
    ]


def canary_key(center: Center) -> bytes:
    """The border's own key for canaries and certificates (32 bytes), derived from the center's secret salt."""
    return hmac.new(center.keys.salt, b"onshore-canaries-1", hashlib.sha256).digest()
