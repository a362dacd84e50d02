"""Draw docs/images/scenarios.png: one world of every scenario family, from above and through the camera, when it decides.

`python scripts/scenario_sheet.py`: drives the careful driver once per family; takes about two minutes.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from onshore.core.rollout import Rollout
from onshore.region import load_pack
from onshore.world import birdseye_pictures, camera_pictures, run_jobs
from onshore.world.roads import Roads
from onshore.world.scenarios import families
from onshore.world.scenarios.sharing import scripted

PAGE = Path(__file__).parents[1] / "docs" / "images" / "scenarios.png"
REGION, SEED, COLUMNS, TILE_PX = "cn", 3, 6, 300
CAMERA_PX = TILE_PX // 2
#: Families in which nobody has to slow down are shown at this share of the way.
SHARES = {
    "solid_line": 0.85,
    "turn_only_lane": 0.35,
    "variable_direction_lane": 0.4,
    "u_turn_lane": 0.85,
    "curves": 0.55,
}


def main() -> None:
    pack = load_pack(REGION)
    roads = Roads.from_record(REGION, pack.roads)
    jobs = [family.job(roads, SEED, scripted("careful")) for family in families().values()]
    tiles = []
    for (run,) in run_jobs(jobs, workers=2):
        at_s = (moment(run),)
        above = drawn(birdseye_pictures(run, pack, at_s=at_s)[0], TILE_PX)
        tiles.append(np.concatenate([above, drawn(camera_pictures(run, pack, at_s=at_s)[0], CAMERA_PX)], 0))
    while len(tiles) % COLUMNS:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.concatenate(tiles[at : at + COLUMNS], 1) for at in range(0, len(tiles), COLUMNS)]
    cv2.imwrite(str(PAGE), np.concatenate(rows, 0), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def drawn(png: bytes, height_px: int) -> np.ndarray:
    """A picture as wide as a tile."""
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return cv2.resize(picture, (TILE_PX, height_px), interpolation=cv2.INTER_AREA)


def moment(run: Rollout) -> float:
    """When the ego is slowest after it has started, or a given share of the way."""
    times, progress = run.steps["t_s"], run.steps["progress_m"]
    if run.scenario in SHARES:
        return float(times[int(np.argmax(progress >= SHARES[run.scenario] * run.route_length_m))])
    return float(times[20 + int(np.argmin(run.steps["speed_mps"][20:]))])


if __name__ == "__main__":
    main()
