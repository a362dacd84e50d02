"""`onshore drive`: take fleet logs in, look at them, hand them on inside the region."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session
from onshore.core.errors import UsageError

noun = typer.Typer(no_args_is_help=True, help="Fleet logs: take in, list, show, export, quarantine.")
quarantine = typer.Typer(no_args_is_help=True, help="Files that could not be taken in, each with its reason.")
noun.add_typer(quarantine, name="quarantine")
signer = typer.Typer(no_args_is_help=True, help="Keys of cars and recorders: enroll, revoke, list.")
noun.add_typer(signer, name="signer")
fence = typer.Typer(no_args_is_help=True, help="Fenced areas: set the map, hold it against what is here.")
noun.add_typer(fence, name="fence")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="drive")


@noun.command("add")
def add(
    paths: Annotated[list[Path], typer.Argument(help="files or folders; a folder means every drive below it")],
    reader: Annotated[
        str | None, typer.Option(help="mcap, table or video; recognised from the files by default")
    ] = None,
    column_map: Annotated[Path | None, typer.Option("--map", help="a TOML column map for the table reader")] = None,
    public: Annotated[bool, typer.Option("--public", help="public data, not of this fleet")] = False,
    workers: Annotated[int, typer.Option(min=1, help="processes that anonymise and encode")] = 2,
) -> None:
    """Take drives in: read, check, seal the original, anonymise, encode, cut into clips."""
    from onshore.flywheel import intake

    show = session.output()
    with show.progress() as progress:
        report = intake.take_in(
            session.center(),
            paths,
            reader=reader,
            column_map=column_map,
            public=public,
            workers=workers,
            progress=progress,
        )
    show.table("taken in", report["added"], "id segments frames duration_s speed_min_mps speed_max_mps".split())
    show.table("in quarantine", report["quarantined"], ["path", "code", "reason"])
    show.answer(report, *intake.summary(report))
    if not report["added"] and not report["known"]:
        raise typer.Exit(1)


@noun.command("list")
def list_drives() -> None:
    """Every drive of the center."""
    from onshore import drive

    rows = session.sift(drive.drives(session.center()))
    show = session.output()
    show.table("", rows, "id vehicle segments duration_s frames signals".split())
    show.answer({"drives": rows}, f"{len(rows)} drives, {sum(row['segments'] for row in rows)} segments")


@noun.command("show")
def show_drive(drive_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """One drive and its segments."""
    from onshore import drive

    center = session.center()
    session.look(drive_id)
    segments = drive.segments(center, drive_id)
    rows = [row for row in drive.drives(center) if row["id"] == drive_id]
    show = session.output()
    show.table(drive_id, segments, "id index frames start_ns end_ns speed_min_mps speed_max_mps".split())
    show.answer({"drive": rows[0] if rows else None, "segments": segments})


@noun.command("export")
def export(
    drive_id: Annotated[str, typer.Argument(metavar="ID")],
    out: Annotated[Path, typer.Option(help="a folder that the center names as in-region, or any with a permit")],
    form: Annotated[str, typer.Option("--format", help="mcap")] = "mcap",
    permit: Annotated[str | None, typer.Option(help="a permit of `border permit`")] = None,
) -> None:
    """Write a drive's anonymised segments as MCAP files that Foxglove opens; ids travel inside."""
    from onshore.flywheel import outward

    if form != "mcap":
        raise UsageError(f"--format {form}", "mcap is the format that this version writes.")
    written = outward.export_drive(session.center(), drive_id, out, permit=permit)
    session.output().answer({"files": written}, *(f"{row['path']}  {row['sha256']}" for row in written))


@quarantine.command("list")
def quarantine_list() -> None:
    """What could not be taken in, and why."""
    rows = session.center().quarantine_list()
    show = session.output()
    show.table("", rows, ["path", "code", "reason"])
    show.answer({"quarantine": rows}, f"{len(rows)} in quarantine")


@quarantine.command("retry")
def quarantine_retry() -> None:
    """Try every quarantined file again; what now arrives leaves the list."""
    from onshore.flywheel import intake

    show = session.output()
    with show.progress() as progress:
        report = intake.retry(session.center(), progress=progress)
    show.answer(report, *intake.summary(report))


@signer.command("enroll")
def enroll(
    vehicle: Annotated[str, typer.Argument(help="as the car's recordings name it")],
    key: Annotated[str, typer.Option(help="Ed25519 public key, 64 hex digits")],
    made: Annotated[str | None, typer.Option(help="the day it was built, YYYY-MM-DD")] = None,
) -> None:
    """Let a key sign segments of one vehicle."""
    from datetime import date

    from onshore.drive import signers

    try:
        public, day = bytes.fromhex(key), date.fromisoformat(made) if made else None
    except ValueError as problem:
        raise UsageError("--key or --made", f"give hex digits and YYYY-MM-DD: {problem}.") from problem
    row = signers.enroll_signer(session.center(), vehicle, public, made=day)
    session.output().answer({"signer": row.as_record()}, f"{row.id} signs for {row.vehicle}")


@signer.command("revoke")
def revoke(key: Annotated[str, typer.Argument(help="the key's id, from `drive signer list`")]) -> None:
    """From now on nothing signed with this key comes in."""
    from onshore.drive import signers

    signers.revoke_signer(session.center(), key)
    session.output().answer({"revoked": key}, f"{key} revoked")


@signer.command("list")
def list_signers() -> None:
    """Every key with the state that the ledger gives it."""
    from onshore.drive import signers

    rows = [row.as_record() for row in signers.signers(session.center())]
    show = session.output()
    show.table("", rows)
    show.answer({"signers": rows}, f"{len(rows)} keys")


@fence.command("set")
def set_fence(
    file: Annotated[Path, typer.Argument(metavar="GEOJSON", help="polygons of areas that recordings must not touch")],
    action: Annotated[str, typer.Option(help="quarantine or drop what touches one")] = "quarantine",
) -> None:
    """Take a map of fenced areas; intake judges by it from now on."""
    from onshore.drive import fence as fencing

    taken = fencing.set_fence(session.center(), file, action=action)
    document = {"fence": taken.version, "polygons": len(taken.polygons), "action": taken.action}
    session.output().answer(document, f"map {taken.version}: {len(taken.polygons)} polygons, {taken.action}")


@fence.command("check")
def check_fence(
    destroy: Annotated[bool, typer.Option("--destroy", help="destroy what touches it, with tombstones")] = False,
) -> None:
    """Hold the map against the segments that are here; only the custodian of positions can."""
    from onshore.drive import fence as fencing
    from onshore.drive import positions

    center = session.center()
    record = fencing.fence_record(center)
    if record is None:
        raise UsageError("fence", "there is no map yet; `onshore drive fence set GEOJSON`.")
    found = positions.recheck(center, fencing.Fence.from_record(record), destroy=destroy)
    session.output().answer(found, *(f"{name}: {value}" for name, value in found.items()))
