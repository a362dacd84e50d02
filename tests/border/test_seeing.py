"""Seeing is export: who counts as being at home, and what everybody else may see."""

from __future__ import annotations

import datetime
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from border.conftest import Shore
from onshore import border, cli
from onshore.border import users, viewing
from onshore.border.lines import acting
from onshore.core.errors import InputError, RefusedError
from onshore.store import Center


def enrolled(shore: Shore, name: str, region: str = "us", certified: str | None = None) -> viewing.Viewer:
    users.enroll_person(shore.center, name, ["engineer"], region=region)
    pem = viewing.issue_certificate(shore.center, name, region=certified) if certified else None
    return viewing.identify(shore.center, name, pem)


def seen(shore: Shore, viewer: viewing.Viewer) -> set[str]:
    """Names of the kinds that this viewer may see."""
    kinds = {"raw": shore.raw, "segment": shore.segment, "weights": shore.weights, "metrics": shore.metrics}
    return {kind for kind, artifact in kinds.items() if viewing.may_view(shore.center, viewer, artifact) is None}


def test_a_certificate_of_the_region_sees_what_policy_shows(shore: Shore) -> None:
    viewer = enrolled(shore, "alice", certified="us")
    assert viewer.at_home and seen(shore, viewer) == {"segment", "weights", "metrics"}  # originals are shown to nobody
    viewing.view(shore.center, viewer, "drive-1")
    assert shore.lines("border.view") == []  # a look from home is no export


def test_a_password_account_counts_as_abroad(shore: Shore) -> None:
    viewer = enrolled(shore, "alice")
    assert not viewer.at_home and seen(shore, viewer) == set()


@pytest.mark.parametrize("certified", ["cn", "us"])
def test_from_abroad_only_what_was_cleared_is_seen(shore: Shore, certified: str) -> None:
    """Cleared for cn, so seen from cn; an account that nothing places sees what was cleared for anybody."""
    border.export(shore.center, shore.weights.id, permit=shore.permit(), out_dir=shore.outside)
    viewer = enrolled(shore, "chang", region="cn", certified=certified)
    assert not viewer.at_home and viewer.region == "cn" and seen(shore, viewer) == {"weights"}
    assert seen(shore, enrolled(shore, "dora")) == {"weights"}
    assert seen(shore, enrolled(shore, "emil", region="eu", certified="eu")) == set()
    viewing.view(shore.center, viewer, "model-1")
    for name in ("drive-1", "clip-1", "metrics-1", "no-such-thing"):
        with pytest.raises(RefusedError) as caught:
            viewing.view(shore.center, viewer, name)
        assert caught.value.code == "not_cleared"
    assert len(shore.lines("border.view")) == 1 and shore.lines("border.view")[0]["to"] == "cn"
    assert len([line for line in shore.lines("border.refused") if line["rule"] == "seeing-is-export"]) == 4
    rows = [{"id": "model-1"}, {"id": "drive-1"}, {"id": "clip-1"}]
    assert viewing.visible(shore.center, viewer, rows) == [{"id": "model-1"}]
    assert shore.lines("border.view.list")[-1]["hidden"] == 2


def test_50_foreign_engineer_behind_an_in_region_jump_host(shore: Shore) -> None:
    """Attempt 50. Whatever address the connection comes from, only certificate and enrolment are asked; nothing that
    decides takes an address."""
    for decide in (viewing.identify, viewing.may_view, viewing.view, viewing.visible):
        names = " ".join(inspect.signature(decide).parameters)
        assert not any(word in names for word in ("address", "ip", "host", "peer", "remote"))
    foreign = enrolled(shore, "mallory", region="cn", certified="cn")
    lent = viewing.identify(shore.center, "mallory", viewing.issue_certificate(shore.center, "alice"))
    moved = enrolled(shore, "oscar", region="cn", certified="us")  # a home certificate, a person of elsewhere
    unknown = viewing.identify(shore.center, "nobody", viewing.issue_certificate(shore.center, "nobody"))
    for viewer in (foreign, lent, moved, unknown):
        assert not viewer.at_home and seen(shore, viewer) == set(), viewer.why
        with pytest.raises(RefusedError) as caught:
            viewing.view(shore.center, viewer, "drive-1")
        assert caught.value.code == "not_cleared" and caught.value.refusal.rule == "seeing-is-export"
    assert len(shore.lines("border.refused")) == 4


def test_a_certificate_of_another_ca_proves_nothing(shore: Shore, other_center: Callable[[str], Center]) -> None:
    users.enroll_person(shore.center, "alice", ["engineer"])
    viewing.issue_certificate(shore.center, "alice")
    foreign = viewing.issue_certificate(other_center("us"), "alice")
    assert not viewing.identify(shore.center, "alice", foreign).at_home
    ca = (other_center("us").keys.folder / "people").glob("ca-*.pem")
    pem = next(ca).read_bytes()
    folder = shore.center.keys.folder / "people"
    (folder / "ca-slipped-in.pem").write_bytes(pem)  # a file the ledger never enrolled
    assert not viewing.identify(shore.center, "alice", foreign).at_home
    viewing.trust_client_ca(shore.center, pem)
    assert viewing.identify(shore.center, "alice", foreign).at_home


@pytest.mark.parametrize("days", [-1, 400])
def test_an_expired_or_early_certificate_proves_nothing(shore: Shore, days: int) -> None:
    users.enroll_person(shore.center, "alice", ["engineer"])
    pem = viewing.issue_certificate(shore.center, "alice")
    now = datetime.datetime.now(datetime.UTC)
    assert viewing.identify(shore.center, "alice", pem, now=now).at_home
    assert not viewing.identify(shore.center, "alice", pem, now=now + datetime.timedelta(days=days)).at_home


def test_a_dismissed_person_is_abroad_and_may_nothing(shore: Shore) -> None:
    users.enroll_person(shore.center, "alice", ["engineer"])
    pem = viewing.issue_certificate(shore.center, "alice")
    users.dismiss_person(shore.center, "alice")
    assert not viewing.identify(shore.center, "alice", pem).at_home
    assert users.roles_of(shore.center, "alice") == frozenset()


def test_a_certificate_without_its_key_is_refused(shore: Shore) -> None:
    one, two = (viewing.issue_certificate(shore.center, "alice") for _ in range(2))
    viewing.prove_possession(one)
    certificate, key = one.split(b"-----BEGIN PRIVATE")[0], two.split(b"-----END CERTIFICATE-----\n")[1]
    for pem in (certificate, certificate + key, b"junk"):
        with pytest.raises(InputError, match="bad_signature"):
            viewing.prove_possession(pem)


# -- roles ---------------------------------------------------------------------------------------------------------------


def test_every_verb_belongs_to_a_role() -> None:
    from cli.test_command import ALL

    for verb in ALL:
        if verb not in {
            "demo",
            "doctor",
            "init",
            "ledger verify",
            *(f"backup {word}" for word in ("verify", "restore")),
        }:
            assert users.may_act(verb, users.ANYBODY), f"{verb}: give it a row in border/users.py"
            assert not users.may_act(verb, frozenset()), verb
    assert not users.may_act("border escape", frozenset(["engineer"])) and not users.may_act("new", users.ANYBODY)
    assert users.may_act("border permit approve", frozenset(["approver"]))
    assert not users.may_act("border permit approve", frozenset(users.OPERATOR))


def test_roles_and_regions_that_are_none_are_named(shore: Shore) -> None:
    for roles, region in (([], "us"), (["king"], "us"), (["engineer"], "u-s")):
        with pytest.raises(InputError, match="bad_config"):
            users.enroll_person(shore.center, "alice", roles, region=region)
    before = shore.center.ledger.head().size
    users.enroll_person(shore.center, "alice", ["auditor"])
    users.enroll_person(shore.center, "Alice", ["auditor"])
    assert shore.center.ledger.head().size == before + 1
    assert "alice" not in json.dumps(shore.lines("border.person"))


# -- the command ---------------------------------------------------------------------------------------------------------

Ask = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def ask(shore: Shore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    for name in ("ONSHORE_USER", "ONSHORE_CENTER", "ONSHORE_CERTIFICATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("getpass.getuser", lambda: "olga")

    def run(*words: str) -> tuple[int, dict[str, object]]:
        capsys.readouterr()
        code = cli.run([*words, "--json", "--center", str(shore.center.root)])
        text = capsys.readouterr().out
        return code, json.loads(text) if text else {}

    return run


def code_of(answer: dict[str, object]) -> tuple[object, object]:
    refused = answer["refused"]
    assert isinstance(refused, dict)
    return refused["code"], refused["rule"]


def test_who_runs_a_fresh_center_is_its_operator_once(shore: Shore, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    code, answer = ask("model", "list", "--as", "mallory")  # a name that is only claimed enrolls nobody
    assert code == 3 and code_of(answer) == ("not_allowed", "roles")
    assert ask("model", "list")[0] == 0
    assert users.roles_of(shore.center, "olga") == frozenset(users.OPERATOR)
    monkeypatch.setattr("getpass.getuser", lambda: "second")
    assert ask("model", "list")[0] == 3
    assert len([one for one in shore.lines("border.refused") if one["rule"] == "roles"]) == 2


def test_the_command_without_a_role_refuses_a_raw_export(shore: Shore, ask: Ask) -> None:
    """And with every role as well."""
    assert ask("border", "people", "enroll", "quinn", "--role", "auditor")[0] == 0
    for name in ("quinn", "nobody"):
        code, answer = ask("drive", "export", "drive-1", "--out", str(shore.outside), "--as", name)
        assert code == 3 and code_of(answer) == ("not_allowed", "roles")
    code, answer = ask("border", "export", shore.raw.id, "--permit", "permit-x", "--out", str(shore.outside))
    assert code in (1, 3) and not shore.outside.exists()
    assert ask("border", "check", shore.raw.id, "--to", "cn")[1]["refused"]["code"] == "raw_ban"  # type: ignore[index]


def test_the_command_shows_a_foreign_engineer_cleared_things_only(shore: Shore, ask: Ask) -> None:
    border.export(shore.center, shore.weights.id, permit=shore.permit(), out_dir=shore.outside)
    ask("border", "people", "enroll", "chang", "--role", "engineer", "--role", "auditor", "--region", "cn")
    for words in (
        ["drive", "show", "drive-1"],
        ["clip", "show", "clip-1"],
        ["ledger", "show"],
        ["border", "people", "list"],
    ):
        code, answer = ask(*words, "--as", "chang")
        assert code == 3 and code_of(answer) == ("not_cleared", "seeing-is-export"), words
    assert ask("dataset", "list", "--as", "chang")[1] == {"datasets": []}
    models = ask("model", "list", "--as", "chang")[1]["models"]
    assert isinstance(models, list) and [row["id"] for row in models] == [shore.weights.id]
    assert ask("model", "list")[1]["models"]


def test_an_account_needs_a_certificate_to_be_at_home(
    shore: Shore, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("border", "people", "enroll", "alice", "--role", "engineer")
    assert ask("border", "permit", "list", "--as", "alice")[0] == 3
    mine = tmp_path / "alice.pem"
    mine.write_bytes(viewing.issue_certificate(shore.center, "alice"))
    monkeypatch.setenv("ONSHORE_CERTIFICATE", str(mine))
    assert ask("border", "permit", "list", "--as", "alice")[0] == 0
    assert ask("model", "list", "--as", "bea")[0] == 3  # alice's certificate says nothing of bea
    assert acting(shore.center).startswith("person-")


def test_an_approver_acts_as_themselves(shore: Shore, ask: Ask) -> None:
    _, asked = ask(
        *("border", "permit", "request", shore.weights.id, "--recipient", "Example Cars", "--to", "cn"),
        *("--purpose", "base model"),
    )
    permit = asked["permit"]["id"]  # type: ignore[index]
    assert ask("border", "permit", "approve", str(permit), "--as", "bertha")[0] == 0
    code, answer = ask("border", "permit", "approve", str(permit))
    assert code == 3 and code_of(answer) == ("not_allowed", "roles")
