"""The `table` reader: a video and a CSV of one stem, read through a column map into a Recording.

Video frames keep their own presentation times on the table's clock; packets are not decoded here.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.recording import Camera, Clock, Packet, Recording, Rig, Signals, Video
from onshore.drive.columns import TIME_UNITS_NS, Column, ColumnMap, scaled

CODECS = {"h264": "h264", "hevc": "hevc", "mjpeg": "jpeg"}
TO_ANNEXB = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
MAX_ROWS, MAX_BYTES = 2_000_000, 1 << 30
UNKNOWN_CELLS = frozenset(["", "nan", "none", "null", "na", "n/a"])

Rows = list[list[str]]


def read_header(path: Path) -> list[str]:
    """The first row of a table; InputError `empty_file` or `unknown_format`."""
    return _read_csv(path, rows=1)[0]


def read_signals(path: Path, column_map: ColumnMap) -> tuple[Signals, Clock]:
    """A table's signals in SI units on its own clock."""
    rows = _read_csv(path)
    header, body = rows[0], rows[1:]
    if not body:
        raise InputError("empty_file", path.name, "the table has a header and no rows.")
    columns: dict[str, NDArray[Any]] = {}
    for name, column in column_map.signals.items():
        values = _values(path, header, body, column, required=column.required)
        if values is None:
            continue
        other = None
        if column.times is not None:
            # in the unit that the map gives that column, where it maps it
            factor = next(
                (c for c in column_map.signals.values() if c.column == column.times), Column(column=column.times)
            )
            read = _values(path, header, body, replace(factor, times=None), required=True)
            other = None if read is None else scaled(factor, read, None)
        columns[name] = scaled(column, values, other)
    t_ns = _times(path, header, body, column_map)
    try:
        signals = Signals.build(t_ns, **columns)
    except InputError as problem:
        raise InputError(problem.code, f"{path.name} times", problem.advice) from problem
    return signals, _clock(path, header, body, column_map, t_ns)


def read_table(table: Path, video: Path, column_map: ColumnMap) -> Recording:
    """Table and video as one recording; vehicle, drive key and index are the caller's to set.

    Raises InputError `missing_column`, `clock_disorder`, `damaged_video`, `empty_file`, `unknown_format`.
    """
    signals, clock = read_signals(table, column_map)
    packets, size, others = read_video(video, column_map.camera_name, int(signals.t_ns[0]))
    return Recording(
        vehicle="",
        clock=clock,
        rig=Rig(cameras=(_camera(column_map, *size),), vehicle=column_map.vehicle),
        signals=signals,
        videos=(packets,),
        dropped_topics=others,
        facts={"map": f"{column_map.name}-{column_map.version}", "assumed": column_map.assumed},
    )


def read_lone_video(video: Path) -> Recording:
    """A video that has nothing but pictures: no signal is known, and the camera is assumed (a lens as phones have it)."""
    packets, size, others = read_video(video, "front", 0)
    times = packets.t_ns
    return Recording(
        vehicle="",
        clock=Clock(kind="boot"),
        rig=Rig(cameras=(_assumed("front", *size),)),
        signals=Signals.build(times),
        videos=(packets,),
        dropped_topics=others,
        facts={"assumed": ["camera calibration"]},
    )


def read_video(path: Path, camera: str, start_ns: int) -> tuple[Video, tuple[int, int], tuple[str, ...]]:
    """The packets of a file's first video stream in decoding order, the first picture shown at `start_ns`; width and
    height; what else the file carries (audio, subtitles), which is not read."""
    import av

    if path.stat().st_size == 0:
        raise InputError("empty_file", path.name, "the file has no bytes; copy it again.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError("damaged_video", path.name, "it holds no video stream.")
            stream = container.streams.video[0]
            codec = CODECS.get(stream.codec_context.name)
            if codec is None:
                advice = f"its codec {stream.codec_context.name!r} is not one of {', '.join(CODECS)}."
                raise InputError("unknown_format", path.name, advice)
            _check_upright(av, path)
            packets = _packets(av, container, stream, codec, start_ns)
            announced, size = stream.frames, (stream.width, stream.height)
            others = tuple(sorted({other.type for other in container.streams if other.index != stream.index}))
    except (av.FFmpegError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise InputError("damaged_video", path.name, f"it cannot be opened ({reason}).") from problem
    if not packets or len(packets) < announced:
        raise InputError(
            "damaged_video", path.name, f"it announces {announced} frames and holds {len(packets)}; copy it again."
        )
    return Video(camera=camera, codec=codec, packets=tuple(packets)), size, others


def _check_upright(av: Any, path: Path) -> None:
    """Players turn what a camera mounted the other way round filmed; detectors see its pictures as they lie in the file."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0), None)
    if first is not None and first.rotation % 360:
        advice = f"its pictures are shown turned by {first.rotation % 360} degrees; faces are found upright only: turn the video first."
        raise InputError("unknown_format", path.name, advice)


def _packets(av: Any, container: Any, stream: Any, codec: str, start_ns: int) -> list[Packet]:
    convert = av.bitstream.BitStreamFilterContext(TO_ANNEXB[codec], stream) if codec in TO_ANNEXB else None
    parts: list[Any] = []
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        if packet.is_corrupt:
            raise InputError("damaged_video", stream.name or "video", "a packet is damaged; copy the file again.")
        parts += convert.filter(packet) if convert else [packet]
    if any(part.pts is None for part in parts):
        raise InputError("damaged_video", "video", "a frame has no time; copy the file again.")
    # containers count from anywhere: transport streams after a second or so, cut files from where they were cut
    first = min((part.pts for part in parts if not part.is_discard), default=0)
    return [
        Packet(
            t_ns=start_ns + round((part.pts - first) * stream.time_base * 1_000_000_000),
            data=bytes(part),
            keyframe=bool(part.is_keyframe),
        )
        for part in parts
    ]


def _camera(column_map: ColumnMap, width: int, height: int) -> Camera:
    """The map's camera at the size the video has; a camera nobody describes is assumed and says so."""
    given = column_map.camera
    if given is None:
        return _assumed(column_map.camera_name, width, height)
    scale = width / given.width_px
    if abs(height - given.height_px * scale) > 2:
        raise InputError(
            "bad_config",
            f"camera {given.name!r}",
            f"the map describes {given.width_px}x{given.height_px}, the video is {width}x{height}; give another map.",
        )
    return replace(
        given,
        width_px=width,
        height_px=height,
        focal_px=given.focal_px * scale,
        centre_x_px=given.centre_x_px * scale,
        centre_y_px=given.centre_y_px * scale,
    )


def _assumed(name: str, width: int, height: int) -> Camera:
    return Camera(
        name=name,
        width_px=width,
        height_px=height,
        focal_px=0.8 * width,
        centre_x_px=width / 2,
        centre_y_px=height / 2,
        source="assumed",
    )


def _read_csv(path: Path, rows: int | None = None) -> Rows:
    size = path.stat().st_size
    if size == 0:
        raise InputError("empty_file", path.name, "the file has no bytes; copy it again.")
    if size > MAX_BYTES:
        raise InputError("limit_exceeded", path.name, f"{size} bytes; a table may have {MAX_BYTES}.")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    found: Rows = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for row in csv.reader(file, delimiter=delimiter):
                if row:
                    found.append(row)
                if rows is not None and len(found) == rows:
                    break
                if len(found) > MAX_ROWS:
                    raise InputError("limit_exceeded", path.name, f"more than {MAX_ROWS} rows.")
    except (UnicodeDecodeError, csv.Error) as problem:
        raise InputError("unknown_format", path.name, f"it is not a readable table ({problem}).") from problem
    if not found:
        raise InputError("empty_file", path.name, "the table has no rows.")
    found[0] = [name.strip() for name in found[0]]
    return found


def _values(
    path: Path, header: Sequence[str], body: Rows, column: Column, *, required: bool
) -> NDArray[np.float64] | None:
    index = column.index(header)
    if index is None:
        if required:
            raise InputError("missing_column", f"{path.name} {column}", "the table lacks it; give a map that fits.")
        return None
    try:
        return np.array([_number(row[index]) for row in body], np.float64)
    except IndexError as problem:
        raise InputError("unknown_format", path.name, f"a row has fewer cells than its header: {column}.") from problem
    except ValueError as problem:
        raise InputError("unknown_format", f"{path.name} {column}", f"a cell is no number: {problem}.") from problem


def _number(cell: str) -> float:
    text = cell.strip()
    return float("nan") if text.lower() in UNKNOWN_CELLS else float(text)


def _times(path: Path, header: Sequence[str], body: Rows, column_map: ColumnMap) -> NDArray[np.int64]:
    for column in column_map.time:
        index = column.index(header)
        if index is None:
            continue
        cells = [row[index].strip() if index < len(row) else "" for row in body]
        if column.unit == "ns" and all(re.fullmatch(r"\d{1,18}", cell) for cell in cells):
            return np.array([int(cell) for cell in cells], np.int64)
        values = _values(path, header, body, column, required=True)
        if values is None or not np.isfinite(values).all() or np.abs(values).max() * TIME_UNITS_NS[column.unit] > 9e18:
            raise InputError("clock_disorder", f"{path.name} {column}", "a time is missing or impossible.")
        return np.round(values * TIME_UNITS_NS[column.unit]).astype(np.int64)
    names = " or ".join(str(column) for column in column_map.time)
    raise InputError("missing_column", f"{path.name} {names}", "the table lacks its times; give a map that fits.")


def _clock(path: Path, header: Sequence[str], body: Rows, column_map: ColumnMap, t_ns: NDArray[np.int64]) -> Clock:
    """The offset to UTC is the median of what the table says; its uncertainty the largest deviation from that."""
    if column_map.clock == "utc":
        return Clock(kind="utc", utc_offset_ns=0)
    utc = _values(path, header, body, column_map.utc, required=False) if column_map.utc else None
    if utc is None or not np.isfinite(utc).any() or column_map.utc is None:
        return Clock(kind="boot")
    offsets = utc[np.isfinite(utc)] * TIME_UNITS_NS[column_map.utc.unit] - t_ns[np.isfinite(utc)]
    middle = float(np.median(offsets))
    return Clock(kind="boot", utc_offset_ns=round(middle), uncertainty_ns=round(float(np.abs(offsets - middle).max())))
