"""`onshore world`: drive in the town world, or let a simulated fleet record there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session
from onshore.core.errors import UsageError

noun = typer.Typer(no_args_is_help=True, help="The town world (synthetic): run a policy, record a fleet.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="world")


@noun.command("run")
def run(
    policy: Annotated[
        str, typer.Option(help="stop, rule, expert, careful or careless (scenarios), a model, a rival, …")
    ],
    region: Annotated[str | None, typer.Option(help="whose towns: cn or us")] = None,
    replay: Annotated[
        str | None, typer.Option(help="a recorded drive or segment to drive in, instead of a town")
    ] = None,
    scenario: Annotated[
        str, typer.Option(help="town: everyday traffic; or a family that `world scenarios` lists")
    ] = "town",
    seed: Annotated[int, typer.Option(help="seed of town and traffic, or of the family's world")] = 900,
    map_file: Annotated[Path | None, typer.Option("--map", help="drive on this .osm or .xodr map instead")] = None,
    video: Annotated[Path | None, typer.Option(help="write an animation here: a folder that is in-region")] = None,
) -> None:
    """Drive one world closed loop and score it."""
    from onshore.flywheel import judging, outward

    show = session.output()
    if replay is not None:
        from onshore.evaluation.replayed import SHOWN

        with show.progress() as progress:
            document = judging.replay_drive(session.center(), replay, policy, progress=progress)
        show.table("replay of recorded video (valid range only)", document["routes"], SHOWN)
        return show.answer(document)
    if region is None:
        raise UsageError("--region", "name the town's region, or a recorded drive with --replay.")
    with show.progress() as progress:
        document = outward.run_world(
            session.center() if session.has_center() else None,
            region_name=region,
            policy=policy,
            scenario=scenario,
            seed=seed,
            map_file=map_file,
            video=video,
            progress=progress,
        )
    show.table("synthetic town world", document["routes"])
    show.answer(document)


@noun.command("scenarios")
def scenarios(
    region: Annotated[str | None, typer.Option(help="only this region's families, with its weights")] = None,
) -> None:
    """List the scenario families: what happens, who fails, and how much each counts in a region."""
    from onshore.world.scenarios import sharing

    show = session.output()
    rows = sharing.listing(region)
    shown = [{name: cell for name, cell in row.items() if name != "eyes"} for row in rows]
    show.table("scenario families (synthetic)", shown)
    show.answer({"synthetic": True, "families": rows}, f"{len(rows)} families")


@noun.command("record")
def record(
    region: Annotated[str, typer.Option(help="whose towns: cn or us")],
    cars: Annotated[int, typer.Option(min=1)],
    minutes: Annotated[float, typer.Option(min=0.1, help="fleet minutes in all")],
    out: Annotated[Path, typer.Option(help="a folder for the MCAP drives")] = Path("fleet"),
    seed: Annotated[int, typer.Option()] = 0,
    town: Annotated[int, typer.Option(help="a training town's seed")] = 1,
    look: Annotated[str, typer.Option(help="day, dusk, night or rain")] = "day",
    surround: Annotated[bool, typer.Option("--surround", help="three more cameras: narrow, left, right")] = False,
) -> None:
    """Let a simulated fleet drive and record ordinary MCAP drives (labelled synthetic)."""
    from onshore import region as regions
    from onshore import world

    show = session.output()
    with show.progress() as progress:
        paths = world.record_fleet(
            regions.load_pack(region),
            town_seed=town,
            cars=cars,
            minutes=minutes,
            seed=seed,
            look=look,
            surround=surround,
            out_dir=out,
            progress=progress,
        )
    show.answer(
        {"synthetic": True, "files": [str(path) for path in paths]}, f"{len(paths)} segments in {out} (synthetic)"
    )
