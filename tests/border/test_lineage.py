"""100,000 random lineage graphs, honest and tampered with: nothing raw reaches the outside without its declassifier."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from border.conftest import ANONYMISED, RAW
from onshore.border.lineage import RAW as RAW_MARK
from onshore.border.lineage import Fault, attestation_of, faults, summary
from onshore.core.errors import InputError
from onshore.core.label import Artifact, Label
from onshore.residency import RAW_SENSITIVITIES, Attestation, derive

GRAPHS = 100_000
PERSONAL = sorted(RAW_SENSITIVITIES)
ATTESTATIONS = [
    Attestation(
        declassifier=f"declassifier-{number}",
        removes=frozenset(name for bit, name in enumerate(PERSONAL) if number >> bit & 1),
        detector_digest=f"{number:064x}",
        measured=dict.fromkeys(PERSONAL, 0.99),
    )
    for number in range(2 ** len(PERSONAL))
]
FACTS: list[dict[str, object]] = [{"declassified": attestation.as_record()} for attestation in ATTESTATIONS]
SUBSETS = [attestation.removes for attestation in ATTESTATIONS]
RAW_LABELS = [replace(RAW, sensitivity=subset, subjects=frozenset()) for subset in SUBSETS]
PUBLIC = Label(region="us", kind="report", synthetic=False)
Graph = dict[str, Artifact]


def grow(chance: random.Random) -> Graph:
    """Two to seven artifacts; each but the originals is derived from one to three earlier ones, as stages do it."""
    graph: Graph = {"0": Artifact(id="0", label=chance.choice(RAW_LABELS))}
    for number in range(1, chance.randint(2, 7)):
        identity = str(number)
        if chance.random() < 0.15:
            label = chance.choice(RAW_LABELS) if chance.random() < 0.5 else PUBLIC
            graph[identity] = Artifact(id=identity, label=label)
            continue
        parents = tuple(chance.sample(sorted(graph), min(len(graph), chance.randint(1, 3))))
        works = chance.choice([0, 0, 31, 31, chance.randrange(32)])
        attestation = ATTESTATIONS[works] if works else None
        label = derive((graph[p].label for p in parents), kind="weights", retention="model", declassified=attestation)
        graph[identity] = Artifact(id=identity, label=label, parents=parents, meta=FACTS[works] if works else {})
    return graph


def tamper(graph: Graph, chance: random.Random) -> None:
    """What someone with a database shell might do to one artifact."""
    derived = [one for one in graph.values() if one.parents]
    if not derived:
        return
    one = chance.choice(derived)
    match chance.randrange(4):
        case 0:
            changed = replace(one, label=replace(one.label, sensitivity=frozenset()))
        case 1:
            changed = replace(one, label=replace(one.label, derived_from_raw=False, sensitivity=frozenset()))
        case 2:
            changed = replace(one, meta={})
        case _:
            changed = replace(one, label=replace(one.label, kind="metrics", sensitivity=chance.choice(SUBSETS)))
    graph[one.id] = changed


def leaking(graph: Graph, target: str, removed: frozenset[str] = frozenset(), worked: bool = False) -> bool:
    """Path by path, and not as the gate reckons: does some original reach `target` with a sensitivity nobody removed?"""
    one = graph[target]
    if one.label.kind == "raw_drive":
        return not worked or bool(one.label.sensitivity - removed)
    if one.meta:
        attestation = ATTESTATIONS[FACTS.index(one.meta)]
        removed, worked = removed | attestation.removes, True
    return any(leaking(graph, parent, removed, worked) for parent in one.parents)


def may_leave(graph: Graph, target: str) -> bool:
    label = graph[target].label
    return (
        label.kind != "raw_drive"
        and not label.sensitivity & RAW_SENSITIVITIES
        and not faults(graph[target], graph.__getitem__)
    )


@pytest.mark.parametrize("tampered", [False, True])
def test_no_path_from_raw_outside_without_its_declassifier(tampered: bool) -> None:
    chance = random.Random(20_26 + tampered)
    left, leaks = 0, 0
    for _ in range(GRAPHS // 2):
        graph = grow(chance)
        if tampered:
            tamper(graph, chance)
        target = str(len(graph) - 1)
        allowed, leak = may_leave(graph, target), leaking(graph, target)
        assert not (allowed and leak), graph
        if not tampered:
            assert allowed or leak or graph[target].label.kind == "raw_drive", graph  # the gate is not simply shut
        left, leaks = left + allowed, leaks + leak
    assert left > GRAPHS // 20 and leaks > GRAPHS // 20  # both answers were really tried


def chain(*links: Artifact) -> list[Fault]:
    return faults(links[-1], {one.id: one for one in links}.__getitem__)


def test_each_lie_on_a_label_is_a_fault() -> None:
    raw = Artifact(id="raw", label=replace(RAW, synthetic=True))
    honest = derive([raw.label], kind="segment", declassified=ANONYMISED)
    facts = {"declassified": ANONYMISED.as_record()}

    def segment(**changed: object) -> Artifact:
        return Artifact(id="segment", label=replace(honest, **changed), parents=("raw",), meta=facts)  # type: ignore[arg-type]

    assert chain(raw, segment()) == []
    assert chain(raw, segment(synthetic=False))[0].what.endswith("synthetic")
    assert chain(raw, segment(derived_from_raw=False))[0].what.endswith("raw data")
    assert chain(raw, segment(region="cn"))[0].what.endswith("another region")
    assert "subjects" in chain(raw, segment(subjects=frozenset()))[0].what
    assert chain(raw, segment(sensitivity=frozenset()))[0].missing == {"unmeasured_plates"}
    unattested = replace(segment(), meta={})
    assert {name for fault in chain(raw, unattested) for name in fault.missing} >= {RAW_MARK, "face", "plate"}
    assert all(fault.is_raw for fault in chain(raw, unattested) if fault.missing)


def test_an_attestation_that_cannot_be_read_removes_nothing() -> None:
    for broken in (
        {},
        {"declassified": 5},
        {"declassified": {"removes": ["face"]}},
        {"declassified": {"declassifier": "UPPER"}},
    ):
        assert attestation_of(Artifact(id="a", label=RAW, meta=broken)) is None
    record = {**ANONYMISED.as_record(), "measured": {"face": "not measurable", "plate": 1, "position": 1}}
    assert attestation_of(Artifact(id="a", label=RAW, meta={"declassified": record})) is None


def test_lineage_in_a_circle_is_refused() -> None:
    links = {"a": Artifact(id="a", label=PUBLIC, parents=("b",)), "b": Artifact(id="b", label=PUBLIC, parents=("a",))}
    with pytest.raises(InputError, match="circle"):
        faults(links["a"], links.__getitem__)


def test_a_long_chain_and_a_wide_dataset_are_walked() -> None:
    label = Label(region="us", kind="proxy")
    links = {str(i): Artifact(id=str(i), label=label, parents=(str(i - 1),) if i else ()) for i in range(5000)}
    assert faults(links["4999"], links.__getitem__) == []
    links["all"] = Artifact(id="all", label=label, parents=tuple(map(str, range(5000))))
    assert faults(links["all"], links.__getitem__) == []
    assert summary(links["all"], links.__getitem__) == {"ancestors": {"proxy": 5000}, "declassifiers": []}
