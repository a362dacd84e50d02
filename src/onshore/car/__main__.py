"""The vehicle program: `python -m onshore.car VERB …` prints one JSON document. Exit codes as the center's command.

This is what runs in a car; the center's own `onshore car` verbs call the same functions.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from onshore.car import provision, shadow, status, update
from onshore.core.errors import OnshoreError
from onshore.wire import read_mcap


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="onshore-car", description=__doc__)
    verbs = root.add_subparsers(dest="verb", required=True)
    for verb in ("provision", "status", "update", "shadow"):
        command = verbs.add_parser(verb)
        command.add_argument("car", type=Path, help="the car's own folder")
        if verb == "provision":
            command.add_argument("--name", required=True)
            command.add_argument("--region", required=True)
            command.add_argument("--root", type=Path, required=True, help="the root it will trust")
        if verb == "update":
            command.add_argument("--repository", type=Path, required=True)
        if verb == "shadow":
            command.add_argument("recordings", type=Path, nargs="+", help="MCAP segments")
    return root


def answer(words: argparse.Namespace) -> dict[str, Any]:
    """Do what one line asks; returns the document to print."""
    if words.verb == "provision":
        provision(words.car, name=words.name, region=words.region, root=words.root.read_bytes())
    if words.verb == "update":
        return update(words.repository, words.car).as_record()
    if words.verb == "shadow":
        reports = [shadow(words.car, read_mcap(path)) for path in words.recordings]
        return {"reports": [{**report.as_record(), "requests": report.requests} for report in reports]}
    return {"running": status(words.car).running}


def main() -> None:
    words = parser().parse_args()
    try:
        document = answer(words)
    except OnshoreError as problem:
        sys.stdout.write(json.dumps({"error": problem.as_record()}))
        sys.exit(problem.exit_code)
    sys.stdout.write(json.dumps(document))
    sys.exit(3 if document.get("refusal") else 0)


if __name__ == "__main__":
    main()
