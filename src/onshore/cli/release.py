"""`onshore release`: gate, sign, show, revoke, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session

noun = typer.Typer(no_args_is_help=True, help="Releases: gate, sign, show, revoke, verify.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="release")


@noun.command("gate")
def gate(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    gate_name: Annotated[str, typer.Option("--gate", help="bench, bench-int8 or town")] = "bench",
    dataset: Annotated[str | None, typer.Option(help="the dataset whose held-out drives count")] = None,
    suite: Annotated[str | None, typer.Option(help="the closed-loop suite, for gates that ask for it")] = None,
    base: Annotated[str | None, typer.Option(help="the model to beat, for gates that ask for it")] = None,
) -> None:
    """Measure what a gate asks for and give the verdict, check by check."""
    from onshore.flywheel import shipping

    show = session.output()
    with show.progress() as progress:
        verdict = shipping.gate_model(
            session.center(), model, gate=gate_name, dataset=dataset, suite=suite, base=base, progress=progress
        )
    show.table(f"gate {gate_name}", verdict["checks"], "name status figure unit reason".split())
    show.answer({"verdict": verdict}, "passed" if verdict["passed"] else "NOT passed")
    if not verdict["passed"]:
        raise typer.Exit(1)


@noun.command("sign")
def sign(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="the newest that passed by default")] = None,
    gate_name: Annotated[str | None, typer.Option("--gate", help="the gate whose verdict counts")] = None,
    days: Annotated[int, typer.Option(min=1, help="how long cars accept it")] = 90,
) -> None:
    """Sign a model that passed its gate and publish it in the center's release repository."""
    from onshore.flywheel import shipping

    row = shipping.sign_model(session.center(), model, gate=gate_name, days=days)
    session.output().answer({"release": row}, *(f"{name}: {value}" for name, value in row.items()))


@noun.command("show")
def show_releases() -> None:
    """Every release of the center."""
    from onshore import release

    rows = session.sift(release.show(session.center()))
    show = session.output()
    show.table("", rows, "id model gate road_use status synthetic".split())
    show.answer({"releases": rows})


@noun.command("revoke")
def revoke(
    release_id: Annotated[str, typer.Argument(metavar="RELEASE")],
    reason: Annotated[str, typer.Option(help="why; cars show it")],
) -> None:
    """Take a release back: cars refuse it from their next update on."""
    from onshore.flywheel import shipping

    row = shipping.revoke_release(session.center(), release_id, reason=reason)
    session.output().answer({"release": row}, *(f"{name}: {value}" for name, value in row.items()))


@noun.command("verify")
def verify(
    repository: Annotated[Path | None, typer.Argument(help="a release repository; the center's own by default")] = None,
) -> None:
    """Verify a release repository as a car would."""
    from onshore.flywheel import shipping

    document = shipping.verify_releases(session.center(), repository)
    session.output().answer(document, *(f"{name}: {value}" for name, value in document.items()))
