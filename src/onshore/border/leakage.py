"""The leakage certificate: how much better a model knows the canaries it was trained on than their twins.

Rule: measured on the exported ONNX, through the runner that cars use, so that what ships is what is measured; signed
with the border's own key and bound to the weights' digest; no canaries in the training data, no export of the model, or a
network this measurement cannot run: 'not measurable', which never passes. Limits are the region pack's `[export.leakage]`.

The measure: for each canary, how much nearer the plan is to its own future than to the other canaries' (an advantage, in
units of plan error); the chance that a planted canary's advantage exceeds a twin's (AUC, 0.5 means nothing is remembered)
with a bootstrap interval; and exposure in bits, log2(candidates / rank) (Carlini et al. 2019), planted less twins.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onshore.border.ancestry import Finder, is_nobodys
from onshore.border.book import LEAKAGE, read_book
from onshore.border.canaries import Canary, canaries, canary_key, recording_of
from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import InputError, Refusal
from onshore.core.label import Artifact

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from onshore.dataset import Windows
    from onshore.store import Center

RULE = "leakage-certificate"
NOBODYS = "not asked: only synthetic ancestors"
RESAMPLES = 2000
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LeakageLimits:
    """required: whether weights leave without a certificate. planted: the fewest canaries. auc_upper: the most that the
    upper end of the AUC's 95 % interval may be."""

    required: bool = True
    planted: int = 24
    auc_upper: float = 0.75

    @classmethod
    def from_law(cls, law: Mapping[str, Any]) -> LeakageLimits:
        given = law.get("export", {}).get("leakage", {})
        if set(given) - {"required", "planted", "auc_upper"}:
            raise InputError("bad_config", "export.leakage", "region.toml gives required, planted and auc_upper.")
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What was measured: AUC with its 95 % interval, exposure in bits (planted less twins), and how many canaries."""

    planted: int
    twins: int
    auc: float
    low: float
    high: float
    exposure_bits: float


def measure_leakage(center: Center, model: str) -> dict[str, Any]:
    """Measure a model's weights, sign the certificate, write its ledger line and return it.

    verdict: 'passes', 'memorised' or 'not measurable' with `why`. Errors: NotFoundError, InputError for another kind.
    """
    weights = center.artifact(model)
    if weights.label.kind != "weights":
        raise InputError("not_measurable", model, f"this is {weights.label.kind}; name trained weights.")
    limits = LeakageLimits.from_law(center.pack.law)
    onnx = _exported(center, weights)
    trained = _trained_on(center, weights)
    seen = [one for one in canaries(center) if one.planted and one.drive_id(center) in trained]
    twins = [one for one in canaries(center) if not one.planted and one.drive_id(center) not in trained]
    if onnx is None:
        return _certified(center, weights, None, None, limits, "it has no ONNX export; run `onshore model export`.")
    if onnx.meta["trainable"].get("side_views"):
        return _certified(center, weights, onnx, None, limits, "it sees through several cameras; canaries have one")
    if len(seen) < limits.planted:
        why = f"{len(seen)} planted canaries are in its training data, {limits.planted} are needed"
        return _certified(center, weights, onnx, None, limits, why)
    exposure = exposure_of(*_advantages(center, onnx, seen, twins), seed=sha256_hex(weights.id.encode()))
    return _certified(center, weights, onnx, exposure, limits, "")


def exposure_of(planted: Floats, twins: Floats, planted_bits: Floats, twin_bits: Floats, *, seed: str) -> Exposure:
    """AUC of the planted canaries' advantages over the twins', with a percentile bootstrap over both groups."""
    draw = np.random.default_rng(int(seed[:16], 16))
    wins = (planted[:, None] > twins[None]) + 0.5 * (planted[:, None] == twins[None])
    rows = draw.integers(0, len(planted), (RESAMPLES, len(planted)))
    columns = draw.integers(0, len(twins), (RESAMPLES, len(twins)))
    again = np.array([wins[np.ix_(r, c)].mean() for r, c in zip(rows, columns, strict=True)])
    low, high = np.percentile(again, [2.5, 97.5])
    return Exposure(
        planted=len(planted),
        twins=len(twins),
        auc=float(wins.mean()),
        low=float(low),
        high=float(high),
        exposure_bits=float(planted_bits.mean() - twin_bits.mean()),
    )


def objection(center: Center, artifact: Artifact, parent_of: Finder | None = None) -> Refusal | None:
    """Why the gate does not let weights or their ONNX pass: memorised, or not measured where the region asks for it.

    Weights in which nobody's data is (`is_nobodys`) need no measurement; a measured 'memorised' stands all the same.
    """
    limits, found = LeakageLimits.from_law(center.pack.law), _certificate_for(center, artifact)
    verdict = found["verdict"] if found else "not measurable"
    if verdict == "memorised":
        clause = f"planted canaries are told from their twins with AUC up to {found['high']:.2f}" if found else ""
        return _no("not_cleared", artifact.id, f"the model has memorised its training data; {clause}")
    if verdict == "not measurable" and limits.required and not is_nobodys(center, artifact, parent_of):
        return _no("not_measurable", artifact.id, found["why"] if found else "nobody measured its leakage")
    return None


def certificate_of(center: Center, weights: str) -> dict[str, Any] | None:
    """The newest certificate of these weights whose signature holds, or None."""
    from cryptography.exceptions import InvalidSignature

    body = read_book(center).leakage.get(weights)
    if body is None:
        return None
    record = {name: value for name, value in body.items() if name != "signature"}
    try:
        _signer(center).public_key().verify(bytes.fromhex(str(body["signature"])), canonical_json(record))
    except (InvalidSignature, ValueError):
        return None
    return body


def _certificate_for(center: Center, artifact: Artifact) -> dict[str, Any] | None:
    """Of weights their own; of an ONNX export its weights', if it is the very file that was measured or they failed."""
    if artifact.label.kind != "onnx":
        return certificate_of(center, artifact.id)
    of_weights = [certificate_of(center, parent) for parent in artifact.parents]
    held = [one for one in of_weights if one is not None]
    return next((one for one in held if one["onnx"] == artifact.id or one["verdict"] == "memorised"), None)


def told(center: Center, artifact: Artifact, parent_of: Finder | None = None) -> str:
    """What an export line says of leakage."""
    found = _certificate_for(center, artifact)
    if found is None or found["verdict"] == "not measurable":
        return NOBODYS if is_nobodys(center, artifact, parent_of) else "not measurable"
    return f"{found['verdict']}: AUC {found['auc']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _no(code: str, artifact: str, clause: str) -> Refusal:
    return Refusal(
        code=code,
        subject=f"export {artifact}",
        rule=RULE,
        clause=f"weights leave with a measurement of what they remember; {clause}",
        remedy="Plant canaries with `onshore border canary make`, train on them, and run `onshore border leakage`.",
    )


def _certified(
    center: Center, weights: Artifact, onnx: Artifact | None, exposure: Exposure | None, limits: LeakageLimits, why: str
) -> dict[str, Any]:
    verdict = "not measurable"
    if exposure is not None:
        verdict = "passes" if exposure.high <= limits.auc_upper else "memorised"
    record: dict[str, Any] = {
        "weights": weights.id,
        "onnx": onnx.id if onnx else "",
        "verdict": verdict,
        "why": why,
        "limits": asdict(limits),
        **(asdict(exposure) if exposure else {}),
        "policy": center.pack.digest,
        "trust": "self-attested",
    }
    signature = _signer(center).sign(canonical_json(record)).hex()
    center.ledger.append(LEAKAGE, {**record, "signature": signature})
    return {**record, "signature": signature}


def _signer(center: Center) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(sha256_hex(b"certificates|" + canary_key(center))))


def _exported(center: Center, weights: Artifact) -> Artifact | None:
    made = [one for one in center.children(weights.id) if one.label.kind == "onnx"]
    return max(made, key=lambda one: one.id) if made else None


def _trained_on(center: Center, weights: Artifact) -> set[str]:
    """Ids of the drives in the training splits of every dataset among the ancestors."""
    waiting, known, drives = [weights.id], set[str](), set[str]()
    while waiting:
        identity = waiting.pop()
        if identity in known:
            continue
        known.add(identity)
        one = center.artifact(identity)
        if one.label.kind == "dataset":
            manifest = json.loads(center.read(identity, purpose="train"))
            drives |= {clip["drive"] for clip in manifest.get("clips", ()) if clip["split"] == "train"}
        elif one.label.kind in {"weights", "takeovers"}:
            waiting += one.parents
    return drives


# -- running the network over canaries ---------------------------------------------------------------------------------


def _advantages(
    center: Center, onnx: Artifact, seen: Sequence[Canary], twins: Sequence[Canary]
) -> tuple[Floats, Floats, Floats, Floats]:
    """Advantage and exposure (bits) of every planted canary and of every twin."""
    from onshore.dataset.batches import in_order

    windows = _windows(center, onnx, [*seen, *twins])
    plans_path, plans_speed, own = [], [], []
    for batch in in_order(windows, batch=64):
        path, speed = _run(center, onnx, batch.frames_BTCHW, batch.side_B9)
        plans_path.append(path)
        plans_speed.append(speed)
        own.append(batch)
    path_BK2, speed_BT = np.concatenate(plans_path), np.concatenate(plans_speed)
    futures = np.concatenate([one.path_BK2 for one in own]), np.concatenate([one.speed_BT for one in own])
    masks = np.concatenate([one.path_mask_BK for one in own]), np.concatenate([one.speed_mask_BT for one in own])
    errors = _errors(path_BK2, speed_BT, *futures, *masks)
    mine = np.diag(errors)
    count = len(mine)
    advantage = (errors.sum(1) - mine) / (count - 1) - mine
    rank = 1 + (errors < mine[:, None]).sum(1)
    bits = math.log2(count) - np.log2(rank)
    planted = np.array([windows.segments[index] for index in windows.segment_M.tolist()])
    names = {f"segment-{one.seed[:16].hex()}" for one in seen}
    is_planted = np.isin(planted, sorted(names))
    return advantage[is_planted], advantage[~is_planted], bits[is_planted], bits[~is_planted]


def _errors(
    path: Floats, speed: Floats, paths: Floats, speeds: Floats, path_mask: Floats, speed_mask: Floats
) -> Floats:
    """(M, M): how far plan i is from the future of canary j, over what is known of it."""
    ways = np.abs(path[:, None] - paths[None]).sum(-1) * path_mask[None]
    paces = np.abs(speed[:, None] - speeds[None]) * speed_mask[None]
    far = ways.sum(-1) / np.maximum(path_mask.sum(-1), 1)[None]
    return np.asarray(far + paces.sum(-1) / np.maximum(speed_mask.sum(-1), 1)[None], np.float64)


def _run(center: Center, onnx: Artifact, frames: NDArray[np.uint8], side: NDArray[np.float32]) -> tuple[Floats, Floats]:
    from onshore.bundle.format import BundleMetadata
    from onshore.bundle.inputs import View
    from onshore.bundle.runner import Network

    data = center.read(onnx.id, purpose="train")
    seen = onnx.meta["trainable"]
    metadata = BundleMetadata(
        region=center.region,
        model_id=onnx.meta["model"],
        onnx_sha256=sha256_hex(data),
        view=View.from_record(seen["view"]),
        frame_offsets_s=tuple(seen["frame_offsets_s"]),
        synthetic=onnx.label.synthetic,
    )
    path, speed = Network(data, metadata).run([frames], side)
    return np.asarray(path, np.float64), np.asarray(speed, np.float64)


def _windows(center: Center, onnx: Artifact, all_of_them: Sequence[Canary]) -> Windows:
    """Every canary through the very way that drives take: written, read, anonymised, encoded, cut into windows."""
    from dataclasses import replace

    from onshore.bundle.inputs import View
    from onshore.dataset.proxy import build_proxy
    from onshore.dataset.windows import WindowSpec, build_windows
    from onshore.drive.discover import discover
    from onshore.drive.workers import Desk
    from onshore.wire import write_mcap

    view = View.from_record(onnx.meta["trainable"]["view"])
    offsets = tuple(onnx.meta["trainable"]["frame_offsets_s"])
    proxies, spans = [], {}
    with tempfile.TemporaryDirectory(prefix="onshore-canaries-") as folder:
        for one in all_of_them:
            write_mcap(recording_of(one), Path(folder) / f"segment-{one.seed[:16].hex()}.mcap")
        sources = discover([Path(folder)], []).sources
        with Desk(center, sources, 1) as desk:
            placed = [desk.located(source) for source in sources]
            for source, outcome in desk.prepared(placed, center.pack.law):
                if isinstance(outcome, InputError):
                    raise outcome
                name = source.source.path.stem
                clean = replace(outcome.recording, segment_id=name, drive_id=f"drive-{name}")
                proxies.append(build_proxy(clean, view))
                spans[name] = [(clean.start_ns, clean.end_ns)]
    spec = WindowSpec(view=view, frame_offsets_s=offsets, stride_s=0.5)
    return build_windows(proxies, spans, spec)
