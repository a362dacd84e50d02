"""The proxy of a segment: what its front camera saw, in the network's own wide view, ten times a second, with its signals.

Rule: made once per segment and view, the same bytes each time; every frame keeps the true time at which it was taken;
H.264 with a keyframe every ten frames and an index of packets, so that whole GOPs are decoded once and never searched.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import View, ViewMap, video_for, view_maps, warp
from onshore.core.control import VehicleGeometry
from onshore.core.digest import canonical_json
from onshore.core.errors import CorruptError, InputError
from onshore.core.recording import Camera, Packet, Recording, Signals, Video
from onshore.wire import decode, encode

#: Part of every proxy's identity: raise it when the same segment would give other pixels.
PROXY_VERSION = 1
RATE_HZ = 10.0
GOP_FRAMES = 10
CRF = 20
#: Sources up to this rate keep every frame.
KEEP_ALL_HZ = 13.0


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """One segment as the loader reads it. `view` is the network's view; frames are its wide form.

    mount_xy_m: the camera's place in the rig frame. shown_share: how much of the wide view the camera really covers.
    ahead_s: how long after their moment the speeds are known: read off pictures, they look ahead; 0 for recorded ones.
    """

    segment: str
    drive: str
    view: View
    mount_xy_m: tuple[float, float]
    shown_share: float
    camera_source: str
    vehicle: VehicleGeometry
    signals: Signals
    video: Video
    synthetic: bool
    ahead_s: float = 0.0
    schema_version: int = 1

    @property
    def t_ns(self) -> NDArray[np.int64]:
        """Frame times on the clock of the signals."""
        return self.video.t_ns

    def to_bytes(self) -> bytes:
        """A deterministic zip of .npy columns and one JSON head."""
        packets = self.video.packets
        head = {
            "schema_version": self.schema_version,
            "segment": self.segment,
            "drive": self.drive,
            "view": self.view.as_record(),
            "mount_xy_m": list(self.mount_xy_m),
            "shown_share": self.shown_share,
            "camera": self.video.camera,
            "camera_source": self.camera_source,
            "codec": self.video.codec,
            "vehicle": vars(self.vehicle).copy(),
            "synthetic": self.synthetic,
        }
        if self.ahead_s:
            head["ahead_s"] = self.ahead_s
        sizes = [len(packet.data) for packet in packets]
        arrays: dict[str, NDArray[Any]] = {
            "packet.bytes": np.frombuffer(b"".join(packet.data for packet in packets), np.uint8),
            "packet.end": np.cumsum(sizes, dtype=np.int64),
            "packet.key": np.array([packet.keyframe for packet in packets], np.bool_),
            "packet.t_ns": np.array([packet.t_ns for packet in packets], np.int64),
            "signal.t_ns": self.signals.t_ns,
        }
        arrays |= {f"signal.{name}": getattr(self.signals, name) for name in Signals.COLUMNS}
        return pack_arrays(head, arrays)

    @classmethod
    def from_bytes(cls, data: bytes, subject: str = "proxy") -> Proxy:
        """Raises CorruptError when the bytes are not a proxy."""
        head, arrays = unpack_arrays(data, subject)
        try:
            ends, body = arrays["packet.end"], arrays["packet.bytes"].tobytes()
            packets = tuple(
                Packet(t_ns=int(t_ns), data=body[first:last], keyframe=bool(key))
                for first, last, key, t_ns in zip(
                    np.concatenate([[0], ends[:-1]]), ends, arrays["packet.key"], arrays["packet.t_ns"], strict=True
                )
            )
            columns = {name: arrays[f"signal.{name}"] for name in Signals.COLUMNS}
            return cls(
                segment=head["segment"],
                drive=head["drive"],
                view=View.from_record(head["view"]),
                mount_xy_m=(head["mount_xy_m"][0], head["mount_xy_m"][1]),
                shown_share=head["shown_share"],
                camera_source=head["camera_source"],
                vehicle=VehicleGeometry(**head["vehicle"]),
                signals=Signals(t_ns=arrays["signal.t_ns"], **columns),
                video=Video(camera=head["camera"], codec=head["codec"], packets=packets),
                synthetic=head["synthetic"],
                ahead_s=head.get("ahead_s", 0.0),
                schema_version=head["schema_version"],
            )
        except (KeyError, IndexError, TypeError, ValueError, InputError) as problem:
            raise CorruptError(
                "corrupt", subject, f"this is not a proxy ({problem!r}); freeze the dataset again."
            ) from problem


def build_proxy(recording: Recording, view: View) -> Proxy:
    """The proxy of an anonymised recording. Raises InputError `not_found` without such a camera, `not_allowed` unanonymised."""
    if not recording.anonymised:
        raise InputError(
            "not_allowed", f"segment {recording.segment_id}", "proxies are made of anonymised frames only."
        )
    camera, video = video_for(view, recording)
    maps = view_maps(camera, view, wide=True)
    kept = nearest_to_grid(video.t_ns, RATE_HZ)
    return Proxy(
        segment=str(recording.segment_id),
        drive=str(recording.drive_id),
        view=view,
        mount_xy_m=camera.pose_camera_in_rig[:2],
        shown_share=round(float(maps.inside.mean()), 4),
        camera_source=camera.source,
        vehicle=recording.rig.vehicle,
        signals=recording.signals,
        video=_as_it_is(camera, video) if _fits(video, maps, kept) else _rendered(camera, video, maps, kept),
        synthetic=recording.synthetic,
    )


def _fits(video: Video, maps: ViewMap, kept: NDArray[np.intp]) -> bool:
    """Whether the segment's own stream already is the proxy: the wide view pixel for pixel, every frame, H.264."""
    whole = maps.crop == (0, 0) and maps.source_HW == maps.view_HW
    return whole and video.codec == "h264" and len(kept) == len(video.packets)


def _as_it_is(camera: Camera, video: Video) -> Video:
    if camera.time_offset_ns == 0:
        return video
    packets = tuple(replace(packet, t_ns=packet.t_ns + camera.time_offset_ns) for packet in video.packets)
    return replace(video, packets=packets)


def _rendered(camera: Camera, video: Video, maps: ViewMap, kept: NDArray[np.intp]) -> Video:
    chosen = set(kept.tolist())

    def frames() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for index, (t_ns, rgb) in enumerate(decode(video)):
            if index in chosen:
                yield t_ns + camera.time_offset_ns, warp(rgb, maps)

    return encode(camera.name, frames(), gop=GOP_FRAMES, crf=CRF)


def fill_frames(proxy: Proxy, needed: NDArray[np.intp], target_NHW3: NDArray[np.uint8]) -> None:
    """Decode every GOP once and put the `needed` frames (rising indices) into `target_NHW3`; only they become RGB.

    Raises CorruptError when a packet cannot be decoded or a needed frame is missing or of another size.
    """
    import av
    from av.video.reformatter import VideoReformatter

    subject = f"proxy of {proxy.segment}"
    context: Any = av.CodecContext.create("h264", "r")
    context.thread_count = 1
    to_rgb, slots, found = VideoReformatter(), {int(index): slot for slot, index in enumerate(needed)}, 0
    shape = target_NHW3.shape[1:]
    try:
        index = 0
        for packet in (*proxy.video.packets, None):
            for frame in context.decode(None if packet is None else av.Packet(packet.data)):
                slot = slots.get(index)
                index += 1
                if slot is None:
                    continue
                if (frame.height, frame.width, 3) != shape or frame.is_corrupt:
                    raise CorruptError("corrupt", subject, f"frame {index - 1} is damaged; freeze the dataset again.")
                target_NHW3[slot] = to_rgb.reformat(frame, format="rgb24").to_ndarray()
                found += 1
    except av.FFmpegError as problem:
        raise CorruptError("corrupt", subject, f"it cannot be decoded ({problem.strerror}).") from problem
    if found != len(needed):
        raise CorruptError("corrupt", subject, f"{len(needed)} frames are wanted and {found} are there.")


def fitting_view(cameras: Iterable[Camera], base: View | None = None, share: float = 0.98) -> View:
    """`base` with its focal length raised until every camera shows at least `share` of it; `base` itself if they do.

    For cameras narrower than the network's own: a view they do not fill repeats their border. Raises InputError
    `bad_config` when a camera looks elsewhere.
    """
    base, cameras = base or View(), list(cameras)
    for scale in np.geomspace(1.0, 16.0, 97):
        view = replace(base, focal_px=round(base.focal_px * float(scale)))
        if all(float(view_maps(camera, view).inside.mean()) >= share for camera in cameras):
            return view
    raise InputError("bad_config", "cameras", "one of them does not look ahead; no view fits.")


def nearest_to_grid(t_ns: NDArray[np.int64], rate_hz: float) -> NDArray[np.intp]:
    """Indices of the frames nearest to an even grid, by their own times; slow sources keep every frame."""
    if len(t_ns) < 2 or float(np.median(np.diff(t_ns))) >= 1e9 / KEEP_ALL_HZ:
        return np.arange(len(t_ns))
    grid = np.arange(t_ns[0], t_ns[-1] + 1, round(1e9 / rate_hz))
    after = np.clip(np.searchsorted(t_ns, grid), 1, len(t_ns) - 1)
    nearest = np.where(grid - t_ns[after - 1] <= t_ns[after] - grid, after - 1, after)
    close = np.abs(t_ns[nearest] - grid) <= round(0.5e9 / rate_hz)
    return np.unique(nearest[close])


def pack_arrays(head: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """A deterministic zip of `head.json` and one .npy per array."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("head.json"), canonical_json(head))
        for name, array in sorted(arrays.items()):
            column = io.BytesIO()
            np.lib.format.write_array(column, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), column.getvalue())
    return buffer.getvalue()


def unpack_arrays(data: bytes, subject: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The inverse of `pack_arrays`; a foreign .npz gives an empty head. Raises CorruptError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            head = json.loads(archive.read("head.json")) if "head.json" in names else {}
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in names
                if name.endswith(".npy")
            }
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as problem:
        raise CorruptError("corrupt", subject, f"its columns cannot be read ({problem}).") from problem
    return head, arrays
