"""One turn of the whole flywheel in the town world: two centers, one border, rounds of local driving. Synthetic, and says so.

Rule: every step is a stage keyed by its inputs, so that a killed run goes on where it stood and a second run makes nothing
new. What is reported is measured on held-out suites that no stage trains or tunes on.

    us center   fleet -> intake -> dataset -> base -> permit of two approvers -> export
    cn center   import -> round 1..N: fleet -> shadow mode -> intake -> dataset + takeovers -> adapt -> drive the suite
                -> gate -> sign -> the car verifies, installs, watches the next fleet in shadow mode
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onshore import border, dataset, evaluation, model, region, release, world
from onshore.core.digest import record_digest, sha256_hex
from onshore.core.errors import RefusedError
from onshore.core.progress import Progress, silent
from onshore.flywheel import ahead, intake, report, vehicle
from onshore.store import Center

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one fleet, training or round costs: cars and their minutes together, steps, and worlds driven on-policy."""

    cars: int
    minutes: float
    steps: int
    worlds: int


@dataclass(frozen=True, kw_only=True)
class DemoPlan:
    """The size of a demo. Figures were tuned on training towns and other seeds than the suites hold."""

    base: Turn
    rounds: tuple[Turn, ...]
    suites: dict[str, str]
    towns: tuple[int, ...] = (1, 2, 4, 5)
    egos: int = 8
    workers: int = 2


FULL = DemoPlan(
    base=Turn(cars=12, minutes=24.0, steps=1500, worlds=0),
    rounds=(
        Turn(cars=6, minutes=6.0, steps=700, worlds=3),
        Turn(cars=12, minutes=12.0, steps=700, worlds=4),
        Turn(cars=20, minutes=20.0, steps=700, worlds=4),
        Turn(cars=24, minutes=24.0, steps=700, worlds=4),
        Turn(cars=28, minutes=28.0, steps=700, worlds=4),
        Turn(cars=32, minutes=32.0, steps=700, worlds=4),
    ),
    suites={"us": "us-core", "cn": "cn-core"},
)
TINY = DemoPlan(
    base=Turn(cars=2, minutes=2.0, steps=60, worlds=0),
    rounds=(Turn(cars=2, minutes=1.0, steps=30, worlds=1),) * 6,
    suites={"us": "us-tiny", "cn": "cn-tiny"},
    towns=(1,),
    egos=2,
)
APPROVERS = ("alice", "bob")
REQUESTER = "carol"
RECIPIENT = "onshore center cn"


def run(
    out: str | Path,
    *,
    rounds: int = 2,
    seed: int = 0,
    tiny: bool = False,
    progress: Progress = silent,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Turn the flywheel in `out` and write report.html and result.json there; returns the result document.

    Errors: UsageError when `out` holds a demo of another seed or size.
    """
    started = time.monotonic()
    demo = _Demo(Path(out).resolve(), TINY if tiny else FULL, rounds, seed, progress, say)
    demo.claim({"seed": seed, "tiny": tiny})
    result = {**demo.turn(), "seed": seed, "tiny": tiny, "seconds": round(time.monotonic() - started, 1)}
    result["report"] = str(demo.out / "report.html")
    page = report.render(result, demo.shots())
    (demo.out / "report.html").write_text(page, encoding="utf8")
    (demo.out / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf8")
    return result


def summary(result: dict[str, Any]) -> list[str]:
    """The result in words, for the command."""
    lines = [
        f"round {row['round']}: {row['cars']} cars, {row['minutes']:.1f} fleet minutes, {row['clips']} clips, "
        f"{row['takeovers']} takeovers, cn driving score {row['score']:.1f} [{row['low']:.0f}, {row['high']:.0f}]"
        for row in result["rounds"]
    ]
    made = sum(stage["fresh"] for stage in result["stages"])
    lines.append(report.verdict(result))
    lines.append(
        f"{made} stages made something new in {result['seconds']:.0f} s"
        if made
        else "nothing new was made: every stage was already there, with the same digests"
    )
    return [*lines, f"report: {result['report']}"]


def prepare_fleet(center_dir: str, folder: str, turn: Turn, number: int, plan: DemoPlan, seed: int) -> None:
    """Record one fleet and take it in; run ahead of time in a child, and again (as a no-op) by the demo itself."""
    center = Center.open(center_dir)
    record_fleet(center, Path(folder), turn, number, plan, seed)
    take_fleet_in(center, Path(folder), plan)


def record_fleet(
    center: Center, folder: Path, turn: Turn, number: int, plan: DemoPlan, seed: int, progress: Progress = silent
) -> tuple[dict[str, Any], bool]:
    """The fleet of one round drives in the training towns; returns the digests of what it recorded."""
    inputs = {"turn": vars(turn), "number": number, "towns": list(plan.towns), "seed": seed, "pack": center.pack.digest}

    def drive_about() -> dict[str, Any]:
        towns = plan.towns[: turn.cars]
        for place, town in enumerate(towns):
            cars = len(range(place, turn.cars, len(towns)))
            world.record_fleet(
                center.pack,
                town_seed=town,
                cars=cars,
                minutes=turn.minutes * cars / turn.cars,
                seed=record_seed(seed, number, town),
                out_dir=folder / f"town-{town}",
                progress=progress,
            )
        return {"files": {str(p.relative_to(folder)): sha256_hex(p.read_bytes()) for p in sorted(folder.rglob("*.mcap"))}}

    return center.stage("demo.fleet", inputs, drive_about)


def record_seed(seed: int, number: int, town: int) -> int:
    """A traffic seed of its own for every fleet and town, far from every suite's."""
    return 100_000 + 1_000 * seed + 20 * number + town


def take_fleet_in(
    center: Center, folder: Path, plan: DemoPlan, progress: Progress = silent
) -> tuple[dict[str, Any], bool]:
    files = {str(p.relative_to(folder)): sha256_hex(p.read_bytes()) for p in sorted(folder.rglob("*.mcap"))}

    def admit() -> dict[str, Any]:
        taken = intake.take_in(center, [folder], workers=plan.workers, progress=progress)
        return {name: taken[name] for name in ("drives", "segments", "frames", "clips", "known")}

    return center.stage("demo.intake", {"files": files}, admit)
