"""`onshore border`: the only way off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onshore.cli import session
from onshore.core.errors import RefusedError

noun = typer.Typer(no_args_is_help=True, help="The border: check, explain, permits, export, import, duties.")
permit = typer.Typer(no_args_is_help=True, help="Permits: request, approve, list; k of n distinct people.")
people = typer.Typer(no_args_is_help=True, help="People: enroll with roles and region, dismiss, list; client CAs.")
noun.add_typer(people, name="people")
canary = typer.Typer(no_args_is_help=True, help="Canaries: make drives that show what a model remembers.")
noun.add_typer(permit, name="permit")
noun.add_typer(canary, name="canary")
audit = typer.Typer(no_args_is_help=True, help="Audits of anonymisation: draw pictures, mark them, show the bounds.")
noun.add_typer(audit, name="audit")
report = typer.Typer(no_args_is_help=True, help="Reports to the authority.")
noun.add_typer(report, name="report")
erasure = typer.Typer(no_args_is_help=True, help="Erasures: list, show, close; the ten-working-day clock.")
noun.add_typer(erasure, name="erasure")

BUCKET = ["target", "name", "labelled", "covered", "low", "high", "least", "status"]


def add_to(app: typer.Typer) -> None:
    app.add_typer(noun, name="border")


@noun.command("check")
def check(
    artifact: Annotated[str, typer.Argument(help="a digest, an id or a file")],
    to: Annotated[str, typer.Option(help="the region it would go to")],
) -> None:
    """Would this be allowed to leave? Answers with rule and clause; writes a ledger line either way."""
    from onshore import border

    decision = border.check(session.center(), artifact, to)
    if decision.refusal is not None:
        raise RefusedError(decision.refusal)
    session.output().answer({"artifact": artifact, "to": to, "allowed": True}, f"{artifact} may leave to {to}")


@noun.command("explain")
def explain(code: Annotated[str, typer.Argument(metavar="REFUSAL", help="a refusal's code")]) -> None:
    """What a refusal means: rule, clause, and what to do."""
    from onshore import border

    document = border.explain(code, session.center().pack)
    session.output().answer(document, *(f"{name}: {value}" for name, value in document.items()))


@noun.command("export")
def export(
    artifact: Annotated[str, typer.Argument()],
    permit_id: Annotated[str, typer.Option("--permit", help="an approved permit's id")],
    out: Annotated[Path, typer.Option(help="where the file and its permit are written")],
) -> None:
    """Let one permitted artifact leave: re-serialised, scanned, ledger line first, then the file."""
    from onshore import border

    path = border.export(session.center(), artifact, permit=permit_id, out_dir=out)
    session.output().answer({"file": str(path)}, f"written {path}")


@noun.command("import")
def import_file(file: Annotated[Path, typer.Argument(metavar="FILE", help="weights as safetensors")]) -> None:
    """Bring an artifact in through the gate: safetensors only, re-serialised, labelled."""
    from onshore import border

    artifact = border.import_file(session.center(), file)
    session.output().answer({"artifact": artifact.as_record()}, artifact.id)


@canary.command("make")
def canary_make(
    out: Annotated[Path, typer.Option(help="an in-region folder; add its drives and freeze them like any other")],
    count: Annotated[int, typer.Option(min=8, max=4096, help="how many to plant; twins are kept back")] = 32,
) -> None:
    """Make synthetic drives whose futures follow from nothing: what a model knows of them, it has memorised."""
    from onshore.border.canaries import make_canaries

    files = make_canaries(session.center(), out, count=count)
    session.output().answer({"files": [str(path) for path in files]}, f"{len(files)} canary drives in {out}")


@audit.command("draw")
def audit_draw(
    out: Annotated[Path, typer.Option(help="an in-region folder for the pictures")],
    pictures: Annotated[int, typer.Option(min=20, max=5000, help="how many; a bucket needs about 190 faces")] = 200,
    anonymiser: Annotated[str | None, typer.Option(help="its digest, if segments have several")] = None,
) -> None:
    """Draw a sample of anonymised pictures for people to mark; every drawn sample counts."""
    from onshore.border.audit import draw_audit

    found = draw_audit(session.center(), out, pictures=pictures, anonymiser=anonymiser)
    told = f"audit {found['audit']}: {len(found['files'])} pictures in {out}, of {found['segments']} segments"
    session.output().answer({"audit": found}, told)


@audit.command("mark")
def audit_mark(
    identity: Annotated[str, typer.Argument(metavar="AUDIT")],
    marks: Annotated[Path, typer.Argument(help="CSV: file, class, x0, y0, x1, y1, seen, circumstance")],
) -> None:
    """Take a person's marks; exit 1 when a bucket is below the region's bound."""
    from onshore.border.audit import mark_audit

    found = mark_audit(session.center(), identity, marks)
    show = session.output()
    show.table("anonymised, by bucket", found["standing"], BUCKET)
    show.answer({"audit": found}, f"{found['controls_seen']} of {found['controls']} drawn faces were seen")
    if any(row["status"] == "short" for row in found["standing"]):
        raise typer.Exit(1)


@audit.command("show")
def audit_show() -> None:
    """Every audit, and the bound of each bucket over all that were marked."""
    from onshore.border.audit import buckets_of
    from onshore.border.book import read_book

    center = session.center()
    book = read_book(center)
    rows = [{**body, "marked": one in book.marked} for one, body in book.audits.items()]
    buckets = [b.as_record() for d in sorted({row["anonymiser"] for row in rows}) for b in buckets_of(center, d)]
    show = session.output()
    show.table("drawn", rows, ["audit", "segments", "pictures", "marked"])
    show.table("anonymised, by bucket", buckets, BUCKET)
    show.answer({"audits": rows, "buckets": buckets})


@noun.command("leakage")
def leakage(model: Annotated[str, typer.Argument(metavar="MODEL", help="the weights' id")]) -> None:
    """Measure what a model remembers of its canaries, sign the certificate, write it to the ledger."""
    from onshore import border

    found = border.measure_leakage(session.center(), model)
    session.output().answer({"leakage": found}, *(f"{name}: {value}" for name, value in found.items()))
    if found["verdict"] != "passes":
        raise typer.Exit(1)


@noun.command("duties")
def duties() -> None:
    """The region's duties: enforced (naming the test), attested, or left to the operator."""
    from onshore import border

    rows = border.duties(session.center())
    show = session.output()
    show.table("no legal advice; figures are policy values", rows, "id demand status control certainty".split())
    show.answer({"duties": rows})


@noun.command("prove-jail")
def prove_jail() -> None:
    """Try every known way out from inside the jail and write the result to the ledger."""
    from onshore.flywheel import doctor

    document = doctor.prove_jail(session.center())
    session.output().answer(document, *(f"{name}: {value}" for name, value in document.items()))
    if document["open"]:
        raise typer.Exit(1)


@noun.command("erase")
def erase(
    subject: Annotated[str, typer.Argument(help="a vehicle's name, driver:NAME, or a salted id")],
) -> None:
    """Erase a vehicle or driver everywhere: keys, bytes, rows; mark the models that saw it; print the plan."""
    from onshore.border.erasure import erase as erase_subject

    done = erase_subject(session.center(), subject)
    show = session.output()
    show.table("models that descend from it", list(done.models), ["model", "answer"])
    told = [f"erasure {done.id}: {done.state}, due {done.due}", *(f"{k}: {v}" for k, v in done.receipts.items())]
    show.answer({"erasure": done.as_record()}, *told, *(f"to do: {step}" for step in done.plan))


@noun.command("saw")
def saw(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    what: Annotated[str, typer.Argument(help="a clip, segment, drive or salted subject id")],
) -> None:
    """Did a model see this in training? With a Merkle proof of membership or of absence."""
    from onshore.border.seen import seen

    found = seen(session.center(), model, what)
    roots = [f"{proof['log']}: root {proof['root']}" for proof in found.proofs]
    session.output().answer(found.as_record(), f"{found.answer} {found.why}".strip(), *roots)


@noun.command("sweep")
def sweep() -> None:
    """Destroy what has expired, with receipts; it was unreadable before."""
    from onshore.border.retention import sweep as sweep_center

    document = sweep_center(session.center())
    session.output().answer(document, *(f"{name}: {value}" for name, value in document.items()))


@erasure.command("list")
def list_erasures() -> None:
    """Every request: state, due day, working days left, alarm."""
    from onshore.border.erasure import erasures

    rows = erasures(session.center())
    show = session.output()
    show.table("", rows)
    show.answer({"erasures": rows}, *(f"ALARM: {row['id']} is due {row['due']}" for row in rows if row["alarm"]))


@erasure.command("show")
def show_erasure(identity: Annotated[str, typer.Argument(metavar="ERASURE")]) -> None:
    """One request: reach, models, plan, and what still holds bytes."""
    from onshore.border import erasure as erasing

    center = session.center()
    one = erasing.erasure(center, identity)
    held = erasing.holding(center, one)
    document = {"erasure": one.as_record(), "holding": held}
    session.output().answer(document, f"{one.id}: {one.state}, due {one.due}", f"still holding: {held or 'nothing'}")


@erasure.command("close")
def close_erasure(identity: Annotated[str, typer.Argument(metavar="ERASURE")]) -> None:
    """Close a request after searching every store; refused while one still holds bytes."""
    from onshore.border.erasure import close

    one = close(session.center(), identity)
    session.output().answer({"erasure": one.as_record()}, f"{one.id} closed")


@report.command("annual")
def annual(
    year: Annotated[int, typer.Option(help="the calendar year, UTC")],
    answers: Annotated[Path | None, typer.Option(help="TOML with the fields that only the operator knows")] = None,
    out: Annotated[Path | None, typer.Option(help="also write it here: in-region, or with a permit")] = None,
    permit_id: Annotated[str | None, typer.Option("--permit")] = None,
) -> None:
    """The yearly report, from the ledger and the operator's answers; refused while a field is empty."""
    from onshore import border
    from onshore.border.annual import annual_report

    found = annual_report(session.center(), year, answers)
    if out is not None:
        border.write_out(session.center(), [found.id], out, permit_id)
    show = session.output()
    rows = [{"field": name, **row} for name, row in found.fields.items()]
    show.table(f"annual report {year}, due {found.due}", rows, ["field", "clause", "source", "answer"])
    show.answer({"report": found.as_record()}, f"report {found.id}, sha256 {found.sha256}")


@noun.command("attest-store")
def attest_store(
    description: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML: kind, region, replication, lifecycle, versions")
    ],
    accept: Annotated[bool, typer.Option(help="a changed set-up becomes the attested one")] = False,
) -> None:
    """Write into the ledger where the bytes lie and who copies them; refuse copies elsewhere and silent changes."""
    from dataclasses import asdict

    from onshore.border.storage import attest_store as attest

    found = attest(session.center(), description, accept=accept)
    told = f"store {found.sha256}, {found.trust}; changed: {', '.join(found.changed) or 'nothing'}"
    session.output().answer({"store": asdict(found)}, told)


@noun.command("reconcile")
def reconcile(
    flows: Annotated[
        Path, typer.Argument(help="CSV or JSON of the firewall's flows: start, end, destination, bytes_out")
    ],
    inside: Annotated[list[str] | None, typer.Option(help="a network of the region, such as 10.0.0.0/8")] = None,
) -> None:
    """Compare what the network carried with what the ledger says left; flag what does not add up."""
    from onshore.border.reconcile import reconcile as compare

    found = compare(session.center(), flows, inside=inside or ())
    show = session.output()
    show.table("not explained by any export", list(found.flagged))
    said = f"{found.bytes_out} bytes went out, {found.unexplained_bytes} unexplained; {len(found.silent)} exports without a flow"
    show.answer({"reconciliation": found.as_record()}, said)
    if not found.adds_up:
        raise typer.Exit(1)


@permit.command("request")
def request(
    artifact: Annotated[str, typer.Argument()],
    recipient: Annotated[str, typer.Option()],
    to: Annotated[str, typer.Option(help="the recipient's region")],
    purpose: Annotated[str, typer.Option()],
    days: Annotated[int, typer.Option(min=1, max=366, help="how long it is valid")] = 30,
    basis: Annotated[str, typer.Option(help="what in law it rests on, where the region asks: an assessment's id")] = "",
) -> None:
    """Ask for a permit: bound to digest, recipient, purpose and expiry."""
    from onshore import border

    row = border.request_permit(
        session.center(),
        artifact,
        recipient=recipient,
        to_region=to,
        purpose=purpose,
        expires_days=days,
        requester=session.actor(),
        basis=basis,
    )
    session.output().answer({"permit": vars(row)}, f"permit {row.id} asked for; it needs approvals")


@permit.command("approve")
def approve(
    permit_id: Annotated[str, typer.Argument(metavar="PERMIT")],
) -> None:
    """Approve with an enrolled person's key, as that person (--as NAME); the requester cannot."""
    from onshore import border

    row = border.approve(session.center(), permit_id, session.actor())
    session.output().answer({"permit": vars(row)}, f"permit {row.id} approved by {session.actor()}")


@permit.command("enroll")
def enroll(name: Annotated[str, typer.Argument(help="a person")]) -> None:
    """Enroll an approver: makes a key outside the center."""
    from onshore import border

    key = border.enroll_approver(session.center(), name)
    session.output().answer({"approver": name, "key": key}, f"{name} enrolled with key {key}")


@permit.command("list")
def list_permits() -> None:
    """Every permit and its approvals."""
    from onshore import border

    rows = border.permits(session.center())
    show = session.output()
    show.table("", rows)
    show.answer({"permits": rows})


@people.command("enroll")
def enroll_person(
    name: Annotated[str, typer.Argument(help="a person")],
    role: Annotated[list[str], typer.Option(help="engineer, custodian, approver, compliance or auditor; repeatable")],
    region: Annotated[str | None, typer.Option(help="where the person belongs; the center's region by default")] = None,
    certificate: Annotated[
        bool, typer.Option("--certificate", help="issue a client certificate from the center's own CA")
    ] = False,
) -> None:
    """Enroll a person with roles and a region; again with others replaces them."""
    from onshore.border import users, viewing

    center = session.center()
    document = users.enroll_person(center, name, role, region=region)
    if certificate:
        pem = viewing.issue_certificate(center, name, region=document["region"])
        document["certificate"] = str(viewing.keep_certificate(center, name, pem))
    session.output().answer({"person": document}, *(f"{key}: {value}" for key, value in document.items()))


@people.command("dismiss")
def dismiss_person(name: Annotated[str, typer.Argument(help="a person")]) -> None:
    """From now on this person may do, see and approve nothing."""
    from onshore.border import users

    users.dismiss_person(session.center(), name)
    session.output().answer({"dismissed": name}, f"{name} dismissed")


@people.command("list")
def list_people() -> None:
    """Everybody enrolled, by salted id: roles and region."""
    from onshore.border.book import read_book

    rows = [
        {"person": who, "roles": sorted(one.roles), "region": one.region}
        for who, one in sorted(read_book(session.center()).people.items())
    ]
    show = session.output()
    show.table("", rows)
    show.answer({"people": rows})


@people.command("trust")
def trust(file: Annotated[Path, typer.Argument(metavar="CA", help="a client CA's certificate, PEM")]) -> None:
    """Accept client certificates of this CA; they say where a viewer belongs."""
    from onshore.border import viewing

    digest = viewing.trust_client_ca(session.center(), file.read_bytes())
    session.output().answer({"ca": digest}, f"client CA {digest} trusted")
