"""How a drive is described: rig, signals, video packets, segments. One recording format for readers, world, car and wire.

Time is `t_ns` (int) on the recording's own clock; each recording says which clock and how far it may be from UTC.
Nothing here is ever computed from frame number over frame rate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onshore.core.control import VehicleGeometry
from onshore.core.digest import check_id, short_id
from onshore.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Clock:
    """`boot` clocks count from an unknown start; the offset to UTC is an estimate with an uncertainty (None: not known)."""

    kind: Literal["utc", "boot"]
    utc_offset_ns: int | None = None
    uncertainty_ns: int | None = None

    def as_record(self) -> dict[str, Any]:
        return {"kind": self.kind, "utc_offset_ns": self.utc_offset_ns, "uncertainty_ns": self.uncertainty_ns}


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera: size (px), focal length and principal point (px), and its pose in the `rig` frame.

    pose_camera_in_rig: x, y, z (m), roll, pitch, yaw (rad) of a camera that looks along its own x axis (y left, z up);
    pitch positive looks down. `source` says whether the figures were measured or assumed.
    """

    name: str
    width_px: int
    height_px: int
    focal_px: float
    centre_x_px: float
    centre_y_px: float
    pose_camera_in_rig: tuple[float, float, float, float, float, float] = (1.6, 0.0, 1.4, 0.0, 0.0, 0.0)
    time_offset_ns: int = 0
    source: Literal["measured", "assumed"] = "assumed"

    def as_record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "width_px": self.width_px,
            "height_px": self.height_px,
            "focal_px": self.focal_px,
            "centre_x_px": self.centre_x_px,
            "centre_y_px": self.centre_y_px,
            "pose_camera_in_rig": list(self.pose_camera_in_rig),
            "time_offset_ns": self.time_offset_ns,
            "source": self.source,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Camera:
        return cls(**{**record, "pose_camera_in_rig": tuple(record["pose_camera_in_rig"])})


@dataclass(frozen=True, kw_only=True)
class Rig:
    """A vehicle's cameras and every other topic with its verdict (keep, drop, refuse) from the region pack."""

    cameras: tuple[Camera, ...]
    vehicle: VehicleGeometry = VehicleGeometry()
    topics: dict[str, str] = field(default_factory=dict)

    def camera(self, name: str) -> Camera:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise InputError(
            "bad_config", f"camera {name!r}", f"the rig has {', '.join(c.name for c in self.cameras) or 'none'}."
        )

    def as_record(self) -> dict[str, Any]:
        return {
            "cameras": [camera.as_record() for camera in self.cameras],
            "vehicle": vars(self.vehicle).copy(),
            "topics": dict(self.topics),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Rig:
        return cls(
            cameras=tuple(Camera.from_record(camera) for camera in record["cameras"]),
            vehicle=VehicleGeometry(**record["vehicle"]),
            topics=dict(record["topics"]),
        )


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Ego signals on their own clock: `t_ns` (N, int64, strictly rising) and float64 columns of N; NaN where not known.

    Positions are the rear axle in `local` when known (NaN columns otherwise); latitude and longitude stay in `drive`.
    command / junction_distance_m / in_junction come from navigation or a map: 0, NaN and NaN where unknown.
    """

    t_ns: NDArray[np.int64]
    speed_mps: NDArray[np.float64]
    accel_mps2: NDArray[np.float64]
    yaw_rate_radps: NDArray[np.float64]
    steering_rad: NDArray[np.float64]
    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    yaw_rad: NDArray[np.float64]
    command: NDArray[np.int8]
    junction_distance_m: NDArray[np.float64]
    in_junction: NDArray[np.float64]

    COLUMNS = [
        "speed_mps",
        "accel_mps2",
        "yaw_rate_radps",
        "steering_rad",
        "x_m",
        "y_m",
        "yaw_rad",
        "command",
        "junction_distance_m",
        "in_junction",
    ]

    def __post_init__(self) -> None:
        if any(len(getattr(self, name)) != len(self.t_ns) for name in self.COLUMNS):
            raise InputError("clock_disorder", "signals", "every signal column must be as long as its times.")
        if len(self.t_ns) > 1 and not bool((np.diff(self.t_ns) > 0).all()):
            raise InputError("clock_disorder", "signals.t_ns", "times must rise strictly; sort and de-duplicate them.")

    @classmethod
    def build(cls, t_ns: NDArray[np.int64], **columns: NDArray[Any]) -> Signals:
        """Signals with every column not given filled with 'not known'."""
        filled: dict[str, NDArray[Any]] = {}
        for name in cls.COLUMNS:
            if name == "command":
                filled[name] = np.asarray(columns.get(name, np.zeros(len(t_ns))), np.int8)
            else:
                filled[name] = np.asarray(columns.get(name, np.full(len(t_ns), np.nan)), np.float64)
        return cls(t_ns=np.asarray(t_ns, np.int64), **filled)

    def known(self) -> list[str]:
        """Names of the columns that hold at least one known value."""
        return [
            name
            for name in self.COLUMNS
            if bool((getattr(self, name) > 0).any() if name == "command" else np.isfinite(getattr(self, name)).any())
        ]


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One encoded frame with its own presentation time. Packets are stored in decoding order."""

    t_ns: int
    data: bytes
    keyframe: bool


@dataclass(frozen=True, kw_only=True)
class Video:
    """One camera's encoded frames: `h264` (Annex B), `hevc` or `jpeg`."""

    camera: str
    codec: str
    packets: tuple[Packet, ...]

    @property
    def t_ns(self) -> NDArray[np.int64]:
        """Frame times in display order."""
        return np.sort(np.array([packet.t_ns for packet in self.packets], np.int64))


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One segment as recorded: what a reader yields, the world writes, and a car uploads.

    `vehicle` is the name as the source gives it; the center stores only its salted id. segment_id/drive_id are set where
    the file carries them (they travel with an export), else None and the intake derives them.
    `private` holds what must never leave intake (precise positions, source path, VIN).
    """

    vehicle: str
    clock: Clock
    rig: Rig
    signals: Signals
    videos: tuple[Video, ...]
    segment_index: int = 0
    drive_key: str = ""
    segment_id: str | None = None
    drive_id: str | None = None
    synthetic: bool = False
    anonymised: bool = False
    dropped_topics: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    private: dict[str, Any] = field(default_factory=dict, repr=False)
    schema_version: int = 1

    def __post_init__(self) -> None:
        for identity in (self.segment_id, self.drive_id):
            if identity is not None:
                check_id(identity)

    @property
    def start_ns(self) -> int:
        return int(min([self.signals.t_ns[0], *(v.t_ns[0] for v in self.videos if v.packets)]))

    @property
    def end_ns(self) -> int:
        return int(max([self.signals.t_ns[-1], *(v.t_ns[-1] for v in self.videos if v.packets)]))


@dataclass(frozen=True, kw_only=True)
class ClipRef:
    """A few seconds worth learning from: (segment, start, end); its id is the digest of that."""

    segment_id: str
    start_ns: int
    end_ns: int

    @property
    def id(self) -> str:
        return short_id("clip", [self.segment_id, self.start_ns, self.end_ns])
