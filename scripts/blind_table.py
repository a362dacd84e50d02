"""Does the camera matter? Train a small model per region, drive every scenario family with it and blind; docs/results/blind.*

`python scripts/blind_table.py --out FOLDER`: about an hour a region on two cores. Every step is a stage of a center in FOLDER, so a killed
run goes on where it stood. The model: a `nano` with a wide and a narrow view of a fleet in training towns, then rounds in
scenario worlds of training seeds, where the careful driver drives every second world and says in all of them what it
would do. Exits 1 when a family that needs eyes is not better with them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from onshore import dataset, world
from onshore.bundle.inputs import View
from onshore.cli.show import Output
from onshore.core.progress import Progress
from onshore.flywheel import intake, judging
from onshore.model import Nano, Recipe, models
from onshore.model.collection import collect
from onshore.store import Center
from onshore.world.scenarios.sharing import weights as shares

PAGE = Path(__file__).parents[1] / "docs" / "results" / "blind"
REGIONS, TOWNS = ("us", "cn"), (1, 2, 4, 5)
#: What a killed run has to drive again.
FAMILIES_AT_ONCE = 8
#: Of every region: fleet minutes, steps of the base; of each round the worlds of every family that are driven, the steps that follow.
MINUTES, BASE_STEPS, ROUNDS = 24.0, 1200, ((12, 1200), (12, 2400), (12, 2400))
#: The wide view, and the middle of it 2.5 times as large: a lamp 30 m away has two pixels there.
NETWORK = Nano(side_views=(View(focal_px=160.0),))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("onshore-eyes"))
    parser.add_argument("--regions", nargs="*", default=REGIONS, help="the others keep what the page tells of them")
    parser.add_argument("--families", nargs="*", help="only these; the page then says which are missing")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    told = (
        json.loads(PAGE.with_suffix(".json").read_text(encoding="utf8")) if PAGE.with_suffix(".json").exists() else []
    )
    found = {document["region"]: document for document in told}
    for region in asked.regions:
        with Output(as_json=False).progress() as progress:
            found[region] = measured(region, asked, progress)
    documents = [found[region] for region in sorted(found, reverse=True)]
    PAGE.with_suffix(".json").write_text(json.dumps(documents, indent=1) + "\n", encoding="utf8")
    PAGE.with_suffix(".md").write_text(page(documents), encoding="utf8")
    return int(any(document["apart"] < document["need_eyes"] for document in documents))


def measured(region: str, asked: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """The table of one region, and what the model learned from."""
    out, workers = asked.out.resolve(), asked.workers
    keys = out / "keys" / region
    center = Center.init(out / f"{region}-center", region, keys_dir=keys, seed=0, in_region_dirs=[out], actor="eyes")
    weights, facts = trained(center, out / "fleet" / region, workers, progress)
    every = list(shares(center.pack))
    parts, names = [], [name for name in every if not asked.families or name in asked.families]
    for first in range(0, len(names), FAMILIES_AT_ONCE):
        some = names[first : first + FAMILIES_AT_ONCE]
        part = judging.blind(center, weights, f"{region}-eyes", families=some, workers=workers, progress=progress)
        print("\n".join(line(row) for row in part["families"]), flush=True)
        parts.append(part)
    sums = {name: sum(part[name] for part in parts) for name in ("apart", "need_eyes")}
    rows = [row for part in parts for row in part["families"]]
    results = [one for part in parts for one in part["results"]]
    missing = [name for name in every if name not in names]
    return {**facts, **parts[0], **sums, "families": rows, "missing": missing, "results": results}


def trained(center: Center, fleet: Path, workers: int, progress: Progress) -> tuple[str, dict[str, Any]]:
    """Weights from the fleet, then from rounds in scenario worlds."""
    fleet.mkdir(parents=True, exist_ok=True)
    for town in TOWNS:
        folder, part = fleet / f"town-{town}", fleet.with_name(f"{fleet.name}-part-{town}")
        if not folder.exists():
            shutil.rmtree(part, ignore_errors=True)
            world.record_fleet(
                center.pack,
                town_seed=town,
                cars=3,
                minutes=MINUTES / len(TOWNS),
                seed=town,
                out_dir=part,
                progress=progress,
                workers=workers,
                first_car=3 * town,
                surround=True,
            )
            part.rename(folder)
    intake.take_in(center, [fleet], workers=workers, progress=progress)
    frozen = freeze(center, "base", [], progress)
    row = models.train(center, frozen, Recipe(name="nano-base", trainable=NETWORK, steps=BASE_STEPS), progress=progress)
    taken: list[str] = []
    for number, (each, steps) in enumerate(ROUNDS):
        found = collect(center, row.id, each=each, seed=number, workers=workers, progress=progress)
        taken.append(found.id)
        frozen = freeze(center, f"round-{number}", taken, progress)
        recipe = Recipe(name="nano-eyes", trainable=NETWORK, steps=steps, seed=number)
        row = models.train(center, frozen, recipe, base=row.id, progress=progress)
    facts = {"base_steps": BASE_STEPS, "rounds": ROUNDS}
    return row.id, {"windows": row.windows, "samples": row.takeovers, **facts}


def freeze(center: Center, name: str, takeovers: list[str], progress: Progress) -> str:
    seen = {"view": NETWORK.view, "side_views": NETWORK.side_views}
    return dataset.freeze(
        center, name, takeovers=takeovers, held_out=0.1, seed=0, split_by="drive", progress=progress, **seen
    ).id


def page(documents: list[dict[str, Any]]) -> str:
    """The page of the results."""
    done = {document["region"] for document in documents}
    rest = [f"Not driven: region {region}." for region in REGIONS if region not in done]
    return "\n".join([HEAD, *(line for document in documents for line in section(document)), *rest]).rstrip() + "\n"


HEAD = """# Does the camera matter? Scenario families driven with open and with shut eyes

Written by `python scripts/blind_table.py`; `onshore evaluation blind --model M --suite cn-eyes` makes the same table for any model of a
center. Synthetic worlds, one ego each, seeds that no training used. *with camera* and *blind* (the same network before a
black camera) count passed worlds, with Wilson's 95 % interval in percent; *difference* is in points, paired by world,
with a 95 % bootstrap interval by world and the two-sided sign-flip p. **apart**: both success intervals, and the paired
one from zero. Needs eyes: success hangs on what the camera alone shows (`needs_eyes` of each family, with the reason).

A black picture is unlike anything the network learned from, and mostly it then stands until time is up. So the table says that the
policy looks, not how far a driver that was taught without a camera would come.
"""


def section(document: dict[str, Any]) -> list[str]:
    rounds = " and ".join(f"{each} worlds of every family and {steps} steps" for each, steps in document["rounds"])
    lines = [
        f"## {document['region']}: apart in {document['apart']} of {document['need_eyes']} families that need eyes",
        "",
        f"`nano`, two views of 128 x 64 (the second 2.5 times as near), {document['base_steps']} steps of 64 on the fleet ({document['windows']} windows), then {rounds} ({document['samples']} samples).",
        "",
        "| family | what only the camera shows | with camera | blind | difference | p | verdict | commonest failure |",
        "|---|---|---|---|---|---|---|---|",
    ]
    missing = [f"Not driven: {', '.join(document['missing'])}.", ""] if document["missing"] else []
    return [*lines, *(line(row) for row in document["families"]), "", *missing]


def line(row: dict[str, Any]) -> str:
    cells = [row["family"], row["eyes"]]
    for name in ("seeing", "blind"):
        cells.append(f"{row[name]} of {row['worlds']} [{row[f'{name}_low']:.0f}, {row[f'{name}_high']:.0f}]")
    paired = f"{row['difference']:+.0f} [{row['low']:+.0f}, {row['high']:+.0f}]" if "difference" in row else "—"
    verdict = f"**{row['verdict']}**" if row["verdict"] == "not apart" else row["verdict"]
    cells += [paired, f"{row['p']:.2g}" if "p" in row else "—", verdict, row["commonest"]]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
