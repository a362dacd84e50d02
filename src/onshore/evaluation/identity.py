"""What a policy is, whatever it is called: the record by which a result that was driven before is found again.

Rule: two policies with the same record drive the same; what drives otherwise has another record. Where nobody can tell, no
record is like any other, and what was driven is not read back.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onshore.bundle.format import BundleMetadata
from onshore.core.control import CONTROLLER_VERSION
from onshore.core.digest import blob_id, sha256_hex
from onshore.core.errors import NotFoundError
from onshore.core.label import Artifact
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S
from onshore.store import Center

if TYPE_CHECKING:
    from onshore.world import PolicySpec

#: What of a network's metadata a plan depends on.
DRIVEN_BY = ("view", "side_views", "frame_offsets_s", "arcs_m", "times_s")


def policy_record(center: Center, policy: PolicySpec) -> dict[str, Any]:
    """What a policy is. Of a model of this center its bytes say all of it; what is from elsewhere brings its files."""
    plain = {name: value for name, value in vars(policy).items() if name not in ("name", "onnx", "metadata")}
    network = sha256_hex(policy.onnx) if policy.onnx is not None else ""
    record = {**plain, "onnx": network, "controller": CONTROLLER_VERSION}
    if policy.metadata is not None and not _is_its_own(policy.metadata, artifact_of(center, policy)):
        told = policy.metadata.as_record()
        record["metadata"] = {name: told[name] for name in DRIVEN_BY}
    if policy.kind == "process" or (policy.kind in ("python", "scripted") and not policy.entry.startswith("onshore.")):
        files = _of_command(policy.entry) if policy.kind == "process" else _of_module(policy.entry.partition(":")[0])
        record["files"] = [_digest(file) for file in files] or f"not known, {uuid.uuid4().hex}"
    return record


def artifact_of(center: Center, policy: PolicySpec) -> list[Artifact]:
    """The ONNX artifact of this center whose bytes drive, if one does."""
    if policy.onnx is None:
        return []
    try:
        return [center.artifact(blob_id(center.region, policy.onnx))]
    except NotFoundError:
        return []


def _is_its_own(metadata: BundleMetadata, exported: Sequence[Artifact]) -> bool:
    """Whether metadata is what the center itself says of a network that it exported."""
    from onshore.model.trainable import from_record

    if not exported or "trainable" not in exported[0].meta:
        return False
    seen = from_record(exported[0].meta["trainable"])
    return metadata == replace(
        metadata,
        view=seen.view,
        side_views=seen.side_views,
        frame_offsets_s=seen.frame_offsets_s,
        arcs_m=PATH_ARCS_M,
        times_s=SPEED_TIMES_S,
    )


def _of_command(command: str) -> list[Path]:
    """The files that a command names; none where it runs a module, which no word of it tells."""
    try:
        words = shlex.split(command)
    except ValueError:  # starting it says what is wrong with it
        return []
    parts = [part for word in words for part in (word, word.partition("=")[2]) if part]
    return [] if "-m" in words else [Path(part) for part in parts if Path(part).is_file()]


def _of_module(module: str) -> list[Path]:
    """The source file of a module, found as a child finds it and without running any of it."""
    where, name, origin = [os.getcwd(), *sys.path], "", None
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        found = PathFinder.find_spec(name, where)
        if found is None:
            return []
        where, origin = list(found.submodule_search_locations or ()), found.origin
    return [Path(origin)] if origin is not None and Path(origin).is_file() else []


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
