"""How long does one residency decision take?

    python benchmarks/decision_latency.py [--questions 2000]

Questions of every kind, allowed and refused, each about another artifact and a second later than the one before; one core.
Rules remember answers by everything that the engine would read, so labels that repeat are answered from memory and exports,
whose permits depend on the second, never are. `new_us` forbids that memory: every question goes through the engine. Prints
one JSON line; microseconds (wall). `peer` is the same engine given the policy and schema as text at every question, the way
its documentation starts; `limit` is the engine alone, with entities, policy and schema all parsed beforehand. `target_us`
is what the project promises.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import cedarpy

from onshore.core.label import Label
from onshore.region import RegionPack, load_pack
from onshore.residency import PermitFacts, Request, Rules
from onshore.residency.decisions import ANYONE, context_json, entities_json, question

TARGET_US = 150.0
KINDS = ("segment", "clip", "dataset", "weights", "metrics", "report")
ACTIONS = ("store", "read", "train", "show", "export")


def questions(count: int) -> list[Request]:
    permit = PermitFacts(
        id="permit-1",
        artifacts=frozenset(f"artifact-{number}" for number in range(0, count, 2)),
        kinds=frozenset(["weights", "metrics", "report"]),
        recipient_region="us",
        purpose="adaptation",
        expires_s=1 << 33,
        approvals=2,
        threshold=2,
        accepts=frozenset(["position"]),
    )
    made = []
    for number in range(count):
        action = ACTIONS[number % len(ACTIONS)]
        label = Label(
            region="cn",
            kind=KINDS[number % len(KINDS)],
            sensitivity=frozenset(["position"] if number % 3 else []),
            subjects=frozenset(f"vehicle-{number + other}" for other in range(8)),
        )
        made.append(
            Request(
                action=action,
                label=label,
                region="cn",
                actor=f"person-{number % 7}",
                role="engineer",
                artifact=f"artifact-{number}",
                recipient_region="us" if action == "export" else None,
                purpose="adaptation",
                permit=permit if action == "export" else None,
                now_s=1_800_000_000 + number,
            )
        )
    return made


def timed(act: Callable[[Any], object], items: Sequence[Any]) -> dict[str, float]:
    spans = []
    for item in items:
        start = time.perf_counter_ns()
        act(item)
        spans.append((time.perf_counter_ns() - start) / 1000)
    return {"median_us": round(statistics.median(spans), 1), "p99_us": round(statistics.quantiles(spans, n=100)[98], 1)}


def peer(pack: RegionPack) -> Callable[[Request], object]:
    def ask(request: Request) -> object:
        assert request.label is not None
        entities = json.loads(entities_json(request, request.label))
        return cedarpy.is_authorized(as_engine_reads(request), pack.policy_text, entities, pack.schema_text)

    return ask


def as_engine_reads(request: Request) -> dict[str, Any]:
    assert request.label is not None
    return question(ANYONE, ANYONE, request.action, context_json(request, request.label))


def limit(pack: RegionPack, asked: Sequence[Request]) -> tuple[Callable[[Any], object], list[Any]]:
    schema, policies = cedarpy.Schema.from_str(pack.schema_text), cedarpy.PolicySet.from_str(pack.policy_text)
    ready = []
    for request in asked:
        assert request.label is not None
        ready.append(
            (as_engine_reads(request), cedarpy.Entities.from_json_str(entities_json(request, request.label), schema))
        )
    return (lambda item: cedarpy.is_authorized(item[0], policies, item[1])), ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=2000)
    asked = questions(parser.parse_args().questions)
    pack = load_pack("cn")
    rules = Rules.from_pack(pack)
    forgetful = Rules.from_pack(pack, remembered=0)
    timed(forgetful.decide, asked[:200])
    ours, new = timed(rules.decide, asked), timed(forgetful.decide, asked)
    theirs = timed(peer(pack), asked[: max(100, len(asked) // 10)])
    engine = timed(*limit(pack, asked))
    allowed = sum(rules.decide(request) is None for request in asked)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    line = {
        "benchmark": "decision_latency",
        **ours,
        "target_us": TARGET_US,
        "met": ours["median_us"] <= TARGET_US,
        "new_us": new,
        "allowed_share": round(allowed / len(asked), 3),
        "peer": {
            "name": f"cedarpy {version('cedarpy')} from text",
            **theirs,
        },
        "peer_over_ours": round(theirs["median_us"] / ours["median_us"], 2),
        "limit": {"name": "Cedar engine, everything parsed beforehand", **engine},
        "ours_over_limit": round(ours["median_us"] / engine["median_us"], 2),
        "new_over_limit": round(new["median_us"] / engine["median_us"], 2),
        "hardware": f"{platform.machine()}, one core, Python {platform.python_version()}",
        "commit": commit.stdout.strip(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
