"""The vehicle program: what `onshore.car` can do, as a process of its own. Words in, one JSON document out.

    python -m onshore.car provision CAR --name NAME --region RR --root ROOT.json
    python -m onshore.car status CAR
    python -m onshore.car update CAR --repository DIR [--region RR]
    python -m onshore.car run CAR FILE.mcap...
    python -m onshore.car shadow CAR FILE.mcap... [--trigger '{"name": …, "when": …}']

Exit codes as everywhere: 0 done, 1 failed, 2 usage, 3 refused. A failure is `{"error": {code, subject, advice}}`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from onshore.car.install import provision, status, update
from onshore.car.running import PlannedDrive, run
from onshore.car.shadowing import DISAGREEMENT, shadow
from onshore.core.errors import InputError, NotFoundError, OnshoreError
from onshore.core.trigger import Trigger


def main(words: list[str] | None = None) -> int:
    """Do what the words ask, write the document to standard output, and return the exit code."""
    asked = _parser().parse_args(words)
    try:
        document = asked.act(asked)
    except OnshoreError as problem:
        advice = getattr(problem, "advice", str(problem))
        _say({"error": {"code": problem.code, "subject": problem.subject, "advice": advice}})
        return problem.exit_code
    _say(document)
    return 3 if document.get("outcome") == "refused" else 0


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")


def _file(path: Path) -> Path:
    """Raises NotFoundError where there is none."""
    if not path.is_file():
        raise NotFoundError(path, "there is no such file.")
    return path


def _provision(asked: argparse.Namespace) -> dict[str, Any]:
    provision(asked.car, name=asked.name, region=asked.region, root=_file(asked.root).read_bytes())
    return {"car": asked.name, "region": asked.region}


def _status(asked: argparse.Namespace) -> dict[str, Any]:
    now = status(asked.car)
    return {"running": now.running, "previous": now.previous, "counter": now.counter, "revoked": list(now.revoked)}


def _update(asked: argparse.Namespace) -> dict[str, Any]:
    return update(asked.repository, asked.car, asked.region).as_record()


def _run(asked: argparse.Namespace) -> dict[str, Any]:
    from onshore.wire import read_mcap

    files = [_file(path) for path in asked.files]
    return {"drives": [{"file": path.name, **_drive_record(run(asked.car, read_mcap(path)))} for path in files]}


def _drive_record(drive: PlannedDrive) -> dict[str, Any]:
    plans = [
        {"t_ns": int(t_ns), "path_xy_m": plan.path_xy_m.tolist(), "speed_mps": plan.speed_mps.tolist()}
        for t_ns, plan in zip(drive.t_ns, drive.plans, strict=True)
    ]
    median = float(sorted(drive.ms_per_plan)[len(plans) // 2]) if plans else None
    facts = {"release": drive.release_id, "road_use": drive.road_use, "synthetic": drive.synthetic}
    return {**facts, "median_ms_per_plan": median, "plans": plans}


def _shadow(asked: argparse.Namespace) -> dict[str, Any]:
    from onshore.wire import read_mcap

    trigger = DISAGREEMENT
    if asked.trigger:
        try:
            trigger = Trigger(**json.loads(asked.trigger))
        except (ValueError, TypeError) as problem:
            raise InputError("bad_trigger", "--trigger", f"give a trigger as JSON: {problem}.") from problem
    reports = (shadow(asked.car, read_mcap(_file(path)), trigger=trigger) for path in asked.files)
    return {"reports": [{**report.as_record(), "requests": report.requests} for report in reports]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m onshore.car", description="The vehicle program.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, act in (
        ("provision", _provision),
        ("status", _status),
        ("update", _update),
        ("run", _run),
        ("shadow", _shadow),
    ):
        verb = verbs.add_parser(name)
        verb.set_defaults(act=act)
        verb.add_argument("car", type=Path)
        if name == "provision":
            verb.add_argument("--name", required=True)
            verb.add_argument("--region", required=True)
            verb.add_argument("--root", type=Path, required=True)
        if name == "update":
            verb.add_argument("--repository", type=Path, required=True)
            verb.add_argument("--region")
        if name in ("run", "shadow"):
            verb.add_argument("files", type=Path, nargs="+")
        if name == "shadow":
            verb.add_argument("--trigger")
    return parser


if __name__ == "__main__":
    sys.exit(main())
