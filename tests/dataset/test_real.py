"""The whole way on two recorded drives: clips, view, proxies, labels, batches."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from onshore import clip, drive
from onshore.dataset import Perturb, WindowSpec, batches, freeze, load_windows, manifest
from onshore.store import Center

DATA = os.environ.get("ONSHORE_TEST_DATA")
ROUTES = ("00000002--e0ac3d0ea6", "00000016--a9ec955169")


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="ONSHORE_TEST_DATA is not set")
def test_recorded_drives_become_windows(tmp_path: Path) -> None:
    found = [path for route in ROUTES for path in Path(str(DATA)).glob(f"openlka/*/*/*/{route}")]
    if len(found) != 2:
        pytest.skip("the recordings are not there")
    center = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    assert drive.add(center, found).segments == 2
    rows = clip.cut(center)
    assert {row["trigger"] for row in rows} >= {"ordinary", "sharp_turn"}
    assert all(row["junction_share"] is None and row["frames"] > 50 for row in rows)
    view = manifest.fit_view(center)
    assert view.focal_px > 100  # the recordings' camera is much narrower than the network's own view
    row = freeze(center, "recorded", view=view)
    assert (row.drives, row.train_drives, row.held_out_drives, row.synthetic) == (2, 1, 1, False)
    sources = manifest.show(center, row.id)["proxies"][0]["sources"]
    assert sources["pose"] == "integrated" and sources["camera"] == "assumed"
    for split in ("train", "held_out"):
        windows = load_windows(center, row.id, WindowSpec(view=view), split)
        assert len(windows) > 10
        # pictures end after a few seconds, signals do not: every label is known
        assert windows.labels.path_mask_MK.all() and windows.labels.speed_mask_MS.all()
        assert np.abs(windows.labels.path_MK2[:, 5, 1]).max() > 1.0  # both routes turn
        assert (windows.labels.side_M9[:, 2:5] == 0).all()  # nobody told where to go
        batch = next(batches(windows, batch=8, steps=1, seed=0, perturb=Perturb()))
        assert batch.frames_BTCHW.std() > 1
    assert manifest.verify(center, row.id)["ok"]
