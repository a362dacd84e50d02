"""`onshore car`: the vehicle's side, run here as a car would run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onshore.cli import session
from onshore.core.errors import UsageError

if TYPE_CHECKING:
    from onshore.core.recording import Recording
    from onshore.store import Center

noun = typer.Typer(no_args_is_help=True, help="The vehicle side: update, run, shadow, status.")
CarDir = Annotated[
    Path | None,
    typer.Option("--car", help="the car's own folder; by default one beside the center's release repository"),
]


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="car")


@noun.command("update")
def update(
    car_dir: CarDir = None,
    repository: Annotated[
        Path | None, typer.Option("--from", help="a release repository; the center's by default")
    ] = None,
) -> None:
    """Install the newest release that verifies; otherwise keep driving the one there is, and say why."""
    from onshore import car, release

    folder, source = _car(car_dir), repository or _repository()
    if not (folder / "car.json").exists():
        center = _enrolling()
        car.provision(folder, name=folder.name, region=center.region, root=release.root(center))
    result = car.update(source, folder)
    document = result.as_record()
    session.output().answer(document, *(f"{name}: {value}" for name, value in document.items() if name != "refusal"))
    if result.refusal is not None:
        session.output().err.print(f"{result.refusal} It keeps driving {result.running or 'nothing'}.", markup=False)
        raise typer.Exit(3)


@noun.command("status")
def status(car_dir: CarDir = None) -> None:
    """What the car runs."""
    from onshore import car

    found = car.status(_car(car_dir))
    session.output().answer({"running": found.running, "counter": found.counter}, f"running {found.running}")


@noun.command("run")
def run(
    drive: Annotated[str, typer.Option(help="a drive or segment id, or an MCAP file")], car_dir: CarDir = None
) -> None:
    """Run the installed model over a recording and say what it proposes."""
    from onshore import car

    show = session.output()
    rows = []
    with show.progress() as progress:
        for recording in _recordings(drive):
            planned = car.run(_car(car_dir), recording, progress=progress)
            targets = [plan.speed_mps[1] for plan in planned.plans]
            rows.append(
                {
                    "segment": recording.segment_id,
                    "release": planned.release_id,
                    "plans": len(planned.plans),
                    "mean_target_speed_mps": float(sum(targets) / max(len(targets), 1)),
                    "median_ms_per_plan": float(sorted(planned.ms_per_plan)[len(planned.ms_per_plan) // 2]),
                    "road_use": planned.road_use,
                }
            )
    show.table("", rows)
    show.answer({"runs": rows})


@noun.command("shadow")
def shadow(
    drive: Annotated[str, typer.Option(help="a drive or segment id, or an MCAP file")], car_dir: CarDir = None
) -> None:
    """Compare the installed model with what was driven; where they differ, ask for a clip. Never actuates."""
    from onshore import car, clip

    show = session.output()
    reports = []
    with show.progress() as progress:
        reports = [car.shadow(_car(car_dir), recording, progress=progress) for recording in _recordings(drive)]
    requests = [request for report in reports for request in report.requests]
    if session.has_center() and requests:
        clip.add_requested(session.center(), requests)
    rows = [report.as_record() for report in reports]
    show.table("", rows, "segment release plans mean_path_diff_m mean_speed_diff_mps".split())
    show.answer({"reports": rows, "requests": requests}, f"{len(requests)} clips asked for")


def _car(car_dir: Path | None) -> Path:
    if car_dir is None and not session.has_center():
        raise UsageError("--car", "name the car's folder, or a center with --center.")
    return car_dir or session.center().root / "cars" / "car-0001"


def _repository() -> Path:
    from onshore.flywheel import shipping

    if not session.has_center():
        raise UsageError("--from", "name a release repository, or a center with --center.")
    return shipping.repository(session.center())


def _enrolling() -> Center:
    """The center that enrols a new car: the root of trust comes from its keys, never from a repository."""
    if not session.has_center():
        raise UsageError("--center", "a new car is enrolled by a center; name it with --center.")
    return session.center()


def _recordings(name: str) -> list[Recording]:
    """A segment, all segments of a drive, or an MCAP file."""
    from onshore import drive
    from onshore.wire import read_mcap

    if name.endswith(".mcap"):
        return [read_mcap(Path(name))]
    center = session.center()
    if name.startswith("segment-"):
        return [drive.open_segment(center, name)]
    return [drive.open_segment(center, row["id"]) for row in drive.segments(center, name)]
