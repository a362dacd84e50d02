"""The topics of a recording file and how one message of each is made and read.

Cameras, calibration, transforms and positions use the Foxglove protobuf schemas (so that Foxglove shows them); ego state
is JSON with a JSON schema; everything else a recording knows travels in the metadata record `onshore`.
"""

from __future__ import annotations

import json
import math
from typing import Any

from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix

from onshore.core.digest import canonical_json
from onshore.core.errors import InputError
from onshore.core.recording import Camera, Packet, Signals

CAMERA, CALIBRATION, POSE, STATE, GNSS, RIG = "/camera/", "/calibration/", "/ego/pose", "/ego/state", "/gnss", "/rig"
METADATA = "onshore"
VIDEO_FORMATS = {"h264": "h264", "hevc": "h265"}
IMAGE_FORMATS = {"jpeg": "jpeg"}
CODECS = {
    **{name: codec for codec, name in VIDEO_FORMATS.items()},
    **{name: codec for codec, name in IMAGE_FORMATS.items()},
    "hevc": "hevc",
    "jpg": "jpeg",
}

STATE_SCHEMA: dict[str, Any] = {
    "title": "onshore.EgoState",
    "description": "Ego signals in SI units; a property that is not there is not known.",
    "type": "object",
    "properties": {name: {"type": "integer" if name == "command" else "number"} for name in Signals.COLUMNS},
}


def stamp(message: Any, t_ns: int) -> Any:
    """Set the protobuf timestamp of a message."""
    message.timestamp.seconds, message.timestamp.nanos = divmod(t_ns, 1_000_000_000)
    return message


def camera_class(codec: str) -> Any:
    if codec in VIDEO_FORMATS:
        return CompressedVideo
    if codec in IMAGE_FORMATS:
        return CompressedImage
    raise InputError("unknown_format", f"codec {codec!r}", "a recording carries h264, hevc or jpeg.")


def camera_bytes(camera: str, codec: str, packet: Packet) -> bytes:
    message = camera_class(codec)(frame_id=camera, data=packet.data, format={**VIDEO_FORMATS, **IMAGE_FORMATS}[codec])
    return serialise(stamp(message, packet.t_ns))


def serialise(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def state_bytes(signals: Signals, row: int) -> bytes:
    """One row as JSON; unknown values (NaN, command 0) are left out."""
    values: dict[str, Any] = {}
    for name in Signals.COLUMNS:
        value = getattr(signals, name)[row]
        if name == "command":
            if value:
                values[name] = int(value)
        elif math.isfinite(value):
            values[name] = float(value)
    return canonical_json(values)


def state_values(data: bytes, subject: str) -> dict[str, float]:
    """A row back; raises InputError `unknown_format` when it is not a JSON object of numbers."""
    try:
        row = json.loads(data)
        return {name: float(row[name]) for name in Signals.COLUMNS if row.get(name) is not None}
    except (ValueError, TypeError, AttributeError) as problem:
        raise InputError(
            "unknown_format", f"{subject} {STATE}", "a message is not a JSON object of numbers."
        ) from problem


def pose_bytes(t_ns: int, x_m: float, y_m: float, yaw_rad: float) -> bytes:
    """`rig` in `local` as a transform."""
    message = stamp(FrameTransform(parent_frame_id="local", child_frame_id="rig"), t_ns)
    message.translation.x, message.translation.y, message.translation.z = x_m, y_m, 0.0
    message.rotation.z, message.rotation.w = math.sin(yaw_rad / 2), math.cos(yaw_rad / 2)
    return serialise(message)


def mounting_bytes(t_ns: int, camera: Camera) -> bytes:
    """The camera's optical frame (z forward, x right, y down) in `rig`."""
    x, y, z, roll, pitch, yaw = camera.pose_camera_in_rig
    message = stamp(FrameTransform(parent_frame_id="rig", child_frame_id=camera.name), t_ns)
    message.translation.x, message.translation.y, message.translation.z = x, y, z
    optical = (0.5, -0.5, 0.5, -0.5)
    w, qx, qy, qz = _product(_from_euler(roll, pitch, yaw), optical)
    message.rotation.w, message.rotation.x, message.rotation.y, message.rotation.z = w, qx, qy, qz
    return serialise(message)


def calibration_bytes(t_ns: int, camera: Camera) -> bytes:
    f, cx, cy = camera.focal_px, camera.centre_x_px, camera.centre_y_px
    message = CameraCalibration(
        frame_id=camera.name,
        width=camera.width_px,
        height=camera.height_px,
        K=[f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0],
        R=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        P=[f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
    return serialise(stamp(message, t_ns))


def fix_bytes(t_ns: int, latitude_deg: float, longitude_deg: float, altitude_m: float) -> bytes:
    message = LocationFix(frame_id="rig", latitude=latitude_deg, longitude=longitude_deg, altitude=altitude_m)
    return serialise(stamp(message, t_ns))


Quaternion = tuple[float, float, float, float]


def _from_euler(roll: float, pitch: float, yaw: float) -> Quaternion:
    """w, x, y, z of intrinsic yaw, pitch, roll."""
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(a / 2), math.sin(a / 2)) for a in (roll, pitch, yaw))
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def _product(a: Quaternion, b: Quaternion) -> Quaternion:
    (aw, ax, ay, az), (bw, bx, by, bz) = a, b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )
