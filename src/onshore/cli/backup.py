"""`onshore backup`: copies that survive a lost disk, and the drill that shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="Backups: make, verify, restore, keys, drill.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="backup")


@noun.command("make")
def make(out: Annotated[Path, typer.Option(help="a new folder inside the region, on another disk")]) -> None:
    """Copy the center, consistent while it is in use; no key is in it."""
    from onshore import border
    from onshore.store import backup

    center, show = session.center(), session.output()
    folder = border.open_folder(center, [], out, kind="backup")
    with show.progress() as progress:
        document = backup.make_backup(center, folder, progress=progress)
    show.answer(document, *(f"{name}: {value}" for name, value in document.items()))


@noun.command("keys")
def keys(out: Annotated[Path, typer.Option(help="a new folder inside the region, apart from every backup")]) -> None:
    """Copy the key folder; again after each erasure, and then destroy the older copy."""
    from onshore import border
    from onshore.store import backup

    center = session.center()
    place = border.open_folder(center, [], out, kind="backup")
    folder = backup.copy_keys(center, place)
    session.output().answer({"keys": str(folder)}, f"keys copied to {folder}; keep it away from the backups")


@noun.command("verify")
def verify(folder: Annotated[Path, typer.Argument(metavar="BACKUP", help="a backup's folder")]) -> None:
    """Hash every file of a backup and compare. Needs no center."""
    from onshore.store import backup

    show = session.output()
    with show.progress() as progress:
        manifest = backup.verify_backup(folder, progress=progress)
    show.answer({"ok": True, "files": len(manifest["files"])}, f"{len(manifest['files'])} files as backed up")


@noun.command("restore")
def restore(
    folder: Annotated[Path, typer.Argument(metavar="BACKUP", help="a backup's folder")],
    root: Annotated[Path, typer.Argument(metavar="CENTER", help="a new folder")],
    keys: Annotated[Path | None, typer.Option(help="where the key folder is now, if it moved")] = None,
) -> None:
    """Make the center again from a backup and its keys; refuses a damaged backup or another center's keys."""
    from onshore.store import backup

    show = session.output()
    with show.progress() as progress:
        center = backup.restore(folder, root, keys_dir=keys, progress=progress)
    show.answer({"center": str(root), "id": center.id}, f"center {center.id} restored at {root}")


@noun.command("drill")
def drill(folder: Annotated[Path, typer.Argument(metavar="BACKUP", help="a backup's folder")]) -> None:
    """Restore beside the backup, open everything, try once without keys, and remove it again."""
    from onshore.store import backup

    show = session.output()
    with show.progress() as progress:
        report = backup.drill(session.center(), folder, progress=progress)
    show.answer(report, *(f"{name}: {value}" for name, value in report.items()))
    if not report["ledger"] or report["damaged"] or report["without_keys"] != "key_missing":
        raise typer.Exit(1)
