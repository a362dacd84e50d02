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
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import SIDE_INPUTS, View, frame_inputs
from onshore.core.errors import InputError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.core.progress import Progress, silent
from onshore.dataset.labels import Moments, Track, moments, sampling_weights, tracks, travelled
from onshore.dataset.proxy import Proxy, fill_frames, unpack_arrays

FRAME_TOLERANCE_NS = 60_000_000
STRIDE_TOLERANCE_NS = 25_000_000


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """What a network sees of a moment: its views, the ages of its frames (s, oldest first), a moment every `stride_s`."""

    view: View = field(default_factory=View)
    side_views: tuple[View, ...] = ()
    frame_offsets_s: tuple[float, ...] = (0.4, 0.0)
    stride_s: float = 0.2

    def __post_init__(self) -> None:
        offsets = self.frame_offsets_s
        if not offsets or offsets[-1] != 0.0 or any(a <= b for a, b in itertools.pairwise(offsets)):
            raise InputError("bad_config", f"frame_offsets_s {offsets}", "give falling ages that end with 0.0.")
        if self.stride_s <= 0:
            raise InputError("bad_config", f"stride_s {self.stride_s}", "a stride is positive.")

    @property
    def views(self) -> tuple[View, ...]:
        return (self.view, *self.side_views)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Ready-made samples that need no cutting: the answers of an expert to what a candidate saw on its own way.

    source_N: which of the given files each is from.
    """

    frames_NTHWC: NDArray[np.uint8]
    labels: Moments
    source_N: NDArray[np.int32]
    side_frames: tuple[NDArray[np.uint8], ...] = ()

    def __len__(self) -> int:
        return len(self.frames_NTHWC)


@dataclass(frozen=True, kw_only=True)
class ViewFrames:
    """What one view of all windows needs: wide frames (N, H, W, 3), their indices per window, the camera's x, y."""

    frames_NHW3: NDArray[np.uint8]
    index_MT: NDArray[np.int32]
    mount_M2: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """All windows of a split.

    frames_NHW3: wide frames. index_MT: the frames of each window, oldest first. travelled_MT: metres driven since each
    frame. mount_M2: the camera's x, y in the rig. segment_M: index into `segments`. t_ns: the moment of each window.
    weight_M: how often it is drawn. `takeovers` come ready at view size (empty for held-out splits). side: the same
    moments in the side views.
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
    side: tuple[ViewFrames, ...] = ()

    def __len__(self) -> int:
        return len(self.t_ns)

    @property
    def by_view(self) -> tuple[ViewFrames, ...]:
        main = ViewFrames(frames_NHW3=self.frames_NHW3, index_MT=self.index_MT, mount_M2=self.mount_M2)
        return (main, *self.side)


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """The frames of one view that a segment's windows need: `needed` are kept, `index_MT` points into them."""

    proxy: Proxy
    needed: NDArray[np.intp]
    index_MT: NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """One segment's windows before its frames are decoded, its proxies one per view."""

    shown: tuple[_Shown, ...]
    travelled_MT: NDArray[np.float64]
    t_ns: NDArray[np.int64]
    labels: Moments


def build_windows(
    proxies: Sequence[Proxy],
    spans: Mapping[str, Sequence[tuple[int, int]]],
    spec: WindowSpec,
    *,
    takeovers: Sequence[bytes] = (),
    weights: Mapping[str, float] = MappingProxyType({}),
    workers: int = 1,
    progress: Progress = silent,
) -> Windows:
    """Windows of the given proxies whose moment lies in one of their segment's `spans` (start_ns, end_ns).

    proxies: one per segment and view of the spec; a segment without all of them lends no window. weights: of segments
    whose windows are drawn more or less often. workers: threads that decode; the result does not depend on it. Raises InputError `bad_config` when a proxy was made
    for another view.
    """
    drives = _by_drive(proxies, spec)
    pieces = []
    for done, members in enumerate(drives.values()):
        progress("reading labels", done, len(drives))
        stretches = tracks([(views[0].signals, views[0].vehicle) for views in members])
        pieces += [_piece(views, spans.get(views[0].segment, ()), spec, stretches) for views in members]
    seen = [_view_frames(pieces, number, spec, workers, progress) for number in range(len(spec.views))]
    labels = _joined([piece.labels for piece in pieces])
    counts = [len(piece.t_ns) for piece in pieces]
    frames_each = len(spec.frame_offsets_s)
    return Windows(
        spec=spec,
        **vars(seen[0]),
        side=tuple(seen[1:]),
        travelled_MT=np.concatenate([np.empty((0, frames_each)), *(p.travelled_MT for p in pieces)]).astype(np.float32),
        segment_M=np.repeat(np.arange(len(pieces), dtype=np.int32), counts),
        t_ns=np.concatenate([np.empty(0, np.int64), *(piece.t_ns for piece in pieces)]),
        labels=labels,
        weight_M=weights_of(labels) * np.repeat([weights.get(p.shown[0].proxy.segment, 1.0) for p in pieces], counts),
        takeovers=read_takeovers(takeovers, spec),
        segments=tuple(piece.shown[0].proxy.segment for piece in pieces),
        drives=tuple(drives),
        synthetic=any(proxy.synthetic for proxy in proxies),
    )


def _by_drive(proxies: Sequence[Proxy], spec: WindowSpec) -> dict[str, list[tuple[Proxy, ...]]]:
    """Drive -> its segments in time order, each with its proxies in the order of the spec's views."""
    of_segment: dict[str, dict[View, Proxy]] = {}
    for proxy in proxies:
        if proxy.view not in spec.views:
            advice = "the dataset was frozen for another view; freeze it again for this one."
            raise InputError("bad_config", f"proxy of {proxy.segment}", advice)
        of_segment.setdefault(proxy.segment, {})[proxy.view] = proxy
    whole = [tuple(by[v] for v in spec.views) for by in of_segment.values() if all(v in by for v in spec.views)]
    drives: dict[str, list[tuple[Proxy, ...]]] = {}
    for views in sorted(whole, key=lambda views: (views[0].drive, int(views[0].t_ns[0]), views[0].segment)):
        drives.setdefault(views[0].drive, []).append(views)
    return drives


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
    index_MT, close_M = _nearest(t_ns, t_ns[now], spec)
    return now[close_M], index_MT[close_M]


def _nearest(
    t_ns: NDArray[np.int64], moment_ns: NDArray[np.int64], spec: WindowSpec
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """(M, T) frames nearest to the offsets of each moment, and whether all of them are near enough."""
    wanted = moment_ns[:, None] - np.round(np.array(spec.frame_offsets_s) * 1e9).astype(np.int64)
    after = np.clip(np.searchsorted(t_ns, wanted), 1, max(len(t_ns) - 1, 1))
    if len(t_ns) < 2:
        after = np.zeros_like(after)
    before = np.maximum(after - 1, 0)
    nearest = np.where(wanted - t_ns[before] <= t_ns[after] - wanted, before, after)
    return nearest, (np.abs(t_ns[nearest] - wanted) <= FRAME_TOLERANCE_NS).all(1)


def _piece(
    views: Sequence[Proxy], spans: Sequence[tuple[int, int]], spec: WindowSpec, stretches: Sequence[Track]
) -> _Piece:
    """Choose the moments of a segment that lie in a span and on a track and that every view shows, and label them."""
    frame_t = views[0].t_ns
    now, index_MT = anchors(frame_t, spec)
    moment_ns = frame_t[now]
    asked = np.zeros(len(now), bool)
    for start, end in spans:
        asked |= (moment_ns >= start) & (moment_ns <= end)
    indices = [index_MT]
    for proxy in views[1:]:
        beside_MT, close_M = _nearest(proxy.t_ns, moment_ns, spec)
        indices.append(beside_MT)
        asked &= close_M
    found: list[tuple[NDArray[np.intp], Moments, NDArray[np.float64]]] = []
    for track in stretches:
        on = np.flatnonzero(asked & (moment_ns >= track.t_ns[0]) & (moment_ns <= track.t_ns[-1]))
        labels = moments(track, moment_ns[on], views[0].ahead_s)
        on, labels = on[labels.usable_M], _chosen(labels, labels.usable_M)
        found.append((on, labels, travelled(track, frame_t[index_MT[on]], moment_ns[on][:, None])))
    kept = np.concatenate([np.empty(0, np.intp), *(on for on, _, _ in found)])
    return _Piece(
        shown=tuple(_shown(proxy, index[kept]) for proxy, index in zip(views, indices, strict=True)),
        travelled_MT=np.concatenate([np.empty((0, index_MT.shape[1])), *(driven for _, _, driven in found)]),
        t_ns=moment_ns[kept],
        labels=_joined([labels for _, labels, _ in found]),
    )


def _shown(proxy: Proxy, index_MT: NDArray[np.intp]) -> _Shown:
    needed, inverse = np.unique(index_MT, return_inverse=True)
    return _Shown(proxy=proxy, needed=needed, index_MT=inverse.reshape(index_MT.shape))


def _view_frames(
    pieces: Sequence[_Piece], number: int, spec: WindowSpec, workers: int, progress: Progress
) -> ViewFrames:
    """Decode every proxy's GOPs of one view once, straight into one array."""
    shown = [piece.shown[number] for piece in pieces]
    wide = spec.views[number].widened()
    ends = np.cumsum([0, *(len(one.needed) for one in shown)])
    frames = np.empty((int(ends[-1]), wide.height_px, wide.width_px, 3), np.uint8)

    def fill(at: int) -> None:
        if len(shown[at].needed):
            fill_frames(shown[at].proxy, shown[at].needed, frames[ends[at] : ends[at + 1]])

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, _ in enumerate(pool.map(fill, range(len(shown)))):
            progress("decoding proxies", done + 1, len(shown))
    indices = [one.index_MT + start for one, start in zip(shown, ends[:-1], strict=True)]
    mounts = np.array([one.proxy.mount_xy_m for one in shown], np.float32).reshape(-1, 2)
    none = np.empty((0, len(spec.frame_offsets_s)), np.int32)
    return ViewFrames(
        frames_NHW3=frames,
        index_MT=np.concatenate([none, *indices]).astype(np.int32),
        mount_M2=np.repeat(mounts, [len(one.index_MT) for one in shown], axis=0),
    )


def read_takeovers(blobs: Sequence[bytes], spec: WindowSpec) -> Samples:
    """On-policy samples from their .npz bytes, checked against the spec. Raises InputError `bad_config`."""
    count = len(spec.frame_offsets_s)
    pictures = [f"{name}_NTHWC" for name in frame_inputs(len(spec.views))]
    shapes: dict[str, tuple[int, ...]] = {
        **{name: (count, view.height_px, view.width_px, 3) for name, view in zip(pictures, spec.views, strict=True)},
        "side_N9": (len(SIDE_INPUTS),),
        "path": (len(PATH_ARCS_M), 2),
        "path_mask": (len(PATH_ARCS_M),),
        "speed": (len(SPEED_TIMES_S),),
        "speed_mask": (len(SPEED_TIMES_S),),
    }
    parts: dict[str, list[NDArray[Any]]] = {
        name: [np.empty((0, *shape), np.uint8 if name in pictures else np.float32)] for name, shape in shapes.items()
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
    main, *beside = (whole[name] for name in pictures)
    counts = [len(part) for part in parts["side_N9"][1:]]
    sources = np.repeat(np.arange(len(blobs), dtype=np.int32), counts)
    return Samples(frames_NTHWC=main, side_frames=tuple(beside), labels=labels, source_N=sources)


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
