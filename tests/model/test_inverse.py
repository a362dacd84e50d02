"""Public video without signals: planted cameras are true to geometry, intervals hold for new drives, labels keep their origin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.centers import center_with, fleet, write_fleet
from dataset.recordings import CAMERA, ground_picture
from onshore import drive
from onshore.bundle.inputs import View
from onshore.clip import cut
from onshore.core.errors import InputError
from onshore.core.recording import Recording, Signals
from onshore.dataset import WindowSpec, freeze, load_windows, manifest
from onshore.dataset.footage import OFFSETS_S, Cameras, Footage, MotionWindows, pictures
from onshore.dataset.proxy import Proxy
from onshore.dataset.pseudo import PseudoLabels
from onshore.model import Nano, Recipe
from onshore.model.inverse import (
    InverseDynamics,
    conformal_factor,
    estimate,
    inverse_recipe,
    load_inverse,
    pseudo_label,
    train_inverse,
)
from onshore.model.weighing import choose_weight
from onshore.store import Center

QUICK = inverse_recipe("quick", trainable=InverseDynamics(channels=(8, 8, 12, 12, 16), hidden=32), steps=30, batch=16)


def stranger(number: int) -> Recording:
    """A public video of another vehicle: pictures alone."""
    one = fleet(number + 1)[number]
    times = one.videos[0].t_ns
    return replace(one, vehicle=f"stranger-{number}", drive_key=f"found-{number}", signals=Signals.build(times))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Center, str, str]:
    """A center with own drives, public video without signals, and a trained network."""
    folder = tmp_path_factory.mktemp("inverse")
    center = center_with(folder, fleet(14)[4:])
    public = write_fleet(folder / "public", [stranger(0), stranger(2)])
    assert drive.add(center, public, public=True).quarantined == []
    cut(center)
    own = freeze(center, "own", where="speed_mean_mps >= 0", held_out=0.5)
    return center, own.id, train_inverse(center, own.id, QUICK).id


@pytest.mark.parametrize(
    ("height_m", "focal", "yaw_rad", "turn_radps"), [(1.8, 1.0, 0.0, 0.0), (1.1, 1.1, 0.05, 0.0), (1.4, 1.0, 0.0, 0.2)]
)
def test_a_planted_camera_shows_what_such_a_camera_sees(
    height_m: float, focal: float, yaw_rad: float, turn_radps: float
) -> None:
    view, t_s = View(), np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
    own = [ground_picture(CAMERA, 3.0, 1.0, 0.2)[..., 0]] * 5
    mount = np.array(CAMERA.pose_camera_in_rig[:2], np.float32)
    seen = Footage(
        view=view,
        frames_NHW=np.stack(own),
        t_ns=np.arange(5, dtype=np.int64),
        way_m=np.zeros(5),
        yaw_rad=np.zeros(5),
        stretch_N=np.zeros(5, np.int64),
        drive_N=np.zeros(5, np.int64),
        mount_N2=np.repeat(mount[None], 5, 0),
        drives=("one",),
    )
    zero = np.zeros(1)
    windows = MotionWindows(
        index_MT=np.arange(5)[None], t_MT=t_s[None], speed_mps=zero, yaw_rate_radps=zero, drive_M=np.zeros(1, np.int64)
    )
    cameras = replace(
        Cameras.own(view, 1),
        height_B=np.array([height_m]),
        focal_B=np.array([focal]),
        mount_B3=np.array([[0.0, 0.0, yaw_rad]]),
        turn_B=np.array([turn_radps]),
    )
    made = pictures(seen, windows, cameras)[0]
    x, y, _ = CAMERA.pose_camera_in_rig[:3]
    there = replace(CAMERA, focal_px=64.0 * focal, pose_camera_in_rig=(x, y, height_m, 0.0, 0.0, yaw_rad))
    for frame, at in zip(made, t_s, strict=True):
        wanted = ground_picture(there, 3.0, 1.0, 0.2 + turn_radps * at)[16:80, 32:160, 0].astype(float)
        apart = np.abs(frame.astype(float) - wanted)[:, 8:-8]
        assert apart[:26].mean() < 3.0 and apart[38:56].mean() < 6.0, (at, apart[:26].mean(), apart[38:56].mean())
        assert np.abs(frame.astype(float) - own[0][16:80, 32:160])[38:56].mean() > apart[38:56].mean() or at == 0.0


def test_intervals_hold_for_drives_that_were_not_there_and_every_drive_counts_alike() -> None:
    random = np.random.default_rng(3)
    covered = []
    for _ in range(200):
        lengths = random.integers(5, 400, 80)
        hard = random.lognormal(0, 0.3, 80)
        drives = np.repeat(np.arange(80), lengths)
        scores = np.abs(random.normal(0, 1, len(drives))) * hard[drives]
        factor = conformal_factor(scores[drives < 40], drives[drives < 40], 0.9)
        covered.append(np.mean([(scores[drives == one] <= factor).mean() for one in range(40, 80)]))
    assert abs(float(np.mean(covered)) - 0.9) < 0.01
    # one long drive among short ones does not decide
    assert (
        conformal_factor(np.concatenate([np.full(1000, 9.0), np.ones(9)]), np.repeat(range(10), [1000] + [1] * 9), 0.85)
        == 1.0
    )


@pytest.mark.slow
def test_pseudo_labels_come_from_pictures_alone_and_keep_their_origin(place: tuple[Center, str, str]) -> None:
    center, own, network = place
    row = pseudo_label(center, network, speed_half_mps=1e3, yaw_half_radps=1e3)
    assert (row.segments, row.drives, row.rejected, row.synthetic) == (2, 2, 0, True) and row.kept > 80
    assert pseudo_label(center, network, speed_half_mps=1e3, yaw_half_radps=1e3) == row
    one = center.artifact(row.ids[0])
    assert network in one.parents and one.label.kind == "pseudo_labels" and one.label.synthetic and one.label.subjects
    frozen = freeze(center, "with-public", pseudo_labels=row.ids, pseudo_weight=0.5, held_out=0.5)
    entries = manifest.show(center, frozen.id)
    public = {entry["segment"]: entry for entry in entries["proxies"] if "weight" in entry}
    assert len(public) == 2
    for entry in public.values():
        assert entry["weight"] == 0.5 and entry["pseudo_labels"] in row.ids
        assert entry["sources"]["speed"] == "inverse dynamics" and entry["sources"]["pose"] == "integrated"
        assert entry["pseudo_labels"] in center.artifact(entry["id"]).parents
    split = {entry["id"]: entry["split"] for entry in entries["drives"]}
    assert {split[entry["drive"]] for entry in public.values()} == {"train"}
    before = manifest.show(center, own)["drives"]
    assert all(split[entry["id"]] == entry["split"] for entry in before)
    windows = load_windows(center, frozen.id, WindowSpec())
    of_public = np.isin(np.array(windows.segments)[windows.segment_M], list(public))
    assert of_public.sum() > 20 and windows.labels.speed_mask_MS[of_public].any()
    # what a moment is told of its own speed was read off pictures up to then
    assert all(Proxy.from_bytes(center.read(entry["id"])).ahead_s == OFFSETS_S[-1] for entry in public.values())
    plain = load_windows(center, freeze(center, "same", pseudo_labels=row.ids, held_out=0.5).id, WindowSpec())
    assert np.allclose(windows.weight_M[of_public], plain.weight_M[of_public] * 0.5)
    assert np.allclose(windows.weight_M[~of_public], plain.weight_M[~of_public])
    assert manifest.verify(center, frozen.id)["ok"]


@pytest.mark.slow
def test_a_moment_whose_interval_is_too_wide_is_rejected(place: tuple[Center, str, str]) -> None:
    center, _, network = place
    ids = [row["id"] for row in drive.segments(center) if row["public"]]
    halves = np.concatenate([one.speed_half_mps for one in estimate(center, network, ids)])
    limit = float(np.quantile(halves, 0.6))
    row = pseudo_label(center, network, speed_half_mps=limit, speed_share=0.0, yaw_half_radps=1e3)
    assert row.rejected > 0 and row.kept > 0
    labels = [PseudoLabels.from_bytes(center.read(one)) for one in row.ids]
    assert max(one.speed_half_mps.max() for one in labels) <= limit
    assert pseudo_label(center, network, speed_half_mps=1e-6, speed_share=0.0).ids == []
    shared = pseudo_label(center, network, speed_half_mps=limit, speed_share=0.5, yaw_half_radps=1e3)
    labels = [PseudoLabels.from_bytes(center.read(one)) for one in shared.ids]
    assert shared.kept >= row.kept
    for one in labels:
        assert (one.speed_half_mps <= np.maximum(limit, 0.5 * one.signals.speed_mps) + 1e-9).all()


@pytest.mark.slow
def test_the_weight_is_the_one_that_held_out_own_drives_like_best(place: tuple[Center, str, str]) -> None:
    center, _, network = place
    row = pseudo_label(center, network, speed_half_mps=1e3, yaw_half_radps=1e3)
    nano = Recipe(name="tiny", trainable=Nano(channels=(8, 8, 8, 8, 8), hidden=16), steps=6, batch=8)
    found = choose_weight(center, "weighed", nano, row.ids, weights=(0.5,), held_out=0.5)
    assert [one["weight"] for one in found.tried] == [0.0, 0.5] and found.held_out_windows > 20
    assert found.weight == min(found.tried, key=lambda one: one["loss"])["weight"]
    assert all(np.isfinite([one["loss"], one["path"], one["speed_mps"]]).all() for one in found.tried)


@pytest.mark.slow
def test_what_was_recorded_is_never_replaced(place: tuple[Center, str, str]) -> None:
    center, _, network = place
    fleet_drive = next(row["drive"] for row in drive.segments(center) if not row["public"])
    with pytest.raises(InputError, match="never replaced"):
        pseudo_label(center, network, drives=[fleet_drive])


@pytest.mark.slow
def test_another_model_is_no_inverse_dynamics_and_a_few_drives_give_no_interval(
    place: tuple[Center, str, str], tmp_path: Path
) -> None:
    center, own, network = place
    config, _ = load_inverse(center, network)
    assert config.speed_factor > 0 and config.yaw_factor > 0 and config.level == 0.9
    with pytest.raises(InputError, match="no calibrated inverse-dynamics"):
        load_inverse(center, manifest.row_of(center, own).artifact)
    few = freeze(center, "few", where="speed_mean_mps >= 0", held_out=0.1, seed=1)
    with pytest.raises(InputError, match="held-out drives"):
        train_inverse(center, few.id, QUICK)
    again = train_inverse(center, own, QUICK)
    assert again.id == network and not again.fresh and again.held_out_drives >= 5
