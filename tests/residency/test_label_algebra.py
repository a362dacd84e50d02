"""The label algebra: what is made of something carries everything that it carried."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.core.errors import InputError, RefusedError, UsageError
from onshore.core.label import KINDS, RETENTIONS, SENSITIVITIES, Label
from onshore.residency import Attestation, derive, lost
from onshore.residency.labels import RETENTION_ORDER

DIGEST = "ab" * 32
sensitivities = st.frozensets(st.sampled_from(sorted(SENSITIVITIES)))
labels = st.builds(
    Label,
    region=st.just("cn"),
    kind=st.sampled_from(sorted(KINDS)),
    sensitivity=sensitivities,
    subjects=st.frozensets(st.sampled_from(["vehicle-1", "vehicle-2", "driver-1"])),
    retention=st.sampled_from(sorted(RETENTIONS)),
    custodian=st.sampled_from(["center", "surveyor"]),
    derived_from_raw=st.booleans(),
    synthetic=st.booleans(),
)
parents = st.lists(labels, min_size=1, max_size=4)


def attestation(removes: frozenset[str], adds: frozenset[str] = frozenset()) -> Attestation:
    measured = {name: {"recall": 0.98} for name in removes}
    return Attestation(declassifier="anonymiser", removes=removes, adds=adds, detector_digest=DIGEST, measured=measured)


def test_retention_order_names_every_retention() -> None:
    assert set(RETENTION_ORDER) == RETENTIONS


@settings(deadline=None)
@given(parents, st.sampled_from(sorted(KINDS)))
def test_union_of_parents(labels: list[Label], kind: str) -> None:
    made = derive(labels, kind=kind)
    assert made.kind == kind
    assert made.sensitivity == frozenset().union(*(label.sensitivity for label in labels))
    assert made.subjects == frozenset().union(*(label.subjects for label in labels))
    assert made.synthetic == any(label.synthetic for label in labels)
    assert made.derived_from_raw == any(label.derived_from_raw or label.kind == "raw_drive" for label in labels)
    assert not lost(made, labels)


@settings(deadline=None)
@given(parents, sensitivities, sensitivities)
def test_only_what_is_named_is_removed(labels: list[Label], removes: frozenset[str], adds: frozenset[str]) -> None:
    whole = derive(labels, kind="segment")
    made = derive(labels, kind="segment", declassified=attestation(removes, adds))
    assert made.sensitivity == (whole.sensitivity - removes) | adds
    assert replace(made, sensitivity=whole.sensitivity) == whole, "a declassifier touches sensitivities alone"
    assert lost(made, labels) == (whole.sensitivity & removes) - adds
    assert not lost(made, labels, attestation(removes, adds))


@settings(deadline=None)
@given(parents, st.permutations(range(4)))
def test_order_of_parents_does_not_matter(labels: list[Label], order: list[int]) -> None:
    shuffled = [labels[index] for index in order if index < len(labels)]
    assert derive(shuffled, kind="dataset") == derive(labels, kind="dataset")


@settings(deadline=None)
@given(parents, parents)
def test_deriving_in_steps_loses_nothing(first: list[Label], second: list[Label]) -> None:
    stepped = derive([derive(first, kind="clip"), derive(second, kind="clip")], kind="dataset")
    assert stepped == derive([*first, *second], kind="dataset")


@settings(deadline=None)
@given(parents, st.sampled_from(["us", "eu"]))
def test_region_is_never_removed_nor_mixed(labels: list[Label], other: str) -> None:
    assert derive(labels, kind="clip").region == "cn"
    with pytest.raises(RefusedError, match="out_of_region"):
        derive([*labels, replace(labels[0], region=other)], kind="clip")
    with pytest.raises(InputError):
        attestation(frozenset(["region"]))


def test_retention_is_the_shortest_clock_unless_given() -> None:
    long, short = (
        Label(region="cn", kind="clip", retention="evidence"),
        Label(region="cn", kind="clip", retention="raw"),
    )
    assert derive([long, short], kind="clip").retention == "raw"
    assert derive([long, short], kind="clip", retention="clip").retention == "clip"


def test_neither_a_custodian_nor_a_subject_is_lost_on_the_way() -> None:
    parent = Label(region="cn", kind="positions", custodian="custodian", subjects=frozenset(["vehicle-1"]))
    assert lost(Label(region="cn", kind="positions"), [parent]) == {"custodian custodian", "subjects"}
    assert lost(replace(parent, subjects=frozenset()), [parent]) == {"subjects"}
    assert lost(replace(parent, custodian="center"), [parent]) == {"custodian custodian"}
    other = replace(parent, custodian="surveyor")
    assert lost(other, [parent]) == {"custodian custodian"}
    wider = replace(parent, subjects=frozenset(["vehicle-1", "vehicle-2"]))
    assert not lost(wider, [parent, replace(parent, custodian="center")])


def test_custodians_do_not_mix() -> None:
    first, second = (Label(region="cn", kind="clip", custodian=name) for name in ("surveyor", "other-surveyor"))
    with pytest.raises(InputError, match="conflict"):
        derive([first, second], kind="clip")


def test_no_parents_no_label() -> None:
    with pytest.raises(UsageError):
        derive([], kind="clip")


@pytest.mark.parametrize("figure", [None, "", {}, "not measurable"])
def test_a_removal_without_a_figure_is_no_removal(figure: object) -> None:
    with pytest.raises(InputError, match="not_measurable"):
        Attestation(
            declassifier="anonymiser", removes=frozenset(["plate"]), detector_digest=DIGEST, measured={"plate": figure}
        )


def test_a_declassifier_has_a_name_and_a_digest() -> None:
    with pytest.raises(InputError, match="bad_id"):
        Attestation(declassifier="", removes=frozenset(), detector_digest=DIGEST, measured={})
    with pytest.raises(InputError, match="bad_id"):
        Attestation(declassifier="a", removes=frozenset(), detector_digest="x", measured={})
