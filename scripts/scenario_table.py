"""Drive every scenario family of every region with the driver who passes and the one who fails; write docs/results/scenarios.md.

`python scripts/scenario_table.py [--seeds 20]`: takes about a second per world on one core, no camera. Exits 1 when a driver
behaves other than stated in more than one world of twenty.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from onshore.cli.show import Output
from onshore.core.rollout import Rollout
from onshore.region import load_pack, regions
from onshore.world import run_jobs
from onshore.world.roads import Roads
from onshore.world.scenarios import Verdict, families
from onshore.world.scenarios.sharing import scripted, weights

PAGE = Path(__file__).parents[1] / "docs" / "results" / "scenarios.md"
FIRST_SEED = 1
ALLOWED = 0.05

HEAD = """# Scenario families: do they tell a careful driver from a careless one?

Written by `python scripts/scenario_table.py --seeds {seeds}`. Synthetic worlds, one ego each, seeds {first} to {last}. *careful passes* and
*careless fails* count worlds in which the privileged scripted driver behaved as the family states; success is read from the
rollout alone. *2025* marks what foreign systems were fined or criticised for in China in 2025.

"""
FINED_2025 = {
    "bus_lane_by_hour": "bus lanes by hour",
    "non_motor_lane": "non-motor lanes",
    "solid_line": "solid lines",
    "turn_only_lane": "straight from a turn lane",
    "temporary_light": "temporary lights",
    "ground_light": "ground-mounted lights",
    "e_bike_filtering": "e-bikes",
    "wrong_way_e_bike": "e-bikes",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--regions", nargs="*", help="only these; the page is then printed, not written")
    asked = parser.parse_args()
    lines, wrong = [HEAD.format(seeds=asked.seeds, first=FIRST_SEED, last=FIRST_SEED + asked.seeds - 1)], 0
    for region in asked.regions or [name for name in regions() if weights(load_pack(name))]:
        lines.append(
            f"## {region}\n\n| family | 2025 | careful passes | careless fails | why it fails |\n|---|---|---|---|---|\n"
        )
        for name, row in measured(region, asked.seeds, asked.workers).items():
            lines.append(row[0])
            wrong += row[1] > ALLOWED * asked.seeds
            print(name, row[0].strip(), file=sys.stderr)
        lines.append("\n")
    page = "".join(lines).rstrip() + "\n"
    if asked.regions:
        print(page)
    else:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page, encoding="utf8")
    return 1 if wrong else 0


def measured(region: str, seeds: int, workers: int) -> dict[str, tuple[str, int]]:
    """family -> (its line, the larger number of worlds that went other than stated)."""
    pack = load_pack(region)
    roads = Roads.from_record(region, pack.roads)
    names = list(weights(pack))
    jobs = [
        families()[name].job(roads, FIRST_SEED + k, scripted(manner))  # type: ignore[arg-type]
        for name in names
        for k in range(seeds)
        for manner in ("careful", "careless")
    ]
    with Output(as_json=False).progress() as progress:
        runs = [run[0] for run in run_jobs(jobs, workers=workers, progress=progress)]
    rows = {}
    for index, name in enumerate(names):
        mine = runs[index * 2 * seeds : (index + 1) * 2 * seeds]
        rows[name] = _line(name, _verdicts(name, mine[0::2]), _verdicts(name, mine[1::2]))
    return rows


def _verdicts(name: str, runs: list[Rollout]) -> list[Verdict]:
    return [families()[name].verdict(run) for run in runs]


def _line(name: str, careful: list[Verdict], careless: list[Verdict]) -> tuple[str, int]:
    passed = sum(verdict.passed is True for verdict in careful)
    failed = sum(verdict.passed is False for verdict in careless)
    whys = sorted({verdict.why.split(" with")[0].split(" m/s2")[-1].strip() for verdict in careless if verdict.why})
    worst = max(len(careful) - passed, len(careless) - failed)
    cells = (
        name,
        FINED_2025.get(name, ""),
        f"{passed} of {len(careful)}",
        f"{failed} of {len(careless)}",
        ", ".join(whys),
    )
    return f"| {' | '.join(cells)} |\n", worst


if __name__ == "__main__":
    raise SystemExit(main())
