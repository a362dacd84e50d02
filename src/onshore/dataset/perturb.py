"""What a car would have seen a little off its line: views cut from the wide proxy, and labels seen from there.

Rule: the ground is a plane, so pixels below the horizon follow its homography about the rig origin and pixels above it
the rotation alone (both agree on the horizon); the driven path does not move, only the place it is seen from. A pose of
zero gives the plain middle of the wide frame, byte for byte.

Letters: B batch, T frames of a sample, K path points.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.bundle.inputs import View
from onshore.core.errors import InputError

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Perturb:
    """How far off: a share of the samples gets a lateral offset (m, left) and a yaw offset (rad, left), both cut off."""

    share: float = 0.6
    lateral_sigma_m: float = 0.5
    lateral_max_m: float = 1.2
    yaw_sigma_rad: float = math.radians(5.0)
    yaw_max_rad: float = math.radians(14.0)

    def __post_init__(self) -> None:
        sizes = (self.lateral_sigma_m, self.lateral_max_m, self.yaw_sigma_rad, self.yaw_max_rad)
        if not 0 <= self.share <= 1 or min(sizes) < 0 or self.yaw_max_rad > 0.7:
            raise InputError(
                "bad_config", "perturb", "share lies in 0..1, sizes are not negative, yaw at most 0.7 rad."
            )

    def draw(self, random: np.random.Generator, count: int) -> tuple[Floats, Floats]:
        """Lateral (m) and yaw (rad) of `count` samples; zeros for those that stay on the line."""
        moved = random.random(count) < self.share
        lateral = np.clip(random.normal(0, 1, count) * self.lateral_sigma_m, -self.lateral_max_m, self.lateral_max_m)
        yaw = np.clip(random.normal(0, 1, count) * self.yaw_sigma_rad, -self.yaw_max_rad, self.yaw_max_rad)
        return np.where(moved, lateral, 0.0).astype(np.float32), np.where(moved, yaw, 0.0).astype(np.float32)


def earlier_laterals(lateral_B: Floats, yaw_B: Floats, travelled_BT: Floats) -> Floats:
    """(B, T) lateral offset of every frame of a sample: a car that holds its yaw offset came from the other side.

    travelled_BT: metres driven since each frame (0 for the newest).
    """
    return np.asarray(lateral_B[:, None] - travelled_BT * np.sin(yaw_B)[:, None], np.float32)


def seen_from(path_BK2: Floats, lateral_B: Floats, yaw_B: Floats) -> Floats:
    """The driven path in the rig frame of a car `lateral_B` metres left of the line, turned left by `yaw_B`."""
    cos, sin = np.cos(yaw_B)[:, None], np.sin(yaw_B)[:, None]
    x, y = path_BK2[..., 0], path_BK2[..., 1] - lateral_B[:, None]
    return np.stack([cos * x + sin * y, -sin * x + cos * y], -1).astype(np.float32)


def render(
    frames_NHW3: NDArray[np.uint8],
    index_BT: NDArray[np.int32],
    lateral_BT: Floats,
    yaw_B: Floats,
    mount_B2: Floats,
    view: View,
) -> NDArray[np.uint8]:
    """(B, T, 3, H, W) uint8 views out of wide frames (N, wide H, wide W, 3), each from its own pose.

    mount_B2: the camera's x and y in the rig frame (m). Rays that leave the wide frame repeat its border.
    Raises InputError `bad_config` when the frames are not the wide form of `view`.
    """
    from onshore.dataset.kernel import cut_views  # numba takes half a second to import

    wide = view.widened()
    if frames_NHW3.shape[1:] != (wide.height_px, wide.width_px, 3):
        raise InputError("bad_config", f"frames {frames_NHW3.shape[1:]}", "they are not the wide form of this view.")
    out = np.empty((*index_BT.shape, 3, view.height_px, view.width_px), np.uint8)
    kernel: Any = cut_views
    focal, height = np.float32(view.focal_px), np.float32(view.height_m)
    # everything as the view's own axes have it: the camera's place, and where the car was moved to
    cos, sin = np.float32(math.cos(view.yaw_rad)), np.float32(math.sin(view.yaw_rad))
    mount = np.stack([cos * mount_B2[:, 0] + sin * mount_B2[:, 1], cos * mount_B2[:, 1] - sin * mount_B2[:, 0]], -1)
    kernel(frames_NHW3, index_BT, lateral_BT * sin, lateral_BT * cos, yaw_B, mount, focal, height, out)
    return out


def compiled_kernel() -> str:
    """The folder that holds this machine's compiled kernel; compiles it where it is not, which takes some seconds."""
    from onshore.dataset import kernel

    view, wide = View(), View().widened()
    still, none = np.zeros((1, 2), np.float32), np.zeros(1, np.float32)
    frames = np.zeros((1, wide.height_px, wide.width_px, 3), np.uint8)
    render(frames, np.zeros((1, 2), np.int32), still, none, still, view)
    return _compiled_in(kernel.cut_views)


def take_compiled_kernel(folder: str) -> None:
    """Use what `compiled_kernel` left there, for a jailed process: numba keeps to folders that it can write to."""
    from onshore.dataset import kernel

    here = Path(_compiled_in(kernel.cut_views))
    for file in Path(folder).glob("kernel.*.nb?"):
        if not (here / file.name).exists():
            shutil.copyfile(file, here / file.name)


def _compiled_in(function: Any) -> str:
    folder: str = function.stats.cache_path
    return folder
