"""Recording to MCAP. The same recording is the same bytes: fixed order, fixed serialisation, no compression, no clock."""

from __future__ import annotations

import heapq
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix
from mcap.writer import CompressionType, Writer
from mcap_protobuf.schema import build_file_descriptor_set

from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import InputError
from onshore.core.recording import Recording, Video
from onshore.wire import topics
from onshore.wire.annexb import is_annexb

#: (merge time, t_ns, topic, payload)
Entry = tuple[int, int, str, bytes]


def write_mcap(recording: Recording, path: Path | str, *, positions: bool = False) -> str:
    """Write the recording to `path` (fsync, then rename) and return the SHA-256 of its bytes.

    Latitude and longitude (`recording.private["gnss"]`) are written only when `positions` is asked for; nothing else of
    `private` is ever written. Raises InputError for H.264 that is not Annex B and for times before zero.
    """
    data = to_bytes(recording, positions=positions)
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, target)
    return sha256_hex(data)


def to_bytes(recording: Recording, *, positions: bool = False) -> bytes:
    """The bytes that `write_mcap` writes."""
    if recording.start_ns < 0:
        raise InputError(
            "clock_disorder", "recording", "MCAP times are unsigned; shift the clock so that it starts at 0."
        )
    buffer = io.BytesIO()
    writer = Writer(buffer, compression=CompressionType.NONE)
    writer.start(profile="", library="onshore")
    writer.add_metadata(topics.METADATA, _metadata(recording))
    channels = _register(writer, recording, positions)
    sequence = dict.fromkeys(channels, 0)
    streams = [_static(recording), _states(recording), *(_packets(video) for video in recording.videos)]
    if positions:
        streams.append(_fixes(recording))
    for _, t_ns, topic, data in heapq.merge(*streams, key=lambda entry: entry[0]):
        sequence[topic] += 1
        writer.add_message(channels[topic], t_ns, data, t_ns, sequence[topic])
    writer.finish()  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _metadata(recording: Recording) -> dict[str, str]:
    """Everything a recording knows that is no message, each value as canonical JSON, keys in a fixed order."""
    record = {
        "schema_version": recording.schema_version,
        "vehicle": recording.vehicle,
        "drive_key": recording.drive_key,
        "drive_id": recording.drive_id,
        "segment_id": recording.segment_id,
        "segment_index": recording.segment_index,
        "clock": recording.clock.as_record(),
        "rig": recording.rig.as_record(),
        "cameras": [video.camera for video in recording.videos],
        "synthetic": recording.synthetic,
        "anonymised": recording.anonymised,
        "dropped_topics": list(recording.dropped_topics),
        "facts": recording.facts,
    }
    return {name: canonical_json(value).decode() for name, value in record.items()}


def _register(writer: Writer, recording: Recording, positions: bool) -> dict[str, int]:
    schemas: dict[str, int] = {}

    def channel(topic: str, message_class: Any) -> int:
        name = message_class.DESCRIPTOR.full_name
        if name not in schemas:
            descriptor = build_file_descriptor_set(message_class).SerializeToString(deterministic=True)
            schemas[name] = writer.register_schema(name, "protobuf", descriptor)
        return writer.register_channel(topic, "protobuf", schemas[name])

    channels: dict[str, int] = {}
    for camera in recording.rig.cameras:
        channels[topics.CALIBRATION + camera.name] = channel(topics.CALIBRATION + camera.name, CameraCalibration)
    channels[topics.RIG] = channel(topics.RIG, FrameTransform)
    for video in recording.videos:
        topic = topics.CAMERA + video.camera
        channels[topic] = channel(topic, topics.camera_class(video.codec))
    channels[topics.POSE] = channel(topics.POSE, FrameTransform)
    state = writer.register_schema("onshore.EgoState", "jsonschema", canonical_json(topics.STATE_SCHEMA))
    channels[topics.STATE] = writer.register_channel(topics.STATE, "json", state)
    if positions:
        channels[topics.GNSS] = channel(topics.GNSS, LocationFix)
    return channels


def _static(recording: Recording) -> Iterator[Entry]:
    start = recording.start_ns
    for camera in recording.rig.cameras:
        yield start, start, topics.CALIBRATION + camera.name, topics.calibration_bytes(start, camera)
        yield start, start, topics.RIG, topics.mounting_bytes(start, camera)


def _states(recording: Recording) -> Iterator[Entry]:
    signals = recording.signals
    posed = np.isfinite(signals.x_m) & np.isfinite(signals.y_m) & np.isfinite(signals.yaw_rad)
    for row, t in enumerate(signals.t_ns):
        t_ns = int(t)
        if posed[row]:
            pose = (float(signals.x_m[row]), float(signals.y_m[row]), float(signals.yaw_rad[row]))
            yield t_ns, t_ns, topics.POSE, topics.pose_bytes(t_ns, *pose)
        yield t_ns, t_ns, topics.STATE, topics.state_bytes(signals, row)


def _packets(video: Video) -> Iterator[Entry]:
    """Packets in decoding order, merged by the latest time so far so that reordered frames keep that order."""
    latest = 0
    topic = topics.CAMERA + video.camera
    for packet in video.packets:
        if video.codec in topics.VIDEO_FORMATS and not is_annexb(packet.data):
            raise InputError("bad_config", f"camera {video.camera!r}", "H.264 packets must be Annex B (start codes).")
        latest = max(latest, packet.t_ns)
        yield latest, packet.t_ns, topic, topics.camera_bytes(video.camera, video.codec, packet)


def _fixes(recording: Recording) -> Iterator[Entry]:
    for t_ns, latitude, longitude, altitude in recording.private.get("gnss", ()):
        yield int(t_ns), int(t_ns), topics.GNSS, topics.fix_bytes(int(t_ns), latitude, longitude, altitude)
