"""Shadow mode over real drives: a camera, speeds and steering as a car recorded them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bundle.fleet import Shop
from bundle.networks import metadata, network
from onshore.bundle.format import pack
from onshore.bundle.inputs import View, front_video, view_maps
from onshore.car import PlannedDrive, provision, shadow, update
from onshore.car.shadowing import compare
from onshore.core.policy import straight_plan
from onshore.core.recording import Recording
from onshore.drive.columns import shipped_maps
from onshore.drive.discover import discover
from onshore.drive.table import read_table

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    folder = Path(os.environ.get("ONSHORE_TEST_DATA", "")) / "openlka"
    if not os.environ.get("ONSHORE_TEST_DATA") or not folder.is_dir():
        pytest.skip("needs ONSHORE_TEST_DATA with openlka")
    found = discover([folder], shipped_maps()).sources[:6]
    return [read_table(source.files[0], source.files[1], source.column_map) for source in found]


def test_a_car_shadows_real_drives(recordings: list[Recording], tmp_path: Path) -> None:
    shop, car, net = Shop(tmp_path / "shop"), tmp_path / "car", network(0)
    view = View(focal_px=176.0)
    shop.release(pack(net, metadata(net, view=view)))
    provision(car, name="car-0007", region="cn", root=shop.root())
    assert update(shop.repo, car).installed
    for made in recordings[:3]:
        report = shadow(car, made)
        assert view_maps(front_video(made)[0], view).inside.all()
        assert np.diff(report.t_ns).min() > 0.15e9
        assert len(report.t_ns) == pytest.approx((made.videos[0].t_ns[-1] - made.videos[0].t_ns[0]) / 0.2e9, rel=0.2)
        assert np.isfinite(report.columns["shadow_path_diff_m"]).mean() > 0.5
        assert not report.synthetic and len(report.spans) >= 1


def test_a_straight_plan_differs_from_real_drives_by_as_much_as_they_turn(recordings: list[Recording]) -> None:
    found = []
    for made in recordings:
        t_ns = front_video(made)[1].t_ns[::4]
        speeds = np.interp(t_ns, made.signals.t_ns, made.signals.speed_mps)
        held = PlannedDrive(
            release_id="release-a",
            road_use="not for the road",
            synthetic=False,
            t_ns=t_ns,
            plans=tuple(straight_plan(float(speed)) for speed in speeds),
            ms_per_plan=np.ones(len(t_ns)),
        )
        bend = made.signals.yaw_rate_radps / np.maximum(made.signals.speed_mps, 1.0)
        curvature = np.abs(np.interp(t_ns + 0.5e9, made.signals.t_ns, bend)).mean()
        figures = compare(held, made).as_record()
        # 14 m along a circle end half of curvature x 14^2 beside the tangent
        found.append((figures["mean_path_diff_m"], 98 * curvature))
        assert figures["mean_speed_diff_mps"] < 2.5
    measured, expected = np.array(found).T
    assert measured == pytest.approx(expected, rel=0.5, abs=0.1)
