"""MCAP to Recording. Every size is checked in a header before it is spent; a file of another maker is read as far as its
topics allow, and what is not read is named in `dropped_topics`.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix
from google.protobuf.message import DecodeError
from mcap.exceptions import McapError, RecordLengthLimitExceeded
from mcap.records import Channel, Chunk, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk

from onshore.core.errors import InputError
from onshore.core.recording import Camera, Clock, Packet, Recording, Rig, Signals, Video
from onshore.wire import topics
from onshore.wire.annexb import is_keyframe
from onshore.wire.limits import Limits

#: Times after 2001-09-09 are taken for UTC in files that do not say.
_UTC_FROM_NS = 1_000_000_000 * 1_000_000_000
_ASSUMED_FOCAL_WIDTHS = 0.8  # focal length of an unknown front camera, in picture widths

#: What kind of value the metadata record holds under these names.
_KINDS: dict[str, type] = {
    "vehicle": str,
    "segment_index": int,
    "drive_key": str,
    "synthetic": bool,
    "anonymised": bool,
    "cameras": list,
    "dropped_topics": list,
    "facts": dict,
    "schema_version": int,
}


@dataclass
class _Found:
    """What a file holds, as read. topics: which topic each camera's pictures came from."""

    metadata: dict[str, str] | None = None
    cameras: dict[str, list[tuple[str, Packet]]] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    states: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    fixes: list[tuple[int, float, float, float]] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)


def read_mcap(path: Path | str | bytes, *, limits: Limits | None = None) -> Recording:
    """Read one recording from a file, or from the bytes of one.

    Raises InputError `empty_file`, `limit_exceeded` (before decompressing), `corrupt` (truncated or checksum wrong),
    `unknown_format` (no MCAP, or a metadata record that cannot be read), `missing_column` (no `/ego/state`),
    `clock_disorder`, `conflict` (two topics that name one camera).
    """
    limits = limits or Limits()
    if isinstance(path, bytes):
        return _read(io.BytesIO(path), len(path), "recording.mcap", limits)
    with open(path, "rb") as file:
        return _read(file, os.fstat(file.fileno()).st_size, Path(path).name, limits)


def _read(file: BinaryIO, size: int, subject: str, limits: Limits) -> Recording:
    if size == 0:
        raise InputError("empty_file", subject, "the file has no bytes; copy it again.")
    if size > limits.file_bytes:
        raise InputError("limit_exceeded", subject, f"{size} bytes; a recording may have {limits.file_bytes}.")
    found = _Found()
    _collect(_records(file, size, subject, limits), subject, limits, found)
    if not found.states:
        raise InputError("missing_column", f"{subject} {topics.STATE}", "the recording must carry the ego state.")
    return _own(found, subject) if found.metadata is not None else _foreign(found, subject)


def _collect(records: Iterator[Any], subject: str, limits: Limits, found: _Found) -> None:
    schemas: dict[int, Schema] = {}
    channels: dict[int, Channel] = {}
    messages = 0
    for record in records:
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel):
            channels[record.id] = record
        elif isinstance(record, Metadata) and record.name == topics.METADATA:
            found.metadata = record.metadata
        elif isinstance(record, Message):
            messages += 1
            if messages > limits.messages:
                raise InputError("limit_exceeded", subject, f"more than {limits.messages} messages.")
            channel = channels.get(record.channel_id)
            if channel is None:
                raise InputError("corrupt", subject, "a message belongs to no channel; copy the file again.")
            schema = schemas.get(channel.schema_id)
            _take(found, channel, schema.name if schema else "", record, subject)


def _records(file: BinaryIO, size: int, subject: str, limits: Limits) -> Iterator[Any]:
    spent, allowed = 0, limits.total_bytes(size)
    reader = StreamReader(file, emit_chunks=True, record_size_limit=size)
    try:
        for record in reader.records:
            if isinstance(record, Chunk):
                spent += record.uncompressed_size
                if record.uncompressed_size > limits.chunk_bytes or spent > allowed:
                    raise InputError(
                        "limit_exceeded",
                        subject,
                        f"a chunk announces {record.uncompressed_size} bytes ({spent} so far); "
                        f"one may hold {limits.chunk_bytes}, all of them {allowed}.",
                    )
                yield from breakup_chunk(_decompressed(record, subject))
            else:
                yield record
    except RecordLengthLimitExceeded as problem:
        announced = re.search(r"length (\d+)", str(problem))
        absurd = announced is None or int(announced[1]) > limits.file_bytes
        advice = f"a record announces more bytes than the file has ({size}); nothing of it was read."
        raise InputError("limit_exceeded" if absurd else "corrupt", subject, advice) from problem
    except (McapError, struct.error, EOFError, UnicodeDecodeError, IndexError) as problem:
        code = "unknown_format" if type(problem).__name__ == "InvalidMagic" and file.tell() <= 8 else "corrupt"
        raise InputError(code, subject, f"not a whole MCAP file ({problem or 'it ends early'}).") from problem


def _decompressed(chunk: Chunk, subject: str) -> Chunk:
    """The chunk with plain bytes; stops one byte past what its header announced, whatever the compressed data says."""
    announced = chunk.uncompressed_size
    data = bytes(chunk.data)
    try:
        if chunk.compression == "zstd":
            data = _unzstd(data, announced + 1)
        elif chunk.compression == "lz4":
            import lz4.frame  # type: ignore[import-untyped]

            data = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=announced + 1)
        elif chunk.compression:
            raise InputError("unknown_format", subject, f"chunk compression {chunk.compression!r} is not known.")
    except (RuntimeError, EOFError, ValueError) as problem:
        raise InputError("corrupt", subject, f"a chunk cannot be decompressed ({problem}).") from problem
    if len(data) > announced:
        raise InputError("limit_exceeded", subject, f"a chunk holds more than the {announced} bytes it announces.")
    if len(data) < announced or (chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc):
        raise InputError("corrupt", subject, "a chunk does not match its checksum; copy the file again.")
    chunk.data, chunk.compression = data, ""
    return chunk


def _unzstd(data: bytes, most: int) -> bytes:
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as stream:
            return stream.read(most)
    except zstandard.ZstdError as problem:
        raise ValueError(str(problem)) from problem


def _take(found: _Found, channel: Channel, schema: str, record: Message, subject: str) -> None:
    try:
        if schema in ("foxglove.CompressedVideo", "foxglove.CompressedImage"):
            _take_picture(found, channel.topic, schema, record, subject)
        elif channel.topic == topics.STATE and channel.message_encoding == "json":
            found.states.append((record.log_time, topics.state_values(record.data, subject)))
        elif schema == "foxglove.LocationFix":
            fix = LocationFix.FromString(record.data)
            if math.isfinite(fix.latitude) and math.isfinite(fix.longitude):  # receivers without a fix say NaN
                altitude = fix.altitude if math.isfinite(fix.altitude) else 0.0
                found.fixes.append((record.log_time, fix.latitude, fix.longitude, altitude))
        elif channel.topic.startswith(topics.CALIBRATION) or channel.topic in (topics.POSE, topics.RIG):
            return  # restated for viewers; the metadata record and the ego state hold the same figures
        else:
            found.dropped.add(channel.topic)
    except DecodeError as problem:
        raise InputError("corrupt", f"{subject} {channel.topic}", f"a message is not {schema}.") from problem


def _take_picture(found: _Found, topic: str, schema: str, record: Message, subject: str) -> None:
    picture = (CompressedVideo if schema.endswith("Video") else CompressedImage).FromString(record.data)
    codec = topics.CODECS.get(picture.format.lower())
    if codec is None:
        found.dropped.add(topic)
        return
    name = topic.removeprefix(topics.CAMERA) if topic.startswith(topics.CAMERA) else topic.strip("/").replace("/", "-")
    first = found.topics.setdefault(name, topic)
    if first != topic:
        advice = f"it and {first} are one camera's name, {name!r}; rename one, so that their pictures are not mixed."
        raise InputError("conflict", f"{subject} {topic}", advice)
    t_ns = picture.timestamp.seconds * 1_000_000_000 + picture.timestamp.nanos or record.log_time
    packet = Packet(t_ns=t_ns, data=picture.data, keyframe=is_keyframe(codec, picture.data))
    found.cameras.setdefault(name, []).append((codec, packet))


def _signals(found: _Found, subject: str) -> Signals:
    found.states.sort(key=lambda state: state[0])
    t_ns = np.array([t for t, _ in found.states], np.int64)
    columns: dict[str, Any] = {
        name: np.array([row.get(name, 0 if name == "command" else np.nan) for _, row in found.states])
        for name in Signals.COLUMNS
    }
    try:
        return Signals.build(t_ns, **columns)
    except InputError as problem:
        raise InputError(problem.code, f"{subject} {topics.STATE}", problem.advice) from problem


def _videos(found: _Found, order: list[str]) -> tuple[Video, ...]:
    videos = []
    for name in [*order, *sorted(set(found.cameras) - set(order))]:
        entries = found.cameras.get(name, [])
        codecs = sorted({codec for codec, _ in entries})
        if len(codecs) > 1:
            raise InputError("unknown_format", f"camera {name!r}", f"one camera must keep one codec, not {codecs}.")
        codec = codecs[0] if codecs else "h264"
        videos.append(Video(camera=name, codec=codec, packets=tuple(packet for _, packet in entries)))
    return tuple(videos)


def _own(found: _Found, subject: str) -> Recording:
    """A file with our metadata record: every field comes back as it was."""
    try:
        record = {name: json.loads(value) for name, value in (found.metadata or {}).items()}
        _check_kinds(record)
        return Recording(
            vehicle=record["vehicle"],
            clock=Clock(**record["clock"]),
            rig=Rig.from_record(record["rig"]),
            signals=_signals(found, subject),
            videos=_videos(found, record["cameras"]),
            segment_index=record["segment_index"],
            drive_key=record["drive_key"],
            segment_id=record["segment_id"],
            drive_id=record["drive_id"],
            synthetic=record["synthetic"],
            anonymised=record["anonymised"],
            dropped_topics=tuple(sorted({*record["dropped_topics"], *found.dropped})),
            facts=record["facts"],
            private={"gnss": found.fixes} if found.fixes else {},
            schema_version=record["schema_version"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise InputError(
            "unknown_format", f"{subject} metadata 'onshore'", f"cannot be read: {problem!r}."
        ) from problem


def _check_kinds(record: dict[str, Any]) -> None:
    """ValueError for a value that the rest of the center could not work with; ids and the rig check themselves."""
    clock = record["clock"]
    whole = (record["segment_index"], clock.get("utc_offset_ns") or 0, clock.get("uncertainty_ns") or 0)
    wrong = [name for name, kind in _KINDS.items() if type(record[name]) is not kind]
    wrong += [name for name in ("cameras", "dropped_topics") if not all(type(item) is str for item in record[name])]
    wrong += ["clock"] if clock["kind"] not in ("utc", "boot") else []
    wrong += ["whole numbers"] if not all(type(n) is int and abs(n) < 1 << 63 for n in whole) else []
    if wrong:
        raise ValueError(f"{', '.join(wrong)} of another kind than expected")


def _foreign(found: _Found, subject: str) -> Recording:
    """A file of another maker: the camera is assumed and says so; vehicle and drive are not named."""
    signals = _signals(found, subject)
    videos = _videos(found, [])
    kind: Any = "utc" if len(signals.t_ns) and signals.t_ns[0] > _UTC_FROM_NS else "boot"
    return Recording(
        vehicle="",
        clock=Clock(kind=kind),
        rig=Rig(cameras=tuple(_assumed_camera(video) for video in videos if video.packets)),
        signals=signals,
        videos=videos,
        dropped_topics=tuple(sorted(found.dropped)),
        private={"gnss": found.fixes} if found.fixes else {},
    )


def _assumed_camera(video: Video) -> Camera:
    """Size from the first picture; focal length and mounting assumed."""
    from onshore.wire.video import decode

    first = Video(camera=video.camera, codec=video.codec, packets=video.packets[:1])
    height, width = next(iter(decode(first)))[1].shape[:2]
    return Camera(
        name=video.camera,
        width_px=width,
        height_px=height,
        focal_px=_ASSUMED_FOCAL_WIDTHS * width,
        centre_x_px=width / 2,
        centre_y_px=height / 2,
        source="assumed",
    )
