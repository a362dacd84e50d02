"""The loader's inner loop: perturbed views cut from wide frames, fixed point, one thread, no lock on the interpreter.

Rule: the same arithmetic everywhere: positions rounded to 1/32 pixel, weights whole numbers, so that a view on the line
is a plain copy and two runs agree to the byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

SHIFT = 5
STEPS = 1 << SHIFT
#: Numbers without a sign: numba then need not ask of every index whether it is counted from the end.
BITS, FINE, WHOLE = np.uint32(SHIFT), np.uint32(STEPS - 1), np.uint32(STEPS * STEPS)
NONE, THREE, ONE, TWO = np.uint32(0), np.uint32(3), np.uint64(1), np.uint64(2)


@njit(cache=True, nogil=True)
def cut_views(
    frames: NDArray[np.uint8],
    index_BT: NDArray[np.int32],
    ahead_BT: NDArray[np.float32],
    lateral_BT: NDArray[np.float32],
    yaw_B: NDArray[np.float32],
    mount_B2: NDArray[np.float32],
    focal_px: Any,
    height_m: Any,
    out: NDArray[np.uint8],
) -> None:
    """Fill `out` (B, T, 3, H, W) from `frames` (N, wide H, wide W, 3); moves and mounts are in the view's own axes."""
    rows, columns = out.shape[3], out.shape[4]
    top, left = (frames.shape[1] - rows) // 2, (frames.shape[2] - columns) // 2
    across = np.empty(columns, np.int32)
    down = np.empty(columns, np.int32)
    for b in range(out.shape[0]):
        for t in range(out.shape[1]):
            frame = frames[index_BT[b, t]]
            if yaw_B[b] == 0 and lateral_BT[b, t] == 0 and ahead_BT[b, t] == 0:
                for row in range(rows):
                    _copy(
                        frame[top + row, left : left + columns], out[b, t, 0, row], out[b, t, 1, row], out[b, t, 2, row]
                    )
                continue
            for row in range(rows):
                moved = (ahead_BT[b, t], lateral_BT[b, t])
                _source_of_row(row, rows, moved, yaw_B[b], mount_B2[b], focal_px, height_m, frame.shape, across, down)
                _gather(frame, across, down, out[b, t, 0, row], out[b, t, 1, row], out[b, t, 2, row])


@njit(cache=True, nogil=True)
def _source_of_row(
    row: int,
    rows: int,
    moved: Any,
    yaw: Any,
    mount: NDArray[np.float32],
    focal: Any,
    height: Any,
    source: Any,
    across: NDArray[np.int32],
    down: NDArray[np.int32],
) -> None:
    """Fixed-point source coordinates of one row. `nearness` is 1 / distance ahead of the ground point, 0 above it."""
    columns = len(across)
    slope = (np.float32(row) + np.float32(0.5) - np.float32(rows) / np.float32(2)) / focal
    nearness = max(slope, np.float32(0)) / height
    cos, sin = np.cos(yaw), np.sin(yaw)
    ahead = np.float32(1) + mount[0] * nearness
    # both coordinates of the source ray are linear in the view ray's own left coordinate
    x0 = cos * ahead - sin * mount[1] * nearness + (moved[0] - mount[0]) * nearness
    y0 = sin * ahead + cos * mount[1] * nearness + (moved[1] - mount[1]) * nearness
    middle_x = np.float32(source[1]) / np.float32(2) - np.float32(0.5)
    middle_y = np.float32(source[0]) / np.float32(2) - np.float32(0.5)
    last_x, last_y = np.float32(source[1] - 1), np.float32(source[0] - 1)
    for column in range(columns):
        toward = (np.float32(columns) / np.float32(2) - np.float32(column) - np.float32(0.5)) / focal
        scale = focal / max(x0 - sin * toward, np.float32(1e-3))
        x = middle_x - (y0 + cos * toward) * scale
        y = middle_y + slope * scale
        x = min(max(x, np.float32(0)), last_x)
        y = min(max(y, np.float32(0)), last_y)
        across[column] = np.int32(x * np.float32(STEPS) + np.float32(0.5))
        down[column] = np.int32(y * np.float32(STEPS) + np.float32(0.5))


@njit(cache=True, nogil=True)
def _copy(line_W3: Bytes, red: Bytes, green: Bytes, blue: Bytes) -> None:
    flat = line_W3.reshape(-1)
    for column in range(len(red)):
        red[column], green[column], blue[column] = flat[3 * column], flat[3 * column + 1], flat[3 * column + 2]


@njit(cache=True, nogil=True)
def _gather(
    frame: Bytes, across: NDArray[np.int32], down: NDArray[np.int32], red: Bytes, green: Bytes, blue: Bytes
) -> None:
    """Bilinear samples of three colours: weights of 1/32 by 1/32, rounded half up.

    Places are counted in bytes and without a sign: numba then need not ask whether one is counted from the end.
    """
    flat, line = frame.reshape(-1), np.uint32(3 * frame.shape[1])
    last_row, last_column = np.uint32(frame.shape[0] - 1), np.uint32(frame.shape[1] - 1)
    for column in range(len(across)):
        x, y = np.uint32(across[column]), np.uint32(down[column])
        right, below = x & FINE, y & FINE
        x, y = x >> BITS, y >> BITS
        one = np.uint64(y * line + x * THREE)
        two = one + np.uint64(THREE if x < last_column else NONE)
        step = np.uint64(line if y < last_row else NONE)
        d = right * below
        b, c = (right << BITS) - d, (below << BITS) - d
        a = WHOLE - b - c - d
        red[column] = _mixed(flat, one, two, step, a, b, c, d)
        green[column] = _mixed(flat, one + ONE, two + ONE, step, a, b, c, d)
        blue[column] = _mixed(flat, one + TWO, two + TWO, step, a, b, c, d)


@njit(cache=True, nogil=True, inline="always")
def _mixed(flat: Any, one: Any, two: Any, step: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    above = a * np.uint32(flat[one]) + b * np.uint32(flat[two])
    under = c * np.uint32(flat[one + step]) + d * np.uint32(flat[two + step])
    return (above + under + (WHOLE >> np.uint32(1))) >> np.uint32(2 * SHIFT)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def plant_cameras(
    frames: NDArray[np.uint8],
    index_BT: NDArray[np.int64],
    rotation_BT33: NDArray[np.float32],
    moved_BT2: NDArray[np.float32],
    lens_B4: NDArray[np.float32],
    mirrored_B: NDArray[np.bool_],
    focal: Any,
    height: Any,
    out: NDArray[np.uint8],
) -> None:
    """Fill `out` (B, T, H, W) from grey wide frames (N, wide H, wide W) of a level camera at `height`, as other cameras.

    rotation_BT33: camera axes in the rig; moved_BT2: the camera's x, y from the wide one's (m); lens_B4: height (m), focal
    factor, contrast, brightness.
    """
    rows, columns = out.shape[2], out.shape[3]
    middle_x, middle_y = np.float32(frames.shape[2] / 2 - 0.5), np.float32(frames.shape[1] / 2 - 0.5)
    last_x, last_y = np.float32(frames.shape[2] - 1), np.float32(frames.shape[1] - 1)
    for b in range(out.shape[0]):
        tall, gain, lift = lens_B4[b, 0], lens_B4[b, 2], lens_B4[b, 3]
        lens = focal * lens_B4[b, 1]
        for t in range(out.shape[1]):
            frame, turn = frames[index_BT[b, t]], rotation_BT33[b, t]
            dx, dy = moved_BT2[b, t, 0], moved_BT2[b, t, 1]
            for row in range(rows):
                up = (np.float32(rows) / np.float32(2) - np.float32(row) - np.float32(0.5)) / lens
                for column in range(columns):
                    left = (np.float32(columns) / np.float32(2) - np.float32(column) - np.float32(0.5)) / lens
                    x = turn[0, 0] + turn[0, 1] * left + turn[0, 2] * up
                    y = turn[1, 0] + turn[1, 1] * left + turn[1, 2] * up
                    z = turn[2, 0] + turn[2, 1] * left + turn[2, 2] * up
                    if z < 0:
                        # the ground point, seen from where the wide camera is; lengths in units of 1 / -z
                        x, y = x * tall - dx * z, y * tall - dy * z
                        z *= height
                    scale = focal / max(x, np.float32(1e-3))
                    u = min(max(middle_x - y * scale, np.float32(0)), last_x)
                    v = min(max(middle_y - z * scale, np.float32(0)), last_y)
                    j, i = int(u), int(v)
                    fu, fv = u - np.float32(j), v - np.float32(i)
                    j2, i2 = min(j + 1, frames.shape[2] - 1), min(i + 1, frames.shape[1] - 1)
                    above = frame[i, j] * (np.float32(1) - fu) + frame[i, j2] * fu
                    below = frame[i2, j] * (np.float32(1) - fu) + frame[i2, j2] * fu
                    tone = (
                        (above * (np.float32(1) - fv) + below * fv - np.float32(128)) * gain + lift + np.float32(128.5)
                    )
                    at = columns - 1 - column if mirrored_B[b] else column
                    out[b, t, row, at] = np.uint8(min(max(tone, np.float32(0)), np.float32(255)))
