"""What a release consists of, byte for byte, before anybody signs it.

Rule: the same network and the same facts give the same payload digest on every machine: canonical JSON, fixed file
names, no time, no signature, no path. The verdict speaks *about* the payload digest, so it travels beside the payload
and not inside it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass, fields
from typing import Any

from onshore.bundle.inputs import View
from onshore.core.control import CONTROLLER_VERSION
from onshore.core.digest import canonical_json, record_digest, sha256_hex
from onshore.core.errors import CorruptError, InputError
from onshore.core.plan import PATH_ARCS_M, SPEED_TIMES_S

MODEL, METADATA, NOTES = "model.onnx", "metadata.json", "notes.txt"
#: Files that travel beside the payload: the gate's verdict about it, and the index that names all digests.
VERDICT, RELEASE = "verdict.json", "release.json"
NOT_FOR_THE_ROAD = "not for the road"
ROAD_USES: tuple[str, ...] = (NOT_FOR_THE_ROAD, "simulated roads only", "public road")
LIMITS_BYTES = {MODEL: 512 << 20, METADATA: 1 << 16, NOTES: 1 << 16, VERDICT: 1 << 20, RELEASE: 1 << 16}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class BundleMetadata:
    """What a car must know to drive from an ONNX file.

    model_id: the weights it was exported from. counter: rises with every release of a region; a car never goes back.
    view: what the network sees; side_views: what it sees beside that, each another camera's (inputs `frames_1`, ...).
    arcs_m, times_s: where the plan's path and speeds stand. controller: the version that turns plans into actions.
    gate: the gate it is meant to pass. road_use: one of ROAD_USES.
    """

    region: str
    model_id: str
    onnx_sha256: str
    view: View = View()
    side_views: tuple[View, ...] = ()
    frame_offsets_s: tuple[float, ...] = (0.4, 0.0)
    arcs_m: tuple[float, ...] = PATH_ARCS_M
    times_s: tuple[float, ...] = SPEED_TIMES_S
    controller: str = CONTROLLER_VERSION
    gate: str = ""
    road_use: str = NOT_FOR_THE_ROAD
    synthetic: bool = False
    counter: int = 0
    schema_version: int = 1

    def __post_init__(self) -> None:
        if self.schema_version != 1:
            raise InputError("bad_config", "metadata.schema_version", "this program reads version 1; update it.")
        if not re.fullmatch(r"[a-z]{2}", self.region) or not _SHA256.fullmatch(self.onnx_sha256):
            raise InputError("bad_config", "metadata", "region must be two letters and onnx_sha256 64 hex digits.")
        if self.road_use not in ROAD_USES or self.counter < 0:
            raise InputError("bad_config", "metadata", f"road_use is one of {ROAD_USES}, counter is not negative.")
        offsets = self.frame_offsets_s
        if not offsets or min(offsets) < 0 or list(offsets) != sorted(offsets, reverse=True):
            raise InputError("bad_config", "metadata.frame_offsets_s", "give ages in seconds, oldest frame first.")
        for name, rising in (("arcs_m", self.arcs_m), ("times_s", self.times_s)):
            if not rising or rising[0] <= 0 or list(rising) != sorted(set(rising)):
                raise InputError("bad_config", f"metadata.{name}", "give positive values that rise strictly.")

    def as_record(self) -> dict[str, Any]:
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        numbers = {name: [float(x) for x in record[name]] for name in ("frame_offsets_s", "arcs_m", "times_s")}
        seen = {"view": self.view.as_record(), "side_views": [view.as_record() for view in self.side_views]}
        return {**record, **numbers, **seen}

    @property
    def views(self) -> tuple[View, ...]:
        return (self.view, *self.side_views)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> BundleMetadata:
        """Read a record back. Raises InputError `bad_config` when a field is missing, unknown or impossible."""
        try:
            lists = {name: tuple(record[name]) for name in ("frame_offsets_s", "arcs_m", "times_s")}
            views = View.from_record(record["view"]), tuple(View.from_record(v) for v in record.get("side_views", ()))
            return cls(**{**record, **lists, "view": views[0], "side_views": views[1]})
        except (KeyError, TypeError) as problem:
            raise InputError("bad_config", "metadata", f"unexpected or missing field: {problem}.") from problem


@dataclass(frozen=True, kw_only=True)
class Payload:
    """The unsigned release: file name -> bytes, and what the metadata file says."""

    files: dict[str, bytes]
    metadata: BundleMetadata

    @property
    def digest(self) -> str:
        """SHA-256 over the names and digests of the files: what a verdict is about and a signature covers."""
        return payload_digest({name: sha256_hex(data) for name, data in self.files.items()})

    @property
    def release_id(self) -> str:
        return f"release-{self.metadata.region}-{self.metadata.counter}-{self.digest[:16]}"


def payload_digest(file_sha256: dict[str, str]) -> str:
    """The digest of a payload from the digests of its files."""
    return record_digest({name: file_sha256[name] for name in (MODEL, METADATA, NOTES)})


def pack(onnx_bytes: bytes, metadata: BundleMetadata, *, notes: str = "") -> Payload:
    """Put a network and its facts into a payload. Raises CorruptError `tampered` when they are not about each other."""
    if sha256_hex(onnx_bytes) != metadata.onnx_sha256:
        raise CorruptError("tampered", MODEL, "the metadata describes another network; export it again.")
    files = {MODEL: onnx_bytes, METADATA: canonical_json(metadata.as_record()), NOTES: notes.encode()}
    for name, data in files.items():
        if len(data) > LIMITS_BYTES[name]:
            raise InputError(
                "limit_exceeded", name, f"a release file of this name has at most {LIMITS_BYTES[name]} bytes."
            )
    return Payload(files=files, metadata=metadata)


def unpack(files: dict[str, bytes]) -> Payload:
    """Read a payload's files back, checking that metadata and network belong together and the JSON is canonical."""
    for name in (MODEL, METADATA, NOTES):
        if name not in files:
            raise CorruptError("tampered", name, "the release lacks this file.")
    try:
        record = json.loads(files[METADATA])
    except ValueError as problem:
        raise CorruptError("tampered", METADATA, "it is not JSON.") from problem
    if not isinstance(record, dict) or canonical_json(record) != files[METADATA]:
        raise CorruptError("tampered", METADATA, "it is not in canonical form.")
    metadata = BundleMetadata.from_record(record)
    try:
        return pack(files[MODEL], metadata, notes=files[NOTES].decode())
    except UnicodeDecodeError as problem:
        raise CorruptError("tampered", NOTES, "it is not UTF-8 text.") from problem


def to_archive(payload: Payload) -> bytes:
    """A payload as one file: an uncompressed zip with fixed names and times, the same bytes everywhere."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(payload.files.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def from_archive(data: bytes) -> Payload:
    """The inverse of `to_archive`. Raises CorruptError `tampered` for anything else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(info.file_size > LIMITS_BYTES.get(info.filename, 0) for info in archive.infolist()):
                raise CorruptError("tampered", "release", "it holds files that no release has.")
            return unpack({name: archive.read(name) for name in archive.namelist()})
    except (zipfile.BadZipFile, ValueError) as problem:
        raise CorruptError("tampered", "release", "it is not a release archive.") from problem
