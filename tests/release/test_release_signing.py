"""Invariant 4, second half: no verdict, no signature. Real centers, real repositories, real cars."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.fleet import EXPIRED, Shop
from bundle.fleet import payload as plain_payload
from bundle.killing import survive
from bundle.networks import network
from onshore.bundle import tuf
from onshore.bundle.format import Payload, from_archive, to_archive
from onshore.bundle.inputs import View
from onshore.car import provision, status, update
from onshore.core.errors import CorruptError, NotFoundError, Refusal, RefusedError, UsageError
from onshore.core.label import Label
from onshore.release import CheckResult, Verdict, candidate, gate, releases, revoke, root, show, sign, verify
from onshore.release.gates import judge, load_gate
from onshore.store import Center
from onshore.store.tables import Table

NET = network()


def evidence(skip: str = "", synthetic: bool = True) -> dict[str, CheckResult]:
    figures = {"complete": 0.0, "reproducible": 0.0, "onnx_equals_torch": 3e-6, "open_loop_measured": 0.9}
    return {
        name: CheckResult(name=name, status="pass", figure=figure, evidence="ab" * 32, synthetic=synthetic)
        for name, figure in figures.items()
        if name != skip
    }


@pytest.fixture
def center(tmp_path: Path) -> Center:
    return Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", seed=1, in_region_dirs=[tmp_path / "out"])


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return tmp_path / "out" / "repo"


def offer(center: Center, counter: int = 1, **facts: object) -> Payload:
    weights = center.put(b"weights", Label(region="cn", kind="weights", synthetic=True, retention="model"))
    fields = {"region": "cn", "model_id": weights.id, "gate": "bench", "counter": counter, "synthetic": True, **facts}
    return candidate(NET, **fields)  # type: ignore[arg-type]


def kinds(center: Center) -> list[str]:
    return [entry.kind for entry in center.ledger.entries()]


def refused(code: str, call: Callable[[], object]) -> RefusedError:
    with pytest.raises(RefusedError) as problem:
        call()
    assert problem.value.code == code, problem.value
    return problem.value


def test_from_gate_to_car(center: Center, repo: Path, tmp_path: Path) -> None:
    payload = offer(center, notes="steadier at crossings")
    verdict = gate(center, payload, evidence())
    row = sign(center, payload, verdict, repo)
    assert (row.status, row.road_use, row.synthetic) == ("signed", "not for the road", True)
    assert isinstance(verify(center, repo), tuf.VerifiedBundle)
    provision(tmp_path / "car", name="car-0007", region="cn", root=root(center))
    assert update(repo, tmp_path / "car").running == row.id
    assert [entry["id"] for entry in releases(center)] == [row.id]
    assert {check["status"] for check in show(center, row.model)[0]["verdict"]["checks"]} == {"pass", "not asked"}
    assert center.ledger.verify().ok
    assert kinds(center) == ["center", "gate", "release"]
    label = center.artifact(row.artifact).label
    assert (label.kind, label.synthetic) == ("release", True)


def test_doing_it_again_changes_nothing(center: Center, repo: Path) -> None:
    payload = offer(center)
    first = sign(center, payload, gate(center, payload, evidence()), repo)
    before = {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()}
    again = offer(center)
    assert sign(center, again, gate(center, again, evidence()), repo) == first
    assert {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()} == before
    assert kinds(center) == ["center", "gate", "release"]
    sign(center, again, gate(center, again, evidence()), repo, renew=True)
    assert tuf.offered_version(repo) == 2


def test_signing_an_older_release_again_does_not_take_the_newer_one_back(center: Center, repo: Path) -> None:
    first, second = offer(center), offer(center, counter=2)
    rows = [sign(center, payload, gate(center, payload, evidence()), repo) for payload in (first, second)]
    before = {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()}
    assert [sign(center, payload, gate(center, payload, evidence()), repo) for payload in (first, second)] == rows
    assert {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()} == before


def test_a_failed_or_missing_check_is_not_signed_and_says_which(center: Center, repo: Path) -> None:
    payload = offer(center)
    verdict = gate(center, payload, evidence(skip="open_loop_measured"))
    assert not verdict.passed
    problem = refused("gate_failed", lambda: sign(center, payload, verdict, repo))
    assert "open_loop_measured: not measurable" in str(problem)
    assert not repo.exists()
    assert kinds(center) == ["center", "gate", "refusal"]


def test_a_town_gate_needs_the_closed_loop(center: Center, repo: Path) -> None:
    payload = offer(center, gate="town")
    refused("gate_failed", lambda: sign(center, payload, gate(center, payload, evidence()), repo))
    better = {
        "closed_loop_above_base": CheckResult(
            name="closed_loop_above_base", status="pass", figure=9.0, p_value=0.01, evidence="cd" * 32, synthetic=True
        )
    }
    refused("gate_failed", lambda: sign(center, payload, gate(center, payload, {**evidence(), **better}), repo))
    better["anonymisation_audited"] = CheckResult(
        name="anonymisation_audited", status="pass", figure=0.0, evidence="ef" * 32
    )
    row = sign(center, payload, gate(center, payload, {**evidence(), **better}), repo)
    assert row.road_use == "simulated roads only"


def test_a_verdict_does_not_serve_another_payload_or_gate(center: Center, repo: Path) -> None:
    payload = offer(center)
    verdict = gate(center, payload, evidence())
    for other in (
        offer(center, counter=2),
        offer(center, notes="another note"),
        offer(center, view=View(height_m=1.5)),
        offer(center, gate="town"),
    ):
        refused("gate_failed", lambda other=other: sign(center, other, verdict, repo))
        forged = replace(verdict, payload_digest=other.digest, gate=other.metadata.gate)
        refused("gate_failed", lambda other=other, forged=forged: sign(center, other, forged, repo))


def test_a_verdict_made_by_hand_is_not_recorded(center: Center, repo: Path) -> None:
    payload = offer(center)
    by_hand = judge(load_gate("bench"), region="cn", model_id="m", payload_digest=payload.digest, evidence=evidence())
    assert by_hand.passed
    assert "verdict-is-recorded" in str(refused("gate_failed", lambda: sign(center, payload, by_hand, repo)))
    empty = replace(by_hand, required=(), checks=())
    refused("gate_failed", lambda: sign(center, payload, empty, repo))
    lax = replace(by_hand, required=("complete",), checks=tuple(c for c in by_hand.checks if c.name == "complete"))
    assert lax.passed
    refused("gate_failed", lambda: sign(center, payload, lax, repo))
    old_rules = replace(gate(center, payload, evidence()), gate_digest="0" * 64)
    refused("gate_failed", lambda: sign(center, payload, old_rules, repo))


forged_checks = st.lists(
    st.tuples(st.sampled_from(["complete", "reproducible", "onnx_equals_torch", "open_loop_measured"]), st.booleans()),
    max_size=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=forged_checks, digest=st.sampled_from(["right", "wrong"]), recorded=st.booleans())
def test_a_signature_exists_only_with_a_recorded_pass_for_these_bytes(
    center: Center, tmp_path: Path, drawn: list[tuple[str, bool]], digest: str, recorded: bool
) -> None:
    payload = offer(center, counter=len(center.table("releases").rows()) + 1)
    found = {
        name: CheckResult(name=name, status="pass" if passed else "fail", figure=0.0, evidence="ab" * 32)
        for name, passed in drawn
    }
    about = payload if digest == "right" else offer(center, counter=900)
    verdict: Verdict
    if recorded:
        verdict = gate(center, about, found)
    else:
        verdict = judge(
            load_gate("bench"), region="cn", model_id="by-hand", payload_digest=about.digest, evidence=found
        )
    passed = {name for name, result in found.items() if result.status == "pass"}
    allowed = recorded and digest == "right" and len(passed) == 4
    repo = tmp_path / "out" / f"repo-{time.monotonic_ns()}"
    if allowed:
        sign(center, payload, verdict, repo)
    else:
        refused("gate_failed", lambda: sign(center, payload, verdict, repo))
    assert (repo / "metadata" / "timestamp.json").exists() == allowed


def test_all_four_passing_is_signed(center: Center, repo: Path) -> None:
    payload = offer(center)
    assert sign(center, payload, gate(center, payload, evidence(synthetic=False)), repo).status == "signed"


def test_the_repository_stays_in_the_region(center: Center, tmp_path: Path) -> None:
    payload = offer(center)
    verdict = gate(center, payload, evidence())
    refused("not_in_region", lambda: sign(center, payload, verdict, tmp_path / "elsewhere"))
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    refused("not_in_region", lambda: sign(center, payload, verdict, tmp_path / "out" / "link"))
    row = sign(center, payload, verdict, tmp_path / "out" / "repo")
    refused("not_in_region", lambda: revoke(center, row.id, tmp_path / "elsewhere", reason="test"))
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_center_signs_for_its_own_region_only(center: Center, repo: Path) -> None:
    payload = candidate(NET, region="us", model_id="weights-a", gate="bench", counter=1)
    verdict = gate(center, payload, evidence())
    refused("wrong_region", lambda: sign(center, payload, verdict, repo))


def test_counters_rise_and_a_recalled_release_stays_recalled(center: Center, repo: Path, tmp_path: Path) -> None:
    first, second = offer(center), offer(center, counter=2)
    one = sign(center, first, gate(center, first, evidence()), repo)
    provision(tmp_path / "car", name="car-0007", region="cn", root=root(center))
    update(repo, tmp_path / "car")
    two = sign(center, second, gate(center, second, evidence()), repo)
    assert update(repo, tmp_path / "car").running == two.id
    same = offer(center, counter=2, notes="other")
    refused("rollback", lambda: sign(center, same, gate(center, same, evidence()), repo))
    revoke(center, two.id, repo, reason="brakes late in rain")
    result = update(repo, tmp_path / "car")
    assert result.refusal is not None and result.refusal.code == "not_allowed"
    assert status(tmp_path / "car").running == one.id
    assert isinstance(verify(center, repo), Refusal)
    refused("rollback", lambda: sign(center, second, gate(center, second, evidence()), repo))
    assert revoke(center, two.id, repo, reason="another word").reason == "brakes late in rain"
    third = offer(center, counter=3)
    sign(center, third, gate(center, third, evidence()), repo)
    assert update(repo, tmp_path / "car").running == third.release_id
    revoke(center, one.id, repo, reason="superseded")
    assert update(repo, tmp_path / "car").outcome == "current"
    assert status(tmp_path / "car").revoked == tuple(sorted([one.id, two.id]))
    assert [entry["status"] for entry in releases(center)] == ["revoked", "revoked", "signed"]
    assert kinds(center).count("revoke") == 2
    with pytest.raises(NotFoundError, match="no release"):
        show(center, "release-x")


def test_a_recall_that_is_asked_for_again_is_published_afresh(
    center: Center, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload, car = offer(center), tmp_path / "car"
    row = sign(center, payload, gate(center, payload, evidence()), repo)
    provision(car, name="car-0007", region="cn", root=root(center))
    update(repo, car)
    with monkeypatch.context() as patch:
        patch.setattr(tuf, "publish", partial(tuf.publish, lifetimes=EXPIRED))
        revoke(center, row.id, repo, reason="brakes late in rain")
    result = update(repo, car)  # the car was off until the recall's time had passed
    assert result.refusal is not None and (result.refusal.code, result.running) == ("expired", row.id)
    revoke(center, row.id, repo, reason="brakes late in rain")
    assert update(repo, car).running is None
    assert kinds(center).count("revoke") == 1


def test_a_model_that_was_signed_more_than_once_does_not_say_which_release_to_recall(
    center: Center, repo: Path
) -> None:
    payloads = [offer(center, counter=counter) for counter in (1, 2)]
    one, two = (sign(center, payload, gate(center, payload, evidence()), repo) for payload in payloads)
    assert one.model == two.model and [row["id"] for row in show(center, one.model)] == [one.id, two.id]
    with pytest.raises(UsageError) as problem:
        revoke(center, one.model, repo, reason="brakes late in rain")
    assert one.id in str(problem.value) and two.id in str(problem.value)
    assert [row["status"] for row in releases(center)] == ["signed", "signed"]
    assert isinstance(verify(center, repo), tuf.VerifiedBundle)
    revoke(center, two.id, repo, reason="brakes late in rain")
    assert revoke(center, one.model, repo, reason="so does this one").id == one.id  # the only one still signed
    assert revoke(center, one.model, repo, reason="again").id == two.id


@contextmanager
def killed(target: object, name: str) -> Iterator[None]:
    """What runs inside dies when it calls `target.name`."""

    def die(*_: object, **__: object) -> None:
        raise SystemExit("killed")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="killed"):
        patch.setattr(target, name, die)
        yield


@pytest.mark.parametrize("moment", ["publish", "append"])
def test_a_kill_while_signing_leaves_the_counter_to_that_payload(center: Center, repo: Path, moment: str) -> None:
    payload, other = offer(center), offer(center, notes="other")
    verdict, rival = (gate(center, one, evidence()) for one in (payload, other))
    with killed(tuf if moment == "publish" else center.ledger, moment):
        sign(center, payload, verdict, repo)
    refused("rollback", lambda: sign(center, other, rival, repo))
    row = sign(center, payload, verdict, repo)
    outcome = verify(center, repo)
    assert isinstance(outcome, tuf.VerifiedBundle) and outcome.release_id == row.id
    assert [entry.body["release"] for entry in center.ledger.entries() if entry.kind == "release"] == [row.id]


def test_a_counter_that_a_repository_offers_is_taken_though_the_center_lost_its_row(center: Center, repo: Path) -> None:
    payload = offer(center, counter=2)
    row = sign(center, payload, gate(center, payload, evidence()), repo)
    center.table("releases").delete(f"id = '{row.id}'")
    for other in (offer(center, counter=2, notes="other"), offer(center)):
        verdict = gate(center, other, evidence())
        refused("rollback", lambda other=other, verdict=verdict: sign(center, other, verdict, repo))
    assert sign(center, payload, gate(center, payload, evidence()), repo) == row
    assert [entry["id"] for entry in releases(center)] == [row.id]


def test_two_who_sign_at_once_do_not_share_a_counter(
    center: Center, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload, other = offer(center), offer(center, notes="other")
    verdict, rival = (gate(center, one, evidence()) for one in (payload, other))
    late: list[RefusedError] = []
    second = Thread(
        target=lambda: late.append(refused("rollback", lambda: sign(Center.open(center.root), other, rival, repo)))
    )
    upsert = Table.upsert

    def slow(table: Table, rows: list[dict[str, object]]) -> None:
        monkeypatch.undo()
        second.start()
        second.join(0.5)  # time enough to check the counter, were it not for the lock
        upsert(table, rows)

    monkeypatch.setattr(Table, "upsert", slow)
    row = sign(center, payload, verdict, repo)
    second.join()
    assert len(late) == 1
    assert [entry["id"] for entry in releases(center)] == [row.id]


def test_a_kill_between_a_recall_and_its_ledger_line_hides_neither(center: Center, repo: Path, tmp_path: Path) -> None:
    first, second = offer(center), offer(center, counter=2)
    one, two = (sign(center, payload, gate(center, payload, evidence()), repo) for payload in (first, second))
    provision(tmp_path / "car", name="car-0007", region="cn", root=root(center))
    assert update(repo, tmp_path / "car").running == two.id
    with killed(center.ledger, "append"):
        revoke(center, two.id, repo, reason="brakes late in rain")
    revoke(center, one.id, repo, reason="superseded")
    outcome = verify(center, repo)
    assert isinstance(outcome, Refusal) and outcome.code == "not_allowed"
    assert update(repo, tmp_path / "car").running is None
    assert status(tmp_path / "car").revoked == tuple(sorted([one.id, two.id]))
    revoke(center, two.id, repo, reason="brakes late in rain")
    lines = [entry.body["release"] for entry in center.ledger.entries() if entry.kind == "revoke"]
    assert lines == [one.id, two.id]


def test_a_kill_before_a_recall_is_published_is_repaired_by_doing_it_again(center: Center, repo: Path) -> None:
    payload = offer(center)
    row = sign(center, payload, gate(center, payload, evidence()), repo)
    with killed(tuf, "publish"):
        revoke(center, row.id, repo, reason="brakes late in rain")
    assert isinstance(verify(center, repo), tuf.VerifiedBundle)
    revoke(center, row.id, repo, reason="brakes late in rain")
    assert isinstance(verify(center, repo), Refusal)
    assert kinds(center).count("revoke") == 1


def test_an_expired_signature_is_refused_and_renewed(center: Center, repo: Path) -> None:
    payload = offer(center)
    verdict = gate(center, payload, evidence())
    sign(center, payload, verdict, repo, lifetimes=EXPIRED)
    outcome = verify(center, repo)
    assert isinstance(outcome, Refusal) and outcome.code == "expired"
    sign(center, payload, verdict, repo, renew=True)
    assert isinstance(verify(center, repo), tuf.VerifiedBundle)


def test_a_repository_from_elsewhere_is_judged_by_our_own_root(center: Center, repo: Path, tmp_path: Path) -> None:
    other = Shop(tmp_path / "other")
    other.release(plain_payload(5))
    with pytest.raises(NotFoundError, match="sign a release first"):
        verify(center, other.repo)
    payload = offer(center)
    sign(center, payload, gate(center, payload, evidence()), repo)
    outcome = verify(center, other.repo)
    assert isinstance(outcome, Refusal) and outcome.code == "bad_signature"


def test_words_the_region_forbids_stop_a_release(center: Center, repo: Path) -> None:
    law = {"product": {"name": "combined driver assistance", "banned": ["autonomous", "自动驾驶"]}}
    center.pack = replace(center.pack, law={**center.pack.law, **law})
    for notes in ("Autonomous at last", "全新自动驾驶"):
        payload = offer(center, notes=notes)
        problem = refused(
            "not_allowed", lambda payload=payload: sign(center, payload, gate(center, payload, evidence()), repo)
        )
        assert "combined driver assistance" in str(problem) and "banned" in str(problem)
    fine = offer(center, notes="driver assistance, steadier at crossings")
    assert sign(center, fine, gate(center, fine, evidence()), repo).status == "signed"


def test_archives_are_the_same_bytes_and_checked(center: Center) -> None:
    payload = offer(center, notes="n")
    assert to_archive(payload) == to_archive(offer(center, notes="n"))
    assert from_archive(to_archive(payload)) == payload
    with pytest.raises(CorruptError, match="not a release archive"):
        from_archive(b"junk")


def test_a_kill_while_signing_is_repaired_by_doing_it_again(tmp_path: Path) -> None:
    survive("signing", tmp_path)
