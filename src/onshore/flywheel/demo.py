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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onshore import border, clip, dataset, drive, evaluation, release, world
from onshore.bundle.format import Payload
from onshore.core.digest import sha256_hex
from onshore.core.errors import OnshoreError, UsageError
from onshore.core.progress import Progress, silent
from onshore.dataset import manifest
from onshore.evaluation import SuiteResult
from onshore.evaluation.closedloop import unpack_rollouts
from onshore.flywheel import intake, judging, report, vehicle
from onshore.flywheel.ahead import Ahead
from onshore.flywheel.judging import Asked
from onshore.model import Nano, Recipe, models
from onshore.model.collection import collect
from onshore.store import Center
from onshore.world import PolicySpec

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
    """The size of a demo. Figures were tuned on training towns and other seeds than the suites hold.

    surround: the fleet's cars have narrow and side cameras too.
    """

    base: Turn
    rounds: tuple[Turn, ...]
    suites: dict[str, str]
    base_recipe: Recipe
    adapt_recipe: Recipe
    base_again_steps: int = 0
    towns: tuple[int, ...] = (1, 2, 4, 5)
    egos: int = 8
    held_out: float = 0.15
    surround: bool = False
    bench_only: bool = False
    workers: int = 2


FULL = DemoPlan(
    base=Turn(cars=24, minutes=24.0, steps=1100, worlds=3),
    base_again_steps=700,
    rounds=(
        Turn(cars=6, minutes=6.0, steps=600, worlds=3),
        Turn(cars=10, minutes=10.0, steps=600, worlds=3),
        Turn(cars=16, minutes=16.0, steps=600, worlds=3),
        Turn(cars=24, minutes=24.0, steps=600, worlds=3),
        Turn(cars=32, minutes=32.0, steps=600, worlds=3),
        Turn(cars=40, minutes=40.0, steps=600, worlds=3),
    ),
    suites={"us": "us-core", "cn": "cn-core"},
    base_recipe=Recipe(name="nano-us-base"),
    adapt_recipe=Recipe(name="nano-cn-adapt", learning_rate=7e-4),
)
TINY = DemoPlan(
    base=Turn(cars=2, minutes=2.0, steps=60, worlds=0),
    rounds=(Turn(cars=2, minutes=1.0, steps=30, worlds=1),) * 6,
    suites={"us": "us-tiny", "cn": "cn-tiny"},
    base_recipe=Recipe(name="nano-tiny", trainable=Nano(channels=(8, 12, 16, 24, 32), hidden=64), batch=32),
    adapt_recipe=Recipe(name="nano-tiny", trainable=Nano(channels=(8, 12, 16, 24, 32), hidden=64), batch=32),
    towns=(1,),
    egos=2,
    held_out=0.3,
    bench_only=True,
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
    document = json.dumps(result, indent=1, ensure_ascii=False)
    border.write_out(demo.cn, {"report.html": page.encode(), "result.json": document.encode()}, demo.out)
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


def prepare(center_dir: str, out: str, plan: DemoPlan, rounds: int, seed: int) -> None:
    """Every round's fleet and the rows that need no model, ahead of time in a child; the demo runs the same stages again."""
    center, earlier = Center.open(center_dir), list[str]()
    for number, turn in enumerate(plan.rounds[:rounds], 1):
        folder = Path(out) / "fleet" / f"{center.region}-{number}"
        recorded, _ = record_fleet(center, folder, turn, number, plan, seed)
        taken, _ = take_fleet_in(center, folder, recorded["files"], earlier, plan)
        earlier += taken["drives"]
    evaluation.closed_loop(center, plain_policies(), plan.suites[center.region], workers=1)


def plain_policies() -> list[PolicySpec]:
    """The rows that every table shows."""
    return [PolicySpec(kind=kind, name=kind) for kind in ("stop", "constant-speed", "expert")]


def record_fleet(
    center: Center,
    folder: Path,
    turn: Turn,
    number: int,
    plan: DemoPlan,
    seed: int,
    progress: Progress = silent,
    look: str = "day",
) -> tuple[dict[str, Any], bool]:
    """The fleet of one round drives in the training towns; returns the digests of what it recorded."""
    inputs: dict[str, Any] = {
        "turn": asdict(turn),
        "number": number,
        "towns": list(plan.towns),
        "seed": seed,
        "pack": center.pack.digest,
    }
    if look != "day":
        inputs["look"] = look
    if plan.surround:
        inputs["surround"] = True

    towns = plan.towns[: turn.cars]
    shares = [len(range(place, turn.cars, len(towns))) for place in range(len(towns))]

    def drive_in(place: int) -> None:
        cars = shares[place]
        world.record_fleet(
            center.pack,
            town_seed=towns[place],
            cars=cars,
            minutes=turn.minutes * cars / turn.cars,
            seed=record_seed(seed, number, towns[place]),
            out_dir=folder / f"town-{towns[place]}",
            progress=progress,
            workers=max(1, plan.workers // len(towns)),
            first_car=1 + sum(shares[:place]),
            look=look,
            surround=plan.surround,
        )

    def drive_about() -> dict[str, Any]:
        with ThreadPoolExecutor(min(plan.workers, len(towns))) as pool:
            list(pool.map(drive_in, range(len(towns))))
        return {"files": digests_of(folder)}

    return center.stage("demo.fleet", inputs, drive_about)


def record_seed(seed: int, number: int, town: int) -> int:
    """A traffic seed for every fleet and town, below every suite's (`traffic_seeds_from` of the region's suites)."""
    return (211 * seed + 37 * number + town) % 1000


def digests_of(folder: Path) -> dict[str, str]:
    """The recordings below a folder and their digests."""
    return {str(p.relative_to(folder)): sha256_hex(p.read_bytes()) for p in sorted(folder.rglob("*.mcap"))}


def take_fleet_in(
    center: Center, folder: Path, files: dict[str, str], earlier: list[str], plan: DemoPlan, progress: Progress = silent
) -> tuple[dict[str, Any], bool]:
    """Take one fleet's recordings in; returns its drives: those that no earlier fleet brought.

    files: the recordings' digests; once they are in, the files themselves are not looked at again and may go. What a run
    adds depends on where the last one was killed; what is there afterwards does not.
    """

    def admit() -> dict[str, Any]:
        intake.take_in(center, [folder], workers=plan.workers, progress=progress)
        mine = [row for row in drive.drives(center) if row["id"] not in earlier]
        return {"drives": sorted(row["id"] for row in mine), "frames": sum(row["frames"] for row in mine)}

    return center.stage("demo.intake", {"files": files, "earlier": sorted(earlier)}, admit)


def leave_with_permit(center: Center, weights: str, folder: Path) -> tuple[dict[str, Any], bool]:
    """Two people allow a base to leave for cn; the gate re-serialises, scans, writes its line, then the file."""

    def leave() -> dict[str, Any]:
        for name in APPROVERS:
            border.enroll_approver(center, name)
        permit = border.request_permit(
            center, weights, recipient=RECIPIENT, to_region="cn", purpose="adapt a base model", requester=REQUESTER
        )
        for name in APPROVERS:
            border.approve(center, permit.id, name)
        path = border.export(center, weights, permit=permit.id, out_dir=folder)
        return {"permit": permit.id, "file": path.name}

    return center.stage("demo.export", {"weights": weights}, leave)


class _Demo:
    """One run: where it stands, what each stage took, and what is said about it."""

    def __init__(self, out: Path, plan: DemoPlan, rounds: int, seed: int, progress: Progress, say: Say) -> None:
        if not 1 <= rounds <= len(plan.rounds):
            raise UsageError(f"--rounds {rounds}", f"choose 1 to {len(plan.rounds)}.")
        self.out, self.plan, self.rounds, self.seed = out, plan, rounds, seed
        self.progress, self.say = progress, say
        self.stages: list[dict[str, Any]] = []
        self.border: list[dict[str, Any]] = []
        self.releases: list[dict[str, Any]] = []
        self.digests: dict[str, str] = {}
        self.scores: list[dict[str, Any]] = []
        self.open_loop: list[dict[str, Any]] = []
        self.results: dict[tuple[str, str], SuiteResult] = {}

    def claim(self, facts: dict[str, Any]) -> None:
        """Take the folder for this seed and size, or refuse one that holds another demo."""
        self.out.mkdir(parents=True, exist_ok=True)
        claim = self.out / "demo.json"
        if claim.exists() and json.loads(claim.read_text()) != facts:
            raise UsageError(f"--out {self.out}", f"it holds a demo of {claim.read_text()}; choose another folder.")
        claim.write_text(json.dumps(facts))
        self.us, self.cn = (self._center(region) for region in ("us", "cn"))

    def turn(self) -> dict[str, Any]:
        """The whole path; returns the result document without its frame."""
        ahead = Ahead(prepare, str(self.cn.root), str(self.out), self.plan, self.rounds, self.seed)
        try:
            base = self._base()
            at_home = self._export_base(base)
        finally:
            ahead.wait()
        abroad = self._import(at_home)
        self._drive("us", self.us, [*plain_policies(), self._policy(self.us, base, "base")])
        self._drive("cn", self.cn, [*plain_policies(), self._policy(self.cn, abroad, "base")])
        rows = [self._row(0, Turn(cars=0, minutes=0.0, steps=0, worlds=0), [], 0, 0)]
        self._all_rounds(abroad, rows)
        self._try_to_leave()
        scores = {
            number: self.results[f"round-{number}" if number else "base", "cn"].scores for number in (0, self.rounds)
        }
        second = self.results[f"round-{min(2, self.rounds)}", "cn"].scores
        gain = evaluation.compare(scores[0], scores[self.rounds])
        return {
            "synthetic": True,
            "rounds": rows,
            "scores": self.scores,
            "p_round2_over_base": evaluation.compare(scores[0], second).p if self.rounds > 1 else None,
            "p_last_over_base": gain.p,
            "gain": vars(gain),
            "open_loop": self.open_loop,
            "releases": self.releases,
            "border": self.border,
            "stages": self.stages,
            "digests": self.digests,
        }

    # -- the us center -------------------------------------------------------------------------------------------------

    def _base(self) -> str:
        """A base from the us fleet; with worlds in the plan also from what happened when it drove there itself."""
        turn = self.plan.base
        mine = self._fleet("us", self.us, 0, turn, [])
        frozen = self._freeze(self.us, "us-base", mine, [])
        weights = self._train(self.us, "us: base", frozen, self.plan.base_recipe, turn.steps, None)
        if turn.worlds:
            taken = self._collect(self.us, "us: takeovers", weights, turn.worlds, 0)
            frozen = self._freeze(self.us, "us-base-on-policy", mine, [taken])
            weights = self._train(
                self.us, "us: base, on-policy", frozen, self.plan.adapt_recipe, self.plan.base_again_steps, weights
            )
        self._look_open_loop("base", self.us, weights, frozen)
        return weights

    def _export_base(self, weights: str) -> Path:
        outputs = self._timed(
            "us: the base leaves with a permit", lambda: leave_with_permit(self.us, weights, self.out / "border")
        )
        why = f"permit {outputs['permit']}, approved by {' and '.join(APPROVERS)}"
        self.border.append({"center": "us", "what": "base weights", "to": "cn", "allowed": True, "why": why})
        return self.out / "border" / str(outputs["file"])

    # -- the cn center -------------------------------------------------------------------------------------------------

    def _import(self, file: Path) -> str:
        inputs = {"file": sha256_hex(file.read_bytes())}
        outputs = self._stage(
            self.cn,
            "cn: the base comes in",
            "demo.import",
            inputs,
            lambda: {"id": border.import_file(self.cn, file).id},
        )
        self.digests["base weights"] = outputs["id"]
        return str(outputs["id"])

    def _all_rounds(self, base: str, rows: list[dict[str, Any]]) -> None:
        """Each round: drive, watch in shadow, learn from both, be tested, be signed, be installed."""
        weights, takeovers, drives = base, list[str](), list[str]()
        car, installed = self.out / "cars" / "car-0001", None
        for number, turn in enumerate(self.plan.rounds[: self.rounds], 1):
            mine = self._fleet("cn", self.cn, number, turn, drives)
            drives += mine
            asked = self._shadow(number, car, installed, mine)
            takeovers.append(self._collect(self.cn, f"cn {number}: takeovers", weights, turn.worlds, number))
            frozen = self._freeze(self.cn, f"cn-round-{number}", drives, takeovers)
            weights = self._train(
                self.cn, f"cn {number}: adapt", frozen, self.plan.adapt_recipe, turn.steps, weights, seed=number
            )
            name = f"round-{number}"
            if number == 1:
                self._look_open_loop("base", self.cn, base, frozen)
            self._look_open_loop(name, self.cn, weights, frozen)
            self._drive("cn", self.cn, [self._policy(self.cn, weights, name)])
            installed = self._release(number, weights, frozen, base, car) or installed
            samples = int(self.cn.artifact(takeovers[-1]).meta["samples"])
            rows.append(self._row(number, turn, rows, asked, samples, manifest.show(self.cn, frozen)))

    def _fleet(self, region: str, center: Center, number: int, turn: Turn, earlier: list[str]) -> list[str]:
        folder = self.out / "fleet" / f"{region}-{number}"
        title = f"{region} {number}" if number else region
        recorded = self._timed(
            f"{title}: the fleet drives",
            lambda: record_fleet(center, folder, turn, number, self.plan, self.seed, self.progress),
        )
        outputs = self._timed(
            f"{title}: intake",
            lambda: take_fleet_in(center, folder, recorded["files"], earlier, self.plan, self.progress),
        )
        return list(outputs["drives"])

    def _shadow(self, number: int, car: Path, release_id: str | None, drives: list[str]) -> int:
        """The release that the car took last watches the newest fleet's drives; where it differs, clips are asked for."""
        if release_id is None:
            return 0
        rows = [row for identity in drives for row in drive.segments(self.cn, identity)]

        def watch() -> dict[str, Any]:
            requests = [r for one in vehicle.shadow(self.cn, car, rows) for r in one["requests"]]
            clip.add_requested(self.cn, requests)
            return {"requests": len(requests)}

        inputs = {"release": release_id, "segments": sorted(row["id"] for row in rows)}
        return int(self._stage(self.cn, f"cn {number}: shadow mode", "demo.shadow", inputs, watch)["requests"])

    def _release(self, number: int, weights: str, frozen: str, base: str, car: Path) -> str | None:
        """Ask the town gate, and the bench gate if that one says no: shadow mode needs no more than the bench.

        Returns the release that the car then runs, or None when nothing was signed.
        """
        for gate in ("bench",) if self.plan.bench_only else ("town", "bench"):
            asked = Asked(
                model=weights,
                gate=gate,
                dataset=frozen,
                suite=self.plan.suites["cn"],
                base=base,
                counter=number,
                workers=self.plan.workers,
            )
            began = time.monotonic()
            verdict, payload = judging.judge(self.cn, asked, progress=self.progress)
            self._note(f"cn {number}: gate {gate}", began, False)
            self.releases.append(_release_row(f"round {number}", verdict, verdict.passed))
            if verdict.passed:
                return self._sign(number, verdict, payload, car)
        return None

    def _sign(self, number: int, verdict: release.Verdict, payload: Payload, car: Path) -> str:
        """Sign, publish, and let the car verify and install."""
        repository = self.out / "release"

        def ship() -> dict[str, Any]:
            row = release.sign(self.cn, payload, verdict, repository)
            vehicle.enroll(car, name=car.name, region="cn", root=release.root(self.cn))
            return {"release": row.id, **vehicle.update(car, repository)}

        inputs = {"payload": payload.digest, "verdict": verdict.digest}
        outputs = self._stage(self.cn, f"cn {number}: signed, the car updates", "demo.sign", inputs, ship)
        self.digests[f"round {number} unsigned payload"] = payload.digest
        self.releases[-1]["note"] = f"the car {outputs['outcome']} it and runs {outputs['running']}"
        return str(outputs["running"])

    def _try_to_leave(self) -> None:
        """What nobody may do: a raw drive, a clip, weights without a permit, a file without a label."""
        some = drive.drives(self.cn)[0]["id"]
        stranger = self.out / "border" / "unlabelled.bin"
        stranger.write_bytes(b"a file that no artifact stands for")
        tries = {
            "a raw drive": some,
            "a clip": clip.find(self.cn, limit=1)[0]["id"],
            "weights without a permit": self.digests[f"round {self.rounds} weights"],
            "a file without a label": str(stranger),
        }
        for what, artifact in tries.items():
            decision = border.check(self.cn, artifact, "us")
            if decision.refusal is None:
                raise OnshoreError("not_allowed", what, "the border let it through; do not use this version.")
            why = f"[{decision.refusal.code}] {decision.refusal.rule}: {decision.refusal.clause}"
            self.border.append({"center": "cn", "what": what, "to": "us", "allowed": False, "why": why})

    # -- one stage each ------------------------------------------------------------------------------------------------

    def _center(self, region: str) -> Center:
        keys = self.out / "keys" / region
        root = self.out / f"{region}-center"
        return Center.init(root, region, keys_dir=keys, seed=self.seed, in_region_dirs=[self.out], actor="demo")

    def _freeze(self, center: Center, name: str, drives: list[str], takeovers: list[str]) -> str:
        began, known = time.monotonic(), {one["id"] for one in manifest.datasets(center)}
        where = f"drive IN ({', '.join(repr(one) for one in sorted(drives))})"
        row = dataset.freeze(
            center,
            name,
            where=where,
            takeovers=takeovers,
            held_out=self.plan.held_out,
            seed=self.seed,
            view=self.plan.base_recipe.trainable.view,
            split_by="drive",
            progress=self.progress,
        )
        self._note(f"{name}: dataset", began, row.id not in known)
        self.digests[f"{name} dataset"] = row.digest
        return row.id

    def _train(
        self, center: Center, title: str, frozen: str, recipe: Recipe, steps: int, base: str | None, *, seed: int = 0
    ) -> str:
        chosen = replace(recipe, steps=steps, seed=1000 * self.seed + seed)
        began = time.monotonic()
        row = models.train(center, frozen, chosen, base=base, progress=self.progress)
        self._note(title, began, row.fresh)
        self.digests[f"{title.replace('cn ', 'round ').replace(': adapt', '')} weights"] = row.id
        return row.id

    def _collect(self, center: Center, title: str, weights: str, worlds: int, seed: int) -> str:
        began = time.monotonic()
        row = collect(
            center,
            weights,
            worlds=worlds,
            egos=self.plan.egos,
            seed=10 * self.seed + seed,
            workers=self.plan.workers,
            progress=self.progress,
        )
        self._note(title, began, row.fresh)
        return row.id

    def _look_open_loop(self, name: str, center: Center, weights: str, frozen: str) -> None:
        began = time.monotonic()
        table = evaluation.open_loop(center, weights, frozen, progress=self.progress)
        self._note(f"{name}: open loop", began, table.fresh)
        for row in judging.open_loop_rows(table):
            shown = name if row["planner"] == "model" else row["planner"]
            self.open_loop.append({**row, "model": shown, "region": center.region, "dataset": frozen})

    def _drive(self, suite: str, center: Center, policies: list[PolicySpec]) -> None:
        for policy in policies:
            began = time.monotonic()
            (found,) = evaluation.closed_loop(
                center, [policy], self.plan.suites[suite], workers=self.plan.workers, progress=self.progress
            )
            self._note(f"{suite}: {policy.title} drives the suite", began, found.fresh)
            self.results[policy.title, suite] = found
            self.scores.append({**judging.suite_row(found), "suite": suite})
            self.digests[f"{suite} {policy.title} evaluation"] = found.id

    def _policy(self, center: Center, weights: str, name: str) -> PolicySpec:
        return models.policy_spec(center, weights, name=name)

    def _row(
        self,
        number: int,
        turn: Turn,
        rows: list[dict[str, Any]],
        asked: int,
        takeovers: int,
        frozen: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        score = self.results[f"round-{number}" if number else "base", "cn"].score
        return {
            "round": number,
            "cars": turn.cars,
            "minutes": turn.minutes,
            "minutes_total": turn.minutes + (rows[-1]["minutes_total"] if rows else 0.0),
            "clips": len(frozen["clips"]) if frozen else 0,
            "shadow_clips": asked,
            "takeovers": takeovers,
            "score": round(score.mean, 2),
            "low": score.low,
            "high": score.high,
        }

    def _stage(
        self, center: Center, title: str, name: str, inputs: dict[str, Any], work: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        return self._timed(title, lambda: center.stage(name, inputs, work))

    def _timed(self, title: str, work: Callable[[], tuple[dict[str, Any], bool]]) -> dict[str, Any]:
        began = time.monotonic()
        outputs, fresh = work()
        self._note(title, began, fresh)
        return outputs

    def _note(self, title: str, began: float, fresh: bool) -> None:
        seconds = round(time.monotonic() - began, 2)
        self.stages.append({"stage": title, "seconds": seconds, "fresh": fresh})
        self.say(f"{title}: {seconds:.1f} s{'' if fresh else ' (already there)'}")

    def shots(self) -> list[tuple[str, str, bytes]]:
        """Pictures for the report: what the camera shows, and the same held-out route before and after, from above.

        They are redrawn from stored rollouts once and then read back.
        """
        last = f"round-{self.rounds}"
        return [
            ("us town, through the car's camera", "png", self._picture("us", "base", "camera")),
            ("cn town, through the car's camera", "png", self._picture("cn", last, "camera")),
            ("cn, the base from above (sped up)", "webp", self._picture("cn", "base", "above")),
            (f"cn, round {self.rounds} on the same route (sped up)", "webp", self._picture("cn", last, "above")),
        ]

    def _picture(self, suite: str, name: str, kind: str) -> bytes:
        center = self.us if suite == "us" else self.cn
        result = self.results[name, suite]
        file = self.out / "pictures" / f"{kind}-{result.id[-24:]}"
        if not file.exists():
            rollout = unpack_rollouts(center.read(result.rollouts[0], purpose="show"))[0]
            if kind == "camera":
                (picture,) = world.camera_pictures(rollout, center.pack, at_s=(6.0,))
            else:
                picture = world.birdseye(rollout, center.pack)
            border.write_out(center, {file.name: picture}, file.parent, kind="picture")
        return file.read_bytes()


def _release_row(name: str, verdict: release.Verdict, signed: bool) -> dict[str, Any]:
    def shown(value: float | None, unit: str) -> str:
        return "—" if value is None else f"{value:.3g} {unit}"

    checks = [
        {
            "name": check.name.replace("_", " "),
            "status": check.status,
            "figure": shown(check.figure, check.unit)
            + (f", p = {check.p_value:.4f}" if check.p_value is not None else ""),
            "limit": ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in check.limits.items()),
        }
        for check in verdict.checks
    ]
    return {
        "name": name,
        "gate": verdict.gate,
        "road_use": verdict.road_use,
        "passed": verdict.passed,
        "signed": signed,
        "note": "",
        "checks": checks,
    }
