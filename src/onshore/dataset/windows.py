"""Every window of a dataset's split, in memory: each frame decoded once, each window an index into them.

Rule: a window never crosses a segment and its labels never cross a drive; one residency decision opens the dataset;
only frames that some window shows are kept. The same dataset and spec give the same arrays.

Letters: N frames, H rows, W columns, M windows, T frames of a window, K path points, S speed times.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import SIDE_INPUTS, View
from onshore.core.errors import InputError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.core.progress import Progress, silent
from onshore.dataset.labels import Moments, Track, moments, sampling_weights, tracks, travelled
from onshore.dataset.proxy import Proxy, fill_frames, unpack_arrays

FRAME_TOLERANCE_NS = 60_000_000
STRIDE_TOLERANCE_NS = 25_000_000
TAKEOVER_ARRAYS = ("frames_NTHWC", "side_N9", "path", "path_mask", "speed", "speed_mask")


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """What a network sees of a moment: the view, the ages of its frames (s, oldest first), a moment every `stride_s`."""

    view: View = field(default_factory=View)
    frame_offsets_s: tuple[float, ...] = (0.4, 0.0)
    stride_s: float = 0.2

    def __post_init__(self) -> None:
        offsets = self.frame_offsets_s
        if not offsets or offsets[-1] != 0.0 or any(a <= b for a, b in itertools.pairwise(offsets)):
            raise InputError("bad_config", f"frame_offsets_s {offsets}", "give falling ages that end with 0.0.")
        if self.stride_s <= 0:
            raise InputError("bad_config", f"stride_s {self.stride_s}", "a stride is positive.")


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Ready-made samples that need no cutting: the answers of an expert to what a candidate saw on its own way."""

    frames_NTHWC: NDArray[np.uint8]
    labels: Moments

    def __len__(self) -> int:
        return len(self.frames_NTHWC)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """All windows of a split.

    frames_NHW3: wide frames. index_MT: the frames of each window, oldest first. travelled_MT: metres driven since each
    frame. mount_M2: the camera's x, y in the rig. segment_M: index into `segments`. t_ns: the moment of each window.
    weight_M: how often it is drawn. `takeovers` come ready at view size (empty for held-out splits).
    """

    spec: WindowSpec
    frames_NHW3: NDArray[np.uint8]
    index_MT: NDArray[np.int32]
    travelled_MT: NDArray[np.float32]
    mount_M2: NDArray[np.float32]
    segment_M: NDArray[np.int32]
    t_ns: NDArray[np.int64]
    labels: Moments
    weight_M: NDArray[np.float64]
    takeovers: Samples
    segments: tuple[str, ...]
    drives: tuple[str, ...]
    synthetic: bool

    def __len__(self) -> int:
        return len(self.t_ns)


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """One segment's windows before its frames are decoded. `needed`: frames to keep, `index_MT` points into them."""

    proxy: Proxy
    needed: NDArray[np.intp]
    index_MT: NDArray[np.intp]
    travelled_MT: NDArray[np.float64]
    t_ns: NDArray[np.int64]
    labels: Moments


def build_windows(
    proxies: Sequence[Proxy],
    spans: Mapping[str, Sequence[tuple[int, int]]],
    spec: WindowSpec,
    *,
    takeovers: Sequence[bytes] = (),
    workers: int = 1,
    progress: Progress = silent,
) -> Windows:
    """Windows of the given proxies whose moment lies in one of their segment's `spans` (start_ns, end_ns).

    workers: threads that decode; the result does not depend on it. Raises InputError `bad_config` when a proxy was made
    for another view.
    """
    drives: dict[str, list[Proxy]] = {}
    for proxy in sorted(proxies, key=lambda proxy: (proxy.drive, int(proxy.t_ns[0]), proxy.segment)):
        if proxy.view != spec.view:
            advice = "the dataset was frozen for another view; freeze it again for this one."
            raise InputError("bad_config", f"proxy of {proxy.segment}", advice)
        drives.setdefault(proxy.drive, []).append(proxy)
    pieces = []
    for done, members in enumerate(drives.values()):
        progress("reading labels", done, len(drives))
        stretches = tracks([(proxy.signals, proxy.vehicle) for proxy in members])
        pieces += [_piece(proxy, spans.get(proxy.segment, ()), spec, stretches) for proxy in members]
    frames, starts = _decode_all(pieces, spec, workers, progress)
    labels = _joined([piece.labels for piece in pieces])
    counts = [len(piece.t_ns) for piece in pieces]
    mounts = np.array([piece.proxy.mount_xy_m for piece in pieces], np.float32).reshape(-1, 2)
    indices = [piece.index_MT + start for piece, start in zip(pieces, starts, strict=True)]
    frames_each = len(spec.frame_offsets_s)
    return Windows(
        spec=spec,
        frames_NHW3=frames,
        index_MT=np.concatenate([np.empty((0, frames_each), np.int32), *indices]).astype(np.int32),
        travelled_MT=np.concatenate([np.empty((0, frames_each)), *(p.travelled_MT for p in pieces)]).astype(np.float32),
        mount_M2=np.repeat(mounts, counts, axis=0),
        segment_M=np.repeat(np.arange(len(pieces), dtype=np.int32), counts),
        t_ns=np.concatenate([np.empty(0, np.int64), *(piece.t_ns for piece in pieces)]),
        labels=labels,
        weight_M=weights_of(labels),
        takeovers=read_takeovers(takeovers, spec),
        segments=tuple(piece.proxy.segment for piece in pieces),
        drives=tuple(drives),
        synthetic=any(proxy.synthetic for proxy in proxies),
    )


def weights_of(labels: Moments) -> NDArray[np.float64]:
    """Sampling weights of ready labels."""
    return sampling_weights(labels.side_M9, labels.path_MK2, labels.path_mask_MK, labels.speed_MS, labels.speed_mask_MS)


def anchors(t_ns: NDArray[np.int64], spec: WindowSpec) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Frame indices (M,) of the moments of a segment and (M, T) of the frames each shows; gaps lose their windows."""
    chosen, following = [], -(2**62)
    for index, t in enumerate(t_ns.tolist()):
        if t >= following:
            chosen.append(index)
            following = t + round(spec.stride_s * 1e9) - STRIDE_TOLERANCE_NS
    now = np.array(chosen, np.int64)
    wanted = t_ns[now][:, None] - np.round(np.array(spec.frame_offsets_s) * 1e9).astype(np.int64)
    after = np.clip(np.searchsorted(t_ns, wanted), 1, max(len(t_ns) - 1, 1))
    if len(t_ns) < 2:
        after = np.zeros_like(after)
    before = np.maximum(after - 1, 0)
    nearest = np.where(wanted - t_ns[before] <= t_ns[after] - wanted, before, after)
    close = (np.abs(t_ns[nearest] - wanted) <= FRAME_TOLERANCE_NS).all(1)
    return now[close], nearest[close]


def _piece(proxy: Proxy, spans: Sequence[tuple[int, int]], spec: WindowSpec, stretches: Sequence[Track]) -> _Piece:
    """Choose the moments of a segment that lie in a span and on a track, and label them."""
    frame_t = proxy.t_ns
    now, index_MT = anchors(frame_t, spec)
    moment_ns = frame_t[now]
    asked = np.zeros(len(now), bool)
    for start, end in spans:
        asked |= (moment_ns >= start) & (moment_ns <= end)
    found: list[tuple[NDArray[np.intp], Moments, NDArray[np.float64]]] = []
    for track in stretches:
        on = np.flatnonzero(asked & (moment_ns >= track.t_ns[0]) & (moment_ns <= track.t_ns[-1]))
        labels = moments(track, moment_ns[on])
        on, labels = on[labels.usable_M], _chosen(labels, labels.usable_M)
        found.append((on, labels, travelled(track, frame_t[index_MT[on]], moment_ns[on][:, None])))
    kept = np.concatenate([np.empty(0, np.intp), *(on for on, _, _ in found)])
    needed, inverse = np.unique(index_MT[kept], return_inverse=True)
    return _Piece(
        proxy=proxy,
        needed=needed,
        index_MT=inverse.reshape(len(kept), index_MT.shape[1]),
        travelled_MT=np.concatenate([np.empty((0, index_MT.shape[1])), *(driven for _, _, driven in found)]),
        t_ns=moment_ns[kept],
        labels=_joined([labels for _, labels, _ in found]),
    )


def _decode_all(
    pieces: Sequence[_Piece], spec: WindowSpec, workers: int, progress: Progress
) -> tuple[NDArray[np.uint8], list[int]]:
    """Decode every proxy's GOPs once, straight into one array; returns it and where each piece begins."""
    wide = spec.view.widened()
    ends = np.cumsum([0, *(len(piece.needed) for piece in pieces)])
    frames = np.empty((int(ends[-1]), wide.height_px, wide.width_px, 3), np.uint8)

    def fill(number: int) -> None:
        piece = pieces[number]
        if len(piece.needed):
            fill_frames(piece.proxy, piece.needed, frames[ends[number] : ends[number + 1]])

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, _ in enumerate(pool.map(fill, range(len(pieces)))):
            progress("decoding proxies", done + 1, len(pieces))
    return frames, [int(start) for start in ends[:-1]]


def read_takeovers(blobs: Sequence[bytes], spec: WindowSpec) -> Samples:
    """On-policy samples from their .npz bytes, checked against the spec. Raises InputError `bad_config`."""
    view, count = spec.view, len(spec.frame_offsets_s)
    shapes: dict[str, tuple[int, ...]] = {
        "frames_NTHWC": (count, view.height_px, view.width_px, 3),
        "side_N9": (len(SIDE_INPUTS),),
        "path": (len(PATH_ARCS_M), 2),
        "path_mask": (len(PATH_ARCS_M),),
        "speed": (len(SPEED_TIMES_S),),
        "speed_mask": (len(SPEED_TIMES_S),),
    }
    parts: dict[str, list[NDArray[Any]]] = {
        name: [np.empty((0, *shape), np.uint8 if name == "frames_NTHWC" else np.float32)]
        for name, shape in shapes.items()
    }
    for number, blob in enumerate(blobs):
        _, arrays = unpack_arrays(blob, f"takeovers {number}")
        for name, shape in shapes.items():
            array = arrays.get(name)
            if array is None or array.shape[1:] != shape or len(array) != len(arrays["frames_NTHWC"]):
                found = "missing" if array is None else array.shape
                raise InputError("bad_config", f"takeovers: {name}", f"expected (N, {shape}), found {found}.")
            parts[name].append(np.asarray(array, parts[name][0].dtype))
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    labels = Moments(
        side_M9=whole["side_N9"],
        path_MK2=whole["path"],
        path_mask_MK=whole["path_mask"],
        speed_MS=whole["speed"],
        speed_mask_MS=whole["speed_mask"],
    )
    return Samples(frames_NTHWC=whole["frames_NTHWC"], labels=labels)


def _chosen(labels: Moments, which: NDArray[Any]) -> Moments:
    return Moments(**{name: column[which] for name, column in vars(labels).items()})


def _joined(parts: Sequence[Moments]) -> Moments:
    shapes = {
        "side_M9": (len(SIDE_INPUTS),),
        "path_MK2": (len(PATH_ARCS_M), 2),
        "path_mask_MK": (len(PATH_ARCS_M),),
        "speed_MS": (len(SPEED_TIMES_S),),
        "speed_mask_MS": (len(SPEED_TIMES_S),),
    }
    columns = {
        name: np.concatenate([np.empty((0, *shape), np.float32), *(getattr(part, name) for part in parts)])
        for name, shape in shapes.items()
    }
    return Moments(**columns)
