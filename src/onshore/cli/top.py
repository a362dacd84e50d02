"""Verbs without a noun: demo, doctor, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session

COLUMNS = "suite model score low high routes worlds".split()


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo)
    app.command("doctor")(doctor)
    app.command("init")(init)


def demo(
    out: Annotated[Path, typer.Option(help="folder for both centers, the fleets and the report")] = Path(
        "onshore-demo"
    ),
    rounds: Annotated[int, typer.Option(min=1, max=6, help="rounds of the flywheel in the cn center")] = 2,
    seed: Annotated[int, typer.Option(help="seed of towns, traffic, training and salts")] = 0,
    tiny: Annotated[bool, typer.Option("--tiny", help="the same path in minutes, for tests; no score claim")] = False,
) -> None:
    """Turn the whole flywheel in the town world: no input needed, report.html at the end."""
    from onshore.flywheel import demo as turn

    show = session.output()
    with show.progress() as progress:
        result = turn.run(out, rounds=rounds, seed=seed, tiny=tiny, progress=progress, say=show.say)
    show.table("Driving score (synthetic town world, percent)", result["scores"], COLUMNS)
    show.answer(result, *turn.summary(result))


def doctor() -> None:
    """Check the machine, keys, jail and disk; say what to do."""
    from onshore.flywheel import doctor as checks

    show = session.output()
    rows = checks.examine(session.center() if session.has_center() else None)
    show.table("", rows, ["check", "status", "finding", "advice"])
    show.answer({"checks": rows})
    if any(row["status"] == "fail" for row in rows):
        raise typer.Exit(1)


def init(
    center: Annotated[Path, typer.Argument(help="a new folder")],
    region: Annotated[str, typer.Option(help="the jurisdiction it belongs to: cn, us, …")],
    keys: Annotated[
        str | None, typer.Option(help="a folder outside the center, pkcs11:…, or command:… (docs/store.md)")
    ] = None,
    keys_dir: Annotated[
        Path | None, typer.Option(help="the folder of key slots, with a provider; never inside the center")
    ] = None,
    crypto: Annotated[str, typer.Option(help="aes, or sm: SM4 and SM3; for good")] = "aes",
    in_region: Annotated[
        list[Path] | None, typer.Option(help="a folder inside the region that verbs may write to")
    ] = None,
) -> None:
    """Make a center: center.toml, keys outside it, ledger, empty catalog."""
    from onshore.store import Center

    provider = (keys or "").startswith(("pkcs11:", "command:"))
    made = Center.init(
        center,
        region,
        keys_dir=keys_dir if provider or keys is None else keys,
        keys=keys if keys and provider else "",
        crypto=crypto,
        in_region_dirs=tuple(in_region or ()),
    )
    session.output().answer(
        {"center": str(center), "id": made.id, "region": made.region, "keys": str(made.keys.folder)},
        f"center {made.id} of region {made.region} at {center}",
        f"keys at {made.keys.folder}: back them up; without them nothing in the center can be read",
    )
