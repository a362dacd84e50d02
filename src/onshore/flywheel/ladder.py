"""Does local data make it drive better, and which data? Rows of one experiment, each trained for the same number of steps.

Rule: every row starts from the same base of its training seed, learns for the same number of steps, and drives towns that
nothing was designed on. A row is a file of figures made from stages keyed by their inputs: a killed run goes on where it
stood, rows can be asked for one by one, and several processes share them out by locks. Everything is synthetic and says so.

    us center   fleet -> base of each seed (logs, then two on-policy rounds) -> leaves with a permit
    cn centers  one for each fleet size, one without a fleet: the base comes in -> logs, or logs and rounds of supervised
                driving in which the fleet's kilometres earn takeovers -> adapted weights -> the cn suite, and home's
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from onshore import border, dataset, drive, world
from onshore.bundle.inputs import View
from onshore.clip import find
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError, OnshoreError, UsageError
from onshore.core.progress import Progress, silent
from onshore.evaluation.closedloop import drive_jobs
from onshore.evaluation.selection import choose
from onshore.flywheel import demo, intake, ladder_page
from onshore.flywheel.demo import DemoPlan, Turn
from onshore.model import Nano, Recipe, inverse, models
from onshore.model.adaptation import Distilled, Frozen, LowRank, average
from onshore.model.collection import Fleet, collect, supervise
from onshore.model.ranks import ALONE
from onshore.model.trainable import Adaptation
from onshore.region import RegionPack, load_pack
from onshore.store import Center
from onshore.store.files import write_durably
from onshore.world.jobs import RolloutJob, Supervision
from onshore.world.looks import IDENTIFIABLE, LOOKS, REDACTED
from onshore.world.public import record_public
from onshore.world.randomised import randomised

LOG = logging.getLogger(__name__)
Say = Callable[[str], None]
Kind = Literal[
    "base",
    "public",
    "simulation",
    "fleet",
    "fleet+on-policy",
    "fleet+teacher",
    "scratch",
    "expert",
    "stop",
    "constant-speed",
    "blind",
]
#: Validation worlds: training towns with traffic that neither fleets nor collecting use.
VALIDATION_SEED = 330
SHARES = (0.4, 0.6, 0.8)
WAYS: dict[str, Adaptation] = {"frozen": Frozen(), "low_rank": LowRank(), "distilled": Distilled()}
LONGEST_DRIVE_MIN = 2.5
#: Fleet minutes and cars of the full ladder.
LEVELS, FLEETS = (5.0, 20.0, 60.0, 160.0), (2, 8, 32)
#: The share of the minutes that a selection may take.
SELECTED = 0.25
#: Points that home may lose.
HOME_MARGIN = 10.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One rung. cars, minutes: of the fleet; rounds: on-policy rounds that share the steps; way: how the base is adapted.

    like: for `fleet+teacher`, the row whose numbers of takeovers it copies; for way "averaged", the row that it averages.
    select: learn from a quarter of the minutes, chosen as `evaluation.selection` does, by what the base makes of them. home: it
    also drives the home suite. each_round: every round drives the suite. long: it takes the plan's `long` times the steps.
    look: the fleet films like that; such a row drives where plates and faces are to be seen, whatever it learned from.
    """

    name: str
    kind: Kind
    cars: int = 0
    minutes: float = 0.0
    rounds: int = 0
    way: Literal["full", "frozen", "low_rank", "distilled", "averaged"] = "full"
    like: str = ""
    select: str = ""
    home: bool = False
    each_round: bool = False
    long: bool = False
    look: str = ""


def _fleet(cars: int, minutes: float, rounds: int = 0, **more: Any) -> Row:
    kind: Kind = "fleet+on-policy" if rounds else "fleet"
    return Row(name=fleet_name(cars, minutes, rounds > 0), kind=kind, cars=cars, minutes=minutes, rounds=rounds, **more)


def fleet_name(cars: int, minutes: float, on_policy: bool) -> str:
    return f"fleet-{cars}x{minutes:g}" + ("-on" if on_policy else "")


def rows_of(levels: Sequence[float], cars: Sequence[int], rounds: int) -> tuple[Row, ...]:
    """Every row, what answers most first. levels: fleet minutes, rising. cars: fleet sizes, the middle one in every row."""
    few, some, many = cars
    _, second, third, last = levels
    on = {"rounds": rounds}
    ways = [
        replace(
            _fleet(some, third, **on, home=True),
            name=f"{way.replace('_', '-')}-{some}x{third:g}-on",
            way=way,
            like=fleet_name(some, third, True),
        )
        for way in ("distilled", "averaged", "low_rank", "frozen")
    ]
    long = _long(_fleet(some, third, 2 * rounds))
    averaged = replace(long, name=f"averaged-{long.name}", way="averaged", like=long.name)
    ordered = [
        Row(name="expert", kind="expert", home=True),
        Row(name="base", kind="base", home=True),
        _fleet(some, second),
        _fleet(some, second, **on, home=True, each_round=True),
        _fleet(some, levels[0]),
        _fleet(some, third),
        _fleet(some, third, **on, home=True),
        _fleet(few, second, **on),
        _fleet(many, second, **on),
        Row(
            name=f"teacher-{some}x{second:g}",
            kind="fleet+teacher",
            cars=some,
            minutes=second,
            rounds=rounds,
            like=fleet_name(some, second, True),
        ),
        Row(name="simulation", kind="simulation"),
        Row(name="public", kind="public"),
        *ways[:2],
        _fleet(some, last),
        _fleet(some, last, **on, home=True),
        Row(name=f"scratch-{some}x{last:g}", kind="scratch", cars=some, minutes=last),
        *ways[2:],
        _fleet(some, levels[0], **on),
        *(
            Row(name=f"{how}-of-{some}x{third:g}", kind="fleet", cars=some, minutes=third, select=how)
            for how in ("random", "disagreement", "novelty", "triggers")
        ),
        *(
            Row(name=f"{look}-{some}x{second:g}", kind="fleet", cars=some, minutes=second, look=look)
            for look in (IDENTIFIABLE.name, REDACTED.name)
        ),
        Row(name="stop", kind="stop", home=True),
        Row(name="constant-speed", kind="constant-speed", home=True),
        Row(name="blind", kind="blind"),
        *(_fleet(c, m, **r) for c in (few, many) for m in levels for r in ({}, on)),
        *(_long(_fleet(some, third)), long, averaged),
        *(_long(_fleet(many, last)), _long(_fleet(many, last, 2 * rounds))),
    ]
    return tuple({row.name: row for row in ordered}.values())


def _long(row: Row) -> Row:
    """The same with more steps and, if it has any, more rounds."""
    return replace(row, name=row.name.replace("fleet", "long", 1), home=True, long=True)


@dataclass(frozen=True, kw_only=True)
class LadderPlan:
    """The size of the experiment. `demo` holds what recording a fleet and taking it in needs; steps: of every row.

    km_per_car: driven under supervision by each car in a round. sim_minutes: of simulated driving on `sim_towns`, which
    no fleet has. public_videos: of public_seconds in each town, read by inverse dynamics of inverse_steps. long: times the steps that long rows take.
    last_rate: the last round's learning rate as a share of the first one's; from round to round it falls evenly. page: name of the files.
    """

    demo: DemoPlan
    rows: tuple[Row, ...]
    suites: dict[str, str]
    levels: tuple[float, ...] = LEVELS
    steps: int = 1600
    long: int = 3
    last_rate: float = 1.0
    page: str = "ladder"
    base_rounds: int = 2
    km_per_car: float = 1.0
    supervision: Supervision = field(default_factory=Supervision)
    sim_minutes: float = 32.0
    sim_towns: tuple[int, ...] = (101, 102, 103, 104, 105, 106, 107, 108)
    public_videos: int = 4
    public_seconds: float = 60.0
    inverse_steps: int = 1500
    validation: tuple[int, int] = (3, 4)


FULL = LadderPlan(
    demo=replace(
        demo.FULL,
        base=Turn(cars=24, minutes=48.0, steps=1800, worlds=4),
        base_again_steps=900,
        towns=(1, 2, 4, 5, 6, 8, 9, 10),
        workers=1,
    ),
    rows=rows_of(LEVELS, FLEETS, 4),
    suites={"us": "us-ladder", "cn": "cn-ladder"},
)
_FEW = frozenset(
    ("expert", "base", "fleet-8x20", "fleet-8x60", "fleet-8x60-on", "averaged-8x60-on")
    + ("long-8x60", "long-8x60-on", "averaged-long-8x60-on")
)


def _seeing(name: str, *side_views: View, rounds: int = 4, km_per_car: float = 1.0) -> LadderPlan:
    """Few rows with more views in fleet and network, in towns of their own; rounds share one falling learning rate.

    In float32: its convolutions are too small for a GPU to gain by bfloat16 (1.7 times as fast without, on an H200).
    """
    network, demo = Nano(side_views=side_views), FULL.demo
    return replace(
        FULL,
        demo=replace(
            demo,
            surround=True,
            base_recipe=replace(demo.base_recipe, trainable=network, bf16=False),
            adapt_recipe=replace(demo.adapt_recipe, trainable=network, bf16=False),
        ),
        rows=tuple(
            replace(row, each_round=row.long and row.rounds > 0 and row.way == "full")
            for row in rows_of(LEVELS, FLEETS, rounds)
            if row.name in _FEW
        ),
        suites={region: f"{region}-{name}" for region in FULL.suites},
        last_rate=0.25,
        km_per_car=km_per_car,
        page=f"ladder-{name}",
    )


#: Ahead and narrow: it shows lamps from afar. To both sides: it shows who comes up beside a car that turns.
_NARROW, _SIDES = View(focal_px=160.0), (View(focal_px=80.0, yaw_rad=1.2), View(focal_px=80.0, yaw_rad=-1.2))
#: By the number of views.
#: With four, fewer rounds of more kilometres each: reading and writing what four views saw takes most of a round.
PLANS = {
    1: FULL,
    2: _seeing("two-views", _NARROW),
    4: _seeing("four-views", _NARROW, *_SIDES, rounds=2, km_per_car=2.0),
}
TINY = LadderPlan(
    demo=replace(demo.TINY, workers=1, base=replace(demo.TINY.base, cars=1, minutes=0.5, worlds=1), base_again_steps=8),
    rows=rows_of((0.25, 0.5, 0.75, 1.0), (1, 2, 3), 2),
    suites={"us": "us-tiny", "cn": "cn-tiny"},
    levels=(0.25, 0.5, 0.75, 1.0),
    steps=16,
    long=1,
    base_rounds=1,
    sim_minutes=0.25,
    sim_towns=(101,),
    validation=(1, 1),
)


def run(
    out: str | Path,
    results: str | Path,
    *,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    budget_minutes: float | None = None,
    workers: int = 1,
    plan: LadderPlan = FULL,
    progress: Progress = silent,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Make the rows that are asked for (all of them, unless named) for each seed, and write the page; returns its document.

    Seeds come one after the other, rows in their own order. A row that another process works on is left to it. After
    budget_minutes no further row begins. workers: processes for worlds, recording and intake; they change nothing but the
    time. Errors: UsageError for an unknown row or a folder of another size.
    """
    names = list(rows) or [row.name for row in plan.rows]
    unknown = sorted(set(names) - {row.name for row in plan.rows})
    if unknown:
        raise UsageError(f"--rows {unknown[0]}", f"choose of {', '.join(row.name for row in plan.rows)}.")
    until = None if budget_minutes is None else time.monotonic() + 60 * budget_minutes
    ladder = Ladder(Path(out).resolve(), Path(results).resolve(), plan, progress, say, workers)
    ladder.claim()
    for seed in seeds:
        for row in plan.rows:
            if row.name in names and (until is None or time.monotonic() < until):
                ladder.make(row, seed)
    return ladder.publish()


class Ladder:
    """The experiment in one folder: its centers, the rows that are there, and how a row is made."""

    def __init__(
        self, out: Path, results: Path, plan: LadderPlan, progress: Progress, say: Say, workers: int = 1
    ) -> None:
        self.out, self.results, self.progress, self.say, self.workers = out, results, progress, say, workers
        self.plan = replace(plan, demo=replace(plan.demo, workers=workers))
        self.by_name = {row.name: row for row in plan.rows}
        self.packs = {region: load_pack(region) for region in plan.suites}

    def claim(self) -> None:
        """Take the folder for a plan, or refuse one that holds another plan's rows."""
        self.out.mkdir(parents=True, exist_ok=True)
        claim, facts = self.out / "ladder-plan.json", json.dumps(plan_record(self.plan), sort_keys=True)
        with self._alone("claim"):
            if claim.exists() and claim.read_text() != facts:
                raise UsageError(f"--out {self.out}", "it holds a ladder of another plan; choose another folder.")
            write_durably(claim, facts.encode(), scratch=self.out)

    def make(self, row: Row, seed: int) -> dict[str, Any] | None:
        """One row of one seed: its record, made now if need be; None when another process makes it or nothing can."""
        seed = 0 if row.kind in ("expert", "stop", "constant-speed") else seed
        with self._alone(f"{row.name}-{seed}", wait=False) as mine:
            if not mine:
                self.say(f"{row.name}, seed {seed}: another process makes it")
                return None
            record = self._record(row.name, seed)
            if record is not None and not self._unseen_rounds(row, record):
                return record
            try:
                if record is None:
                    began = time.monotonic()
                    record = {**self._make(row, seed), "name": row.name, "seed": seed, "device": ALONE.title}
                    record["seconds"] = round(time.monotonic() - began, 1)
                    self._keep(record)
                    self.say(f"{row.name}, seed {seed}: {score_of(record):.1f} in {record['seconds']:.0f} s")
                self._look_back(row, record)
            except (OnshoreError, OSError) as problem:  # one row's trouble is told, and the other rows go on
                LOG.exception("row %s of seed %s was not made", row.name, seed)
                self.say(f"{row.name}, seed {seed}: not made: {problem}")
                return record
        self.publish()
        return record

    def _keep(self, record: dict[str, Any]) -> None:
        path = self.out / "rows" / f"{record['name']}-{record['seed']}.json"
        path.parent.mkdir(exist_ok=True)
        write_durably(path, json.dumps(record).encode(), scratch=self.out)

    def _unseen_rounds(self, row: Row, record: dict[str, Any]) -> list[dict[str, Any]]:
        """The earlier rounds whose network is still to drive the suite."""
        earlier = record.get("rounds", [])[:-1] if row.each_round else []
        return [one for one in earlier if not {"routes", "rates"} <= set(one)]

    def _look_back(self, row: Row, record: dict[str, Any]) -> None:
        """Let the network of every earlier round drive the suite, once the row itself is kept."""
        center = self._center("cn", row.cars, row.look)
        for one in self._unseen_rounds(row, record):
            driven = self._driven(center, "cn", models.policy_spec(center, one["weights"]))
            one |= {"routes": driven["routes"], "rates": driven["rates"]}
            self._keep(record)

    def publish(self) -> dict[str, Any]:
        """Write document, page, plots and the records themselves: those of this folder, and those that the page had of
        the same plan from folders that are gone."""
        with self._alone("publish"):
            kept = self.results / f"{self.plan.page}-rows.json"
            found = _kept(kept, plan_record(self.plan))
            for path in sorted((self.out / "rows").glob("*.json")):
                record = json.loads(path.read_text())
                found[record["name"], record["seed"]] = record
            records = [found[key] for key in sorted(found)]
            document = ladder_page.document([asdict(row) for row in self.plan.rows], records, self._settings())
            files = ladder_page.files(document, self.plan.page)
            lines = ",\n".join(json.dumps(record) for record in records)
            plan = json.dumps(plan_record(self.plan), sort_keys=True)
            files[kept.name] = f'{{"plan": {plan},\n"rows": [\n{lines}\n]}}\n'.encode()
            border.write_out(self._center("us", 0), files, self.results)
        return document

    def _settings(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "suites": plan.suites,
            "steps": plan.steps,
            "levels": list(plan.levels),
            "km_per_car": plan.km_per_car,
            "supervision": asdict(plan.supervision),
            "sim_minutes": plan.sim_minutes,
            "home_margin": HOME_MARGIN,
            "views": 1 + len(plan.demo.base_recipe.trainable.side_views),
            "last_rate": plan.last_rate,
        }

    # -- a row -----------------------------------------------------------------------------------------------------------

    def _make(self, row: Row, seed: int) -> dict[str, Any]:
        if row.kind in ("expert", "stop", "constant-speed"):
            return self._judged(self._center("cn", 0), row, world.PolicySpec(kind=row.kind, name=row.kind))
        center = self._center("cn", row.cars, row.look)
        drives = self._drives(center, row)
        base = self._base(center, seed)
        if row.kind == "blind":
            return self._judged(center, row, replace(models.policy_spec(center, base), blind=True))
        if row.kind == "base":
            return self._judged(center, row, models.policy_spec(center, base))
        if row.way == "averaged":
            return self._averaged(center, row, seed, base)
        if row.kind == "public":
            return self._public(center, row, seed, base)
        if row.rounds:
            return self._in_rounds(center, row, seed, base, drives)
        clips = self._selected(center, row, drives, base, seed) if row.select else ()
        frozen = self._freeze(center, f"{row.name}-{seed}", drives, [], clips=clips)
        fresh = row.kind == "scratch"
        recipe = self._recipe(seed, 0, self._steps(row), fresh=fresh)
        start = None if fresh else base
        weights = models.train(center, frozen, recipe, base=start, progress=self.progress).id
        return self._judged(center, row, models.policy_spec(center, weights), weights=weights)

    def _in_rounds(self, center: Center, row: Row, seed: int, base: str, drives: list[str]) -> dict[str, Any]:
        """Supervised driving and learning in turns; all rounds together take the steps of one row."""
        steps = self._steps(row) // row.rounds
        weights, takeovers, rounds = base, list[str](), list[dict[str, Any]]()
        for number in range(1, row.rounds + 1):
            made = self._takeovers(center, row, seed, number, weights)
            takeovers += [made["id"]] if made["id"] else []
            frozen = self._freeze(center, f"{row.name}-{seed}-{number}", drives, takeovers)
            recipe = replace(self._recipe(seed, number, steps), adapt=WAYS.get(row.way))
            fallen = (1 - self.plan.last_rate) * (number - 1) / max(1, row.rounds - 1)
            recipe = replace(recipe, learning_rate=recipe.learning_rate * (1 - fallen))
            weights = models.train(center, frozen, recipe, base=weights, progress=self.progress).id
            rounds.append({**made, "round": number, "weights": weights})
        judged = self._judged(center, row, models.policy_spec(center, weights), weights=weights)
        return {**judged, "rounds": rounds}

    def _takeovers(self, center: Center, row: Row, seed: int, number: int, weights: str) -> dict[str, Any]:
        """What the fleet's kilometres earn in a round; for the teacher row as many, but never where the model errs."""
        how, most = self.plan.supervision, None
        if row.kind == "fleet+teacher":
            how, most = replace(how, when="always"), self._like(row, seed)["rounds"][number - 1]["samples"]
            if not most:
                return {"id": "", "samples": 0, "takeovers": 0, "km": 0.0}
        fleet = Fleet(cars=row.cars, km_per_car=self.plan.km_per_car)
        try:
            found = supervise(
                center,
                weights,
                fleet,
                how,
                seed=100 * seed + number,
                most_samples=most,
                workers=self.workers,
                progress=self.progress,
            )
        except InputError as problem:
            if problem.code != "empty_input":
                raise
            return {"id": "", "samples": 0, "takeovers": 0, "km": fleet.km}  # nobody had to take the wheel
        return {"id": found.id, "samples": found.samples, "takeovers": found.takeovers, "km": found.km}

    def _like(self, row: Row, seed: int) -> dict[str, Any]:
        """The record of the row that this one refers to, made first if need be."""
        found = self._record(row.like, seed) or self.make(self.by_name[row.like], seed)
        if found is None:
            raise OnshoreError("not_measurable", row.name, f"it needs row {row.like}, which is not there yet.")
        return found

    def _averaged(self, center: Center, row: Row, seed: int, base: str) -> dict[str, Any]:
        """Between base and adaptation: the share that drives best here among those that keep home on validation worlds."""
        adapted = self._like(row, seed)["weights"]
        home = self._validated(center, "us", base)
        tried: list[dict[str, Any]] = []
        for share in SHARES:
            weights = average(center, base, adapted, share)
            here, there = (self._validated(center, region, weights) for region in ("cn", "us"))
            tried.append({"share": share, "weights": weights, "cn": here, "us": there})
        keeping = [one for one in tried if one["us"] >= home - HOME_MARGIN]
        best = max(keeping, key=lambda one: one["cn"]) if keeping else max(tried, key=lambda one: one["us"])
        judged = self._judged(center, row, models.policy_spec(center, best["weights"]), weights=best["weights"])
        return {**judged, "share": best["share"], "validation": {"home_of_base": home, "tried": tried}}

    def _validated(self, center: Center, region: str, weights: str) -> float:
        worlds, egos = self.plan.validation
        policy = models.policy_spec(center, weights)
        jobs = world.training_jobs(self.packs[region], policy, worlds=worlds, egos=egos, seed=VALIDATION_SEED)
        jobs = [replace(job, collect=False, suite="validation") for job in jobs]
        return drive_jobs(
            center, jobs, policy, f"{region}-validation", workers=self.workers, progress=self.progress
        ).score.mean

    def _public(self, center: Center, row: Row, seed: int, base: str) -> dict[str, Any]:
        """What strangers filmed here teaches the base at home, by pseudo-labels; then it comes in as the base did.

        It learns from that beside what the base had learned from: in videos neither command nor distance to the junction is
        known, and a network that saw nothing else would forget what to do with them.
        """
        with self._alone(f"base-of-{seed}"):
            us = self._center("us", 0)
            at_home, own, takeovers = self._base_at_home(us, seed)
        with self._alone("public"):
            labels = self._pseudo_labels(us)
        if not labels.ids:
            raise OnshoreError(
                "not_measurable", row.name, f"all {labels.rejected} moments were too uncertain to label."
            )
        public = sorted({clip["drive"] for clip in self._clips_of(us, labels.ids)})
        frozen = self._freeze(us, f"{row.name}-{seed}", own + public, takeovers, pseudo_labels=labels.ids)
        recipe = self._recipe(seed, 0, self.plan.steps)
        weights = models.train(us, frozen, recipe, base=at_home, progress=self.progress).id
        brought = self._brought(center, us, weights)
        facts = {"kept": labels.kept, "rejected": labels.rejected, "seconds_kept": labels.seconds}
        judged = self._judged(center, row, models.policy_spec(center, brought), weights=brought)
        return {**judged, "public": facts}

    def _clips_of(self, center: Center, labels: Sequence[str]) -> list[dict[str, Any]]:
        """The clips of the segments that were labelled."""
        segments = {center.artifact(one).meta["segment"] for one in labels}
        return [clip for clip in find(center, None, limit=None) if clip["segment"] in segments]

    def _pseudo_labels(self, us: Center) -> inverse.PseudoRow:
        """Inverse dynamics learned from the home fleet and from simulated cn towns reads the motion of videos of cn streets.

        What paint and streets look like is a scale: taught at home alone it takes these streets' 12 m/s for 7 (docs/LOG.md).
        """
        plan, folder = self.plan, self.out / "fleet" / "public"
        self._record_and_take_in(us, self.packs["us"], [plan.demo.base], "us")
        self._simulated(us)
        signalled = [row["id"] for row in drive.drives(us) if not row["public"]]
        inputs = {"towns": list(plan.demo.towns), "seconds": plan.public_seconds, "pack": self.packs["cn"].digest}

        def film() -> dict[str, Any]:
            for town in plan.demo.towns:
                record_public(
                    self.packs["cn"],
                    town_seed=town,
                    videos=plan.public_videos,
                    seconds=plan.public_seconds,
                    seed=town,
                    out_dir=folder / f"town-{town}",
                    workers=self.workers,
                    progress=self.progress,
                )
            return {"files": sorted(path.name for path in folder.rglob("*.mcap"))}

        us.stage("ladder.filmed", inputs, film)
        us.stage(
            "ladder.public",
            inputs,
            lambda: _plain(intake.take_in(us, [folder], public=True, workers=self.workers, progress=self.progress)),
        )
        taught = self._freeze(us, "us-own-and-simulated", signalled, [], held_out=0.25)
        recipe = inverse.inverse_recipe(steps=plan.inverse_steps)
        reader = inverse.train_inverse(us, taught, recipe, progress=self.progress)
        # no stage of ours around it: what a stage reads is a parent of all that it makes, and labels of one video know no other
        return inverse.pseudo_label(us, reader.id, progress=self.progress)

    def _judged(self, center: Center, row: Row, policy: world.PolicySpec, weights: str = "") -> dict[str, Any]:
        """Drive the region's suite, and home's where the row says so."""
        return {
            "weights": weights,
            "center": center.root.name,
            "cn": self._driven(center, "cn", policy, look=IDENTIFIABLE.name if row.look else "day"),
            "us": self._driven(center, "us", policy) if row.home else None,
        }

    def _driven(self, center: Center, region: str, policy: world.PolicySpec, look: str = "day") -> dict[str, Any]:
        """A suite of any region, driven in a cn center: its towns are public knowledge and its weights need not leave."""
        name = self.plan.suites[region]
        jobs: list[RolloutJob] = [replace(job, look=look) for job in world.suite(self.packs[region], name, policy)]
        found = drive_jobs(center, jobs, policy, name, workers=self.workers, progress=self.progress)
        routes = [[route.world, route.ego, round(route.score, 6)] for route in found.routes]
        return {"suite": name, "evaluation": found.id, "routes": routes, "rates": found.rates}

    # -- what rows share -------------------------------------------------------------------------------------------------

    def _base(self, center: Center, seed: int) -> str:
        """The base of a seed, trained at home, permitted to leave, imported here."""
        with self._alone(f"base-of-{seed}"):
            us = self._center("us", 0)
            return self._brought(center, us, self._base_at_home(us, seed)[0])

    def _brought(self, center: Center, us: Center, weights: str) -> str:
        """Weights from home, through both gates."""
        left, _ = demo.leave_with_permit(us, weights, self.out / "border")
        file = self.out / "border" / left["file"]
        inputs = {"file": sha256_hex(file.read_bytes())}
        outputs, _ = center.stage("ladder.import", inputs, lambda: {"id": border.import_file(center, file).id})
        return str(outputs["id"])

    def _base_at_home(self, us: Center, seed: int) -> tuple[str, list[str], list[str]]:
        """The base of a training seed, and the drives and takeovers that it learned from."""
        plan = self.plan.demo
        drives = self._record_and_take_in(us, self.packs["us"], [plan.base], "us")
        frozen = self._freeze(us, "us-base", drives, [])
        recipe = replace(plan.base_recipe, steps=plan.base.steps, seed=1000 * seed)
        weights = models.train(us, frozen, recipe, progress=self.progress).id
        taken: list[str] = []
        for number in range(self.plan.base_rounds):
            worlds, egos = plan.base.worlds, plan.egos
            found = collect(
                us,
                weights,
                worlds=worlds,
                egos=egos,
                seed=10 * seed + number,
                workers=self.workers,
                progress=self.progress,
            )
            taken.append(found.id)
            frozen = self._freeze(us, f"us-base-{seed}-{number}", drives, taken)
            recipe = replace(plan.adapt_recipe, steps=plan.base_again_steps, seed=1000 * seed + number)
            weights = models.train(us, frozen, recipe, base=weights, progress=self.progress).id
        return weights, drives, taken

    def _drives(self, center: Center, row: Row) -> list[str]:
        """What a row learns from, before any base is there."""
        if row.kind == "simulation":
            return self._simulated(center)
        return self._fleet_drives(center, row) if row.cars else []

    def _fleet_drives(self, center: Center, row: Row) -> list[str]:
        """The drives of a fleet's first `minutes`: five minutes are the beginning of twenty, and so on."""
        turns = [turn for turn, reached in sessions(row.cars, self.plan.levels) if reached <= row.minutes]
        name = f"cn-{row.cars}" + (f"-{row.look}" if row.look else "")
        return self._record_and_take_in(center, center.pack, turns, name, row.look or "day")

    def _record_and_take_in(
        self, center: Center, pack: RegionPack, turns: Sequence[Turn], name: str, look: str = "day"
    ) -> list[str]:
        drives: list[str] = []
        with self._alone(f"fleet-{name}"):
            for number, turn in enumerate(turns, 1):
                folder = self.out / "fleet" / name / str(number)
                turning = (turn, 10 * turn.cars + number, self.plan.demo, 0)
                recorded, _ = demo.record_fleet(center, folder, *turning, self.progress, look)
                taken, fresh = demo.take_fleet_in(
                    center, folder, recorded["files"], drives, self.plan.demo, self.progress
                )
                drives += taken["drives"]
                if fresh:
                    self.say(f"fleet {name}: {turn.minutes:g} minutes more, {len(drives)} drives")
        return drives

    def _selected(self, center: Center, row: Row, drives: list[str], base: str, seed: int) -> list[str]:
        """A quarter of the minutes, clip by clip."""
        pool = self._freeze(center, f"pool-{row.cars}x{row.minutes:g}", drives, [])
        return choose(center, pool, row.select, SELECTED * row.minutes, model=base, seed=seed, progress=self.progress)

    def _simulated(self, center: Center) -> list[str]:
        """Drives of cn towns drawn from public knowledge: other towns, random looks, random traffic; no fleet clip."""
        folder = self.out / "fleet" / "simulated"
        towns, pack = self.plan.sim_towns, self.packs["cn"]
        inputs = {"towns": list(towns), "minutes": self.plan.sim_minutes, "pack": pack.digest}

        def drive_about() -> dict[str, Any]:
            for index, town in enumerate(towns):
                world.record_fleet(
                    randomised(pack, town),
                    town_seed=town,
                    cars=4,
                    minutes=self.plan.sim_minutes / len(towns),
                    seed=town,
                    out_dir=folder / f"town-{town}",
                    progress=self.progress,
                    workers=self.workers,
                    first_car=1 + 4 * index,
                    look=list(LOOKS)[index % len(LOOKS)],
                    surround=self.plan.demo.surround,
                )
            return {"files": demo.digests_of(folder)}

        with self._alone("simulated"):
            recorded, _ = center.stage("ladder.simulated", inputs, drive_about)
            taken, _ = demo.take_fleet_in(center, folder, recorded["files"], [], self.plan.demo, self.progress)
            return list(taken["drives"])

    def _freeze(
        self,
        center: Center,
        name: str,
        drives: list[str],
        takeovers: list[str],
        *,
        held_out: float = 0.0,
        pseudo_labels: Sequence[str] = (),
        clips: Sequence[str] = (),
    ) -> str:
        """A dataset of all of these drives, or only of `clips`: nothing is held out, unless said; the towns of the suite are."""
        column, named = ("id", clips) if clips else ("drive", drives)
        where = f"{column} IN ({', '.join(repr(one) for one in sorted(named))})"
        network = self.plan.demo.base_recipe.trainable
        with self._alone(f"freeze-{center.root.name}"):
            return dataset.freeze(
                center,
                name.replace(".", "-"),
                where=where,
                takeovers=takeovers,
                pseudo_labels=pseudo_labels,
                held_out=held_out,
                view=network.view,
                side_views=network.side_views,
                split_by="drive",
                progress=self.progress,
            ).id

    def _steps(self, row: Row) -> int:
        return self.plan.steps * (self.plan.long if row.long else 1)

    def _recipe(self, seed: int, number: int, steps: int, *, fresh: bool = False) -> Recipe:
        recipe = self.plan.demo.base_recipe if fresh else self.plan.demo.adapt_recipe
        return replace(recipe, steps=steps, seed=1000 * seed + number)

    def _center(self, region: str, cars: int, look: str = "") -> Center:
        """A fleet has a center of its own: what comes in there is its own driving and nobody else's."""
        name = "-".join([region, *([str(cars)] if cars else []), *([look] if look else [])])
        with self._alone(f"center-{name}"):
            return Center.init(
                self.out / f"{name}-center",
                region,
                keys_dir=self.out / "keys" / name,
                seed=cars,
                in_region_dirs=[self.out, self.results],
                actor="ladder",
            )

    def _record(self, name: str, seed: int) -> dict[str, Any] | None:
        path = self.out / "rows" / f"{name}-{seed}.json"
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return found

    @contextmanager
    def _alone(self, what: str, *, wait: bool = True) -> Iterator[bool]:
        """Only one process at a time inside; without `wait` False when another one is. The lock goes with its process."""
        place = self.out / "locks" / f"{what}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def sessions(cars: int, levels: Sequence[float]) -> list[tuple[Turn, float]]:
    """The drives of a fleet in the order in which they happen, each with the level of minutes that it belongs to.

    No drive is longer than LONGEST_DRIVE_MIN: towns fill up as time goes on, and nobody leaves them.
    """
    found, before = [], 0.0
    for level in levels:
        count = math.ceil((level - before) / cars / LONGEST_DRIVE_MIN)
        minutes = (level - before) / count
        found += [(Turn(cars=cars, minutes=minutes, steps=0, worlds=0), level)] * count
        before = level
    return found


def plan_record(plan: LadderPlan) -> dict[str, Any]:
    """What must stay the same for rows to belong together."""
    plain = {name: value for name, value in vars(plan).items() if name not in ("rows", "demo", "supervision")}
    recipes = {name: getattr(plan.demo, name).as_record() for name in ("base_recipe", "adapt_recipe")}
    return {
        **json.loads(json.dumps(plain)),
        "supervision": asdict(plan.supervision),
        "base": asdict(plan.demo.base),
        "base_again_steps": plan.demo.base_again_steps,
        "towns": list(plan.demo.towns),
        **recipes,
    }


def _kept(path: Path, plan: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """The records that a page of the same plan was made of."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    rows = kept["rows"] if kept.get("plan") == plan else []
    return {(row["name"], row["seed"]): row for row in rows}


def _plain(report: dict[str, Any]) -> dict[str, Any]:
    """What a stage keeps of an intake."""
    return {"drives": report["drives"], "frames": report["frames"], "quarantined": len(report["quarantined"])}


def score_of(record: dict[str, Any]) -> float:
    routes = record["cn"]["routes"]
    return float(sum(route[2] for route in routes) / len(routes))


def summary(document: dict[str, Any]) -> list[str]:
    """The document in words, for the command."""
    made = [
        row
        for row in document["rows"]
        if row["score"] is not None and row["suite"] == document["settings"]["suites"]["cn"]
    ]
    lines = [f"{len(made)} rows are there, {len(document['not_run'])} are not; synthetic"]
    return [*lines, *document["findings"]]
