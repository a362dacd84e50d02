"""Real recordings, made here: MCAP files and mp4 + CSV pairs of a car that drives past drawn faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onshore.core.recording import Camera, Clock, Recording, Rig, Signals
from onshore.privacy.canary import drawn_face
from onshore.store import Center
from onshore.wire import encode, write_mcap

HEIGHT, WIDTH, HZ = 96, 160, 10
#: B-frames as cameras write them; with a look-ahead the encoder would not be repeatable on pictures this small.
MP4_OPTIONS = {"preset": "veryfast", "bf": "2", "threads": "1", "x264-params": "rc-lookahead=0"}


def picture(index: int, face: bool = False) -> np.ndarray:
    if face:
        return drawn_face(HEIGHT, WIDTH)[0][0]
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([(x + 5 * index) % 256, 255 - 2 * y, 90 + 0 * x], -1).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Writes recordings below a folder; every knob of a recording that a test needs."""

    root: Path

    def table(self, path: str, *, start_s: float = 100.0, frames: int = 12, speed: float = 8.0, **knobs: Any) -> Path:
        """A CSV in plain columns at 10 Hz for `seconds`, and an mp4 with B-frames beside it."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        times = start_s + np.arange(round(knobs.get("seconds", 6.0) * HZ)) / HZ
        header = knobs.get("header", "time_s,speed_mps,yaw_rate_radps,note")
        rows = [f"{t:.4f},{speed + 0.01 * i:.4f},0.02,{knobs.get('note', 'x')}" for i, t in enumerate(times)]
        target.with_suffix(".csv").write_text("\n".join([header, *rows]))
        self.video(target.with_suffix(".mp4"), frames, **knobs)
        return target.with_suffix(".csv")

    def openlka(self, path: str, *, start_s: float = 100.0, frames: int = 12, speed: float = 8.0, **knobs: Any) -> Path:
        """A table in the columns of OpenLKA, `Time` twice, lists as text."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        times = start_s + np.arange(600) / HZ
        header = "Time,unix_time,vEgo,aEgo,op_lane_change_state,op_curvature_actual,op_state_steer_angle,can_mono_time,l,Time"
        rows = [
            f'{t!r},{1.7e18 + i * 1e8},{speed + i / 1000},0.0,0,-0.01,16.3,{i},"[0.1, 0.2\n 0.3]",{i / HZ}'
            for i, t in enumerate(times.tolist())
        ]
        target.with_suffix(".csv").write_text("\n".join([header, *rows]))
        self.video(target.with_suffix(".mp4"), frames, size=(330, 526), **knobs)
        return target.with_suffix(".csv")

    def video(
        self, path: Path, frames: int, *, vin: str = "", shift: int = 0, face: bool = False, **knobs: Any
    ) -> None:
        import av

        height, width = knobs.get("size", (HEIGHT, WIDTH))
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=20, options=MP4_OPTIONS)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if vin:
                container.metadata["comment"] = container.metadata["title"] = vin
                stream.metadata["handler_name"] = vin
            for index in range(frames):
                image = np.zeros((height, width, 3), np.uint8)
                image[:HEIGHT, :WIDTH] = picture(index + shift, face=face)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())

    def recording(self, *, start_s: float = 50.0, frames: int = 15, face: bool = False, **fields: Any) -> Recording:
        times = round(start_s * 1e9) + np.arange(frames) * (1_000_000_000 // HZ)
        camera = Camera(
            name="front",
            width_px=WIDTH,
            height_px=HEIGHT,
            focal_px=120.0,
            centre_x_px=WIDTH / 2,
            centre_y_px=HEIGHT / 2,
        )
        shift = round(start_s) + 100 * fields.get("segment_index", 0)
        values: dict[str, Any] = {
            "vehicle": "car-0007",
            "drive_key": "monday",
            "clock": Clock(kind="boot"),
            "rig": Rig(cameras=(camera,)),
            "signals": Signals.build(times, speed_mps=5 + np.arange(frames) / 10, yaw_rate_radps=np.zeros(frames)),
            "videos": (encode("front", ((int(t), picture(i + shift, face)) for i, t in enumerate(times))),),
            "synthetic": True,
            "facts": {"place": "us-town-001"},
        }
        return Recording(**{**values, **fields})

    def mcap(self, path: str, *, positions: bool = False, **fields: Any) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mcap(self.recording(**fields), target, positions=positions)
        return target


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(root=tmp_path / "fleet")


@pytest.fixture
def center(tmp_path: Path) -> Center:
    return Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=1)


def new_center(tmp_path: Path, name: str, region: str = "us", seed: int = 2) -> Center:
    return Center.init(tmp_path / name, region, keys_dir=tmp_path / f"{name}-keys", seed=seed)
