"""From proxies to batches: the right frames, the right labels, the same bytes whoever makes them."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.recordings import CAMERA, LEFT, START_NS, ground_picture, recording, shifted, signals, view_of
from onshore.bundle.inputs import View, view_maps
from onshore.core.errors import CorruptError, InputError
from onshore.core.recording import Packet, Rig
from onshore.dataset import Perturb, Windows, WindowSpec, batches, in_order
from onshore.dataset.proxy import Proxy, build_proxy, fill_frames, fitting_view, nearest_to_grid
from onshore.dataset.windows import anchors, build_windows
from onshore.wire import decode

EVERYTHING = [(0, 2**62)]
SPEC = WindowSpec()


def proxy(segment: str = "segment-a", drive: str = "drive-a", **fields: Any) -> Proxy:
    return build_proxy(recording(segment_id=segment, drive_id=drive, anonymised=True, **fields), View())


def takeover_bytes(count: int, **changes: Any) -> bytes:
    arrays = {
        "frames_NTHWC": np.full((count, 2, 64, 128, 3), 7, np.uint8),
        "side_N9": np.tile(np.array([0.5, 1, 0, 0, 0, 0, 0, 0, 0], np.float32), (count, 1)),
        "path": np.ones((count, 8, 2), np.float32),
        "path_mask": np.ones((count, 8), bool),
        "speed": np.full((count, 4), 5, np.float32),
        "speed_mask": np.ones((count, 4), np.float32),
        **changes,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in arrays.items() if array is not None})
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pair() -> list[Proxy]:
    turning = signals(8, lambda t: (0.05, 0.0))
    return [proxy(moves=signals(8)), proxy("segment-b", "drive-b", moves=shifted(turning, 10**12))]


@pytest.fixture(scope="module")
def windows(pair: list[Proxy]) -> Windows:
    spans = {"segment-a": EVERYTHING, "segment-b": EVERYTHING}
    return build_windows(pair, spans, SPEC, takeovers=[takeover_bytes(5)])


def test_side_views_show_the_same_moments_from_their_own_cameras() -> None:
    made = recording(
        segment_id="segment-a",
        drive_id="drive-a",
        anonymised=True,
        beside=(LEFT,),
        moves=signals(6, lambda t: (0.05, 0)),
    )
    left = View(yaw_rad=LEFT.pose_camera_in_rig[5])
    spec = WindowSpec(side_views=(left,))
    both = [build_proxy(made, view) for view in spec.views]
    windows = build_windows(both, {"segment-a": EVERYTHING}, spec)
    alone = build_windows(both[:1], {"segment-a": EVERYTHING}, SPEC)
    assert np.array_equal(windows.t_ns, alone.t_ns) and np.array_equal(windows.frames_NHW3, alone.frames_NHW3)
    batch = next(in_order(windows, batch=8))
    assert [view.shape for view in batch.views] == [(8, 2, 3, 64, 128)] * 2
    at = (windows.t_ns[:8] - made.signals.t_ns[0]) / 1e9
    seconds = (made.signals.t_ns - made.signals.t_ns[0]) / 1e9
    for row, t_s in enumerate(at):
        pose = [float(np.interp(t_s, seconds, getattr(made.signals, name))) for name in ("x_m", "y_m", "yaw_rad")]
        truth = view_of(ground_picture(LEFT, *pose), LEFT, left).transpose(2, 0, 1)
        assert np.abs(batch.views[1][row, -1].astype(float) - truth).mean() < 4.0
    assert len(build_windows(both[:1], {"segment-a": EVERYTHING}, spec)) == 0


def test_a_proxy_is_the_same_bytes_every_time_and_reads_back(pair: list[Proxy]) -> None:
    again = proxy(moves=signals(8))
    assert again.to_bytes() == pair[0].to_bytes()
    back = Proxy.from_bytes(again.to_bytes())
    assert back.to_bytes() == again.to_bytes() and back.view == View() and back.mount_xy_m == (1.5, 0.0)


def test_a_stream_that_already_is_the_wide_view_is_kept_as_it_is() -> None:
    source = recording(moves=signals(2), segment_id="segment-a", drive_id="drive-a", anonymised=True)
    assert build_proxy(source, View()).video == source.videos[0]
    late = replace(CAMERA, time_offset_ns=7_000_000)
    delayed = build_proxy(replace(source, rig=Rig(cameras=(late,))), View())
    assert (delayed.t_ns - source.videos[0].t_ns == 7_000_000).all()
    smaller = build_proxy(source, View(margin=0.125))
    frames = np.empty((1, 80, 160, 3), np.uint8)
    fill_frames(smaller, np.array([5]), frames)
    truth = next(rgb for index, (_, rgb) in enumerate(decode(source.videos[0])) if index == 5)
    assert np.abs(frames[0].astype(float) - truth[8:88, 16:176]).mean() < 4


def test_a_narrow_camera_gets_a_view_that_it_fills() -> None:
    narrow = replace(CAMERA, width_px=526, height_px=330, focal_px=722.0, centre_x_px=263.0, centre_y_px=165.0)
    fitted = fitting_view([CAMERA, narrow])
    assert view_maps(narrow, fitted).inside.mean() > 0.97 and 150 < fitted.focal_px < 200
    assert fitting_view([CAMERA]) == View()
    with pytest.raises(InputError, match="look ahead"):
        fitting_view([replace(CAMERA, pose_camera_in_rig=(0.0, 0.0, 1.4, 0.0, 0.0, 3.1))])


def test_windows_show_the_frames_of_their_own_time(windows: Windows) -> None:
    moves = signals(8)
    batch = next(in_order(windows, 10))
    for sample in (0, 9):
        assert windows.segments[windows.segment_M[sample]] == "segment-a"
        for frame, age_s in enumerate(SPEC.frame_offsets_s):
            at = int(np.searchsorted(moves.t_ns, windows.t_ns[sample] - round(age_s * 1e9)))
            truth = view_of(ground_picture(CAMERA, moves.x_m[at], moves.y_m[at], moves.yaw_rad[at]), CAMERA, View())
            shown = batch.frames_BTCHW[sample, frame].transpose(1, 2, 0)
            assert np.abs(shown.astype(float) - truth).mean() < 6
    assert windows.travelled_MT[0] == pytest.approx([3.2, 0.0], abs=1e-3)


def test_windows_keep_the_stride_and_need_all_their_frames(windows: Windows) -> None:
    own = windows.t_ns[windows.segment_M == 0]
    assert own[0] == START_NS + 400_000_000 and (np.diff(own) == 200_000_000).all()
    assert own[-1] <= START_NS + 8_000_000_000 - 200_000_000  # the last moment has no label left


def test_only_moments_inside_the_spans_are_taken(pair: list[Proxy]) -> None:
    span = (START_NS + 2_000_000_000, START_NS + 4_000_000_000)
    some = build_windows(pair, {"segment-a": [span]}, SPEC)
    assert set(some.segment_M.tolist()) == {0} and some.t_ns.min() >= span[0] and some.t_ns.max() <= span[1]
    assert len(some.frames_NHW3) < 30  # frames nobody shows are not kept


def test_overlapping_spans_give_each_moment_once(pair: list[Proxy]) -> None:
    twice = build_windows(pair[:1], {"segment-a": [*EVERYTHING, (START_NS, START_NS + 3_000_000_000)]}, SPEC)
    assert len(np.unique(twice.t_ns)) == len(twice)


def test_labels_never_cross_drives() -> None:
    first, second = signals(4), signals(4)
    ends = 4_100_000_000
    apart = [proxy(moves=first), proxy("segment-b", "drive-b", moves=shifted(second, ends))]
    alone = build_windows(apart[:1], {"segment-a": EVERYTHING}, SPEC)
    both = build_windows(apart, {"segment-a": EVERYTHING}, SPEC)
    assert np.array_equal(alone.labels.path_mask_MK, both.labels.path_mask_MK)
    assert not both.labels.path_mask_MK[-1].all()
    # the same two segments as one drive: the first one's labels reach into the second
    moved = replace(second, x_m=second.x_m + 32.8 * np.cos(0.3), y_m=second.y_m + 32.8 * np.sin(0.3))
    one = [proxy(moves=first), proxy("segment-b", "drive-a", moves=shifted(moved, ends))]
    assert build_windows(one, {"segment-a": EVERYTHING}, SPEC).labels.path_mask_MK.all()


def test_batches_follow_from_seed_and_number_alone(windows: Windows) -> None:
    arguments: dict[str, Any] = {"batch": 16, "seed": 3, "perturb": Perturb()}
    whole = list(batches(windows, steps=4, **arguments))
    parts = [b for first in (0, 2) for b in batches(windows, steps=2, first_step=first, **arguments)]
    unhurried = list(batches(windows, steps=4, prefetch=0, **arguments))
    assert all(np.array_equal(a.frames_BTCHW, b.frames_BTCHW) for a, b in zip(whole, unhurried, strict=True))
    other = next(batches(windows, batch=16, steps=1, seed=4, perturb=Perturb()))
    for one, two in zip(whole, parts, strict=True):
        assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in vars(one))
    assert not np.array_equal(whole[0].frames_BTCHW, other.frames_BTCHW)


def test_an_error_in_the_thread_reaches_the_caller(windows: Windows) -> None:
    broken = replace(windows, mount_M2=windows.mount_M2[:0])
    with pytest.raises(IndexError):
        list(batches(broken, batch=4, steps=3, seed=0, takeover_share=0.0))


def test_threads_change_nothing(pair: list[Proxy], windows: Windows) -> None:
    spans = {"segment-a": EVERYTHING, "segment-b": EVERYTHING}
    threaded = build_windows(pair[::-1], spans, SPEC, workers=2)
    assert np.array_equal(threaded.frames_NHW3, windows.frames_NHW3)
    assert np.array_equal(threaded.index_MT, windows.index_MT) and np.array_equal(threaded.t_ns, windows.t_ns)


def test_unperturbed_batches_are_the_windows_themselves(windows: Windows) -> None:
    drawn = next(batches(windows, batch=64, steps=1, seed=0, takeover_share=0.0))
    ordered = np.concatenate([b.frames_BTCHW for b in in_order(windows, 7)])
    assert len(ordered) == len(windows) and (drawn.index_B >= 0).all()
    assert np.array_equal(drawn.frames_BTCHW, ordered[drawn.index_B])
    assert np.array_equal(drawn.path_BK2, windows.labels.path_MK2[drawn.index_B])


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_perturbed_labels_lie_where_the_driven_path_lies(windows: Windows, seed: int) -> None:
    # every sample's path is the driven one moved rigidly: distances between its points stay
    drawn = next(batches(windows, batch=8, steps=1, seed=seed, perturb=Perturb(share=1.0), takeover_share=0.0))
    driven = windows.labels.path_MK2[drawn.index_B]
    whole = drawn.path_mask_BK.all(1)
    steps, truth = (np.hypot(*np.diff(path[whole], axis=1).transpose(2, 0, 1)) for path in (drawn.path_BK2, driven))
    assert steps == pytest.approx(truth, abs=1e-4)
    assert not np.allclose(drawn.path_BK2[whole], driven[whole])
    assert not drawn.path_BK2[drawn.path_mask_BK == 0].any()


def test_takeovers_come_at_their_share_unperturbed(windows: Windows) -> None:
    drawn = list(batches(windows, batch=100, steps=5, seed=0, perturb=Perturb(share=1.0), takeover_share=0.3))
    theirs = np.concatenate([b.index_B for b in drawn]) < 0
    assert 0.24 < theirs.mean() < 0.36
    for batch in drawn:
        assert (batch.frames_BTCHW[batch.index_B < 0] == 7).all() and (batch.path_BK2[batch.index_B < 0] == 1).all()
        assert (batch.index_B >= -5).all()
    pooled = next(batches(windows, batch=4000, steps=1, seed=0))
    expected = 5 / (5 + windows.weight_M.sum())
    assert (pooled.index_B < 0).mean() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    "bad", [{"side_N9": None}, {"path": np.ones((2, 7, 2), np.float32)}, {"speed": np.ones((1, 4))}]
)
def test_takeovers_of_another_shape_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="takeovers"):
        build_windows([], {}, SPEC, takeovers=[takeover_bytes(2, **bad)])


def test_takeovers_alone_can_be_drawn_and_nothing_cannot() -> None:
    alone = build_windows([], {}, SPEC, takeovers=[takeover_bytes(3)])
    assert (next(batches(alone, batch=4, steps=1, seed=0)).index_B < 0).all()
    with pytest.raises(InputError, match="empty_input"):
        next(batches(build_windows([], {}, SPEC), batch=4, steps=1, seed=0))


def test_a_damaged_proxy_is_told_from_a_whole_one(pair: list[Proxy]) -> None:
    data = pair[0].to_bytes()
    with pytest.raises(CorruptError):
        Proxy.from_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptError):
        Proxy.from_bytes(takeover_bytes(1))
    packets = pair[0].video.packets
    blank = replace(
        pair[0].video, packets=(*packets[:20], Packet(t_ns=packets[20].t_ns, data=b"\0" * 40, keyframe=True))
    )
    with pytest.raises(CorruptError):
        build_windows([replace(pair[0], video=blank)], {"segment-a": EVERYTHING}, WindowSpec(stride_s=0.1))


def test_another_view_needs_another_dataset(pair: list[Proxy]) -> None:
    with pytest.raises(InputError, match="another view"):
        build_windows(pair, {}, WindowSpec(view=View(width_px=64, height_px=32)))


def test_frames_that_were_not_anonymised_make_no_proxy() -> None:
    with pytest.raises(InputError, match="anonymised"):
        build_proxy(recording(moves=signals(2)), View())


@pytest.mark.parametrize("bad", [{"frame_offsets_s": (0.0, 0.4)}, {"frame_offsets_s": (0.4,)}, {"stride_s": 0.0}])
def test_impossible_specs_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="bad_config"):
        WindowSpec(**bad)


@given(
    st.lists(st.integers(10_000_000, 400_000_000), min_size=0, max_size=80),
    st.sampled_from([0.1, 0.2, 0.5]),
)
@settings(deadline=None)
def test_anchors_pick_frames_of_the_right_age(gaps: list[int], stride_s: float) -> None:
    t_ns = np.cumsum([0, *gaps])
    now, index = anchors(t_ns, WindowSpec(stride_s=stride_s))
    assert index.shape == (len(now), 2) and np.array_equal(index[:, 1], now)
    assert (np.abs(t_ns[now] - t_ns[index[:, 0]] - 400_000_000) <= 60_000_000).all()
    assert (np.diff(t_ns[now]) >= round(stride_s * 1e9) - 25_000_000).all()


@given(st.lists(st.integers(5_000_000, 45_000_000), min_size=2, max_size=120))
def test_fast_sources_are_thinned_to_ten_a_second_by_their_own_times(gaps: list[int]) -> None:
    t_ns = np.cumsum(gaps)
    kept = nearest_to_grid(t_ns, 10.0)
    assert (np.diff(kept) > 0).all() and len(kept) <= (t_ns[-1] - t_ns[0]) // 100_000_000 + 1
    grid = np.round((t_ns[kept] - t_ns[0]) / 1e8) * 1e8
    assert (np.abs(t_ns[kept] - t_ns[0] - grid) <= 45_000_000 / 2 + 1).all()


def test_slow_sources_keep_every_frame() -> None:
    assert len(nearest_to_grid(np.arange(50, dtype=np.int64) * 99_000_000, 10.0)) == 50
    assert len(nearest_to_grid(np.arange(50, dtype=np.int64) * 50_000_000, 10.0)) == 25
