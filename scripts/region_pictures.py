"""Draws docs/images/region-<name>.jpg (twelve camera views) and docs/images/birdseye-<name>.gif (one drive from above).

    python scripts/region_pictures.py [us cn eu]

Every picture says that it is synthetic. The same packs give the same pictures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from onshore.region import load_pack, regions
from onshore.world import PolicySpec, RolloutJob, birdseye, contact_sheet, run_jobs

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    for region in sys.argv[1:] or regions():
        pack = load_pack(region)
        IMAGES.mkdir(exist_ok=True)
        (IMAGES / f"region-{region}.jpg").write_bytes(contact_sheet(pack, town_seed=3))
        policy = PolicySpec(kind="expert")
        job = RolloutJob(
            region=region,
            suite="pictures",
            town_seed=3,
            traffic_seed=12,
            policy=policy,
            egos=4,
            route_m=180.0,
            max_time_s=45.0,
        )
        (rollouts,) = run_jobs([job], workers=1)
        longest = max(rollouts, key=lambda rollout: rollout.steps["progress_m"][-1])
        (IMAGES / f"birdseye-{region}.gif").write_bytes(birdseye(longest, pack, every_s=1.0, encoding="gif"))


if __name__ == "__main__":
    main()
