"""A center: one folder, one region, and the rules asked before anything in it is touched.

Rule: no method returns plaintext or accepts bytes without a residency decision on a label; the label and lineage row is
committed before the bytes are visible; every refusal leaves a ledger line.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from onshore.core.digest import (
    BLOB_PATTERN,
    blob_id,
    blob_id_of,
    canonical_json,
    check_id,
    record_digest,
    sha256_hex,
)
from onshore.core.errors import CorruptError, InputError, NotFoundError, OnshoreError, Refusal, RefusedError, UsageError
from onshore.core.label import Artifact, Label
from onshore.core.progress import Progress, silent
from onshore.jail import Jail, Limits
from onshore.region import load_pack
from onshore.residency import Attestation, Request, Rules, lost
from onshore.store import cipher, custody, state
from onshore.store.clock import Clock
from onshore.store.config import CONFIG_FILE, CenterConfig, read_config
from onshore.store.files import locked, sweep, sync_folder, write_durably
from onshore.store.keys import Keys
from onshore.store.ledger import Ledger
from onshore.store.suite import suite_of
from onshore.store.tables import Table, query

FOLDERS = ("blobs", "tables", "ledger", "scratch", "locks")
CENTER_KEY = "center"
KEYS_HOME, INIT_FILE = ".config/onshore/keys", "init"
MANY = 500
SQL_ADDRESS_SPACE_BYTES, SQL_S = 64 << 30, 600
WITH_TOMBSTONE = sa.select(state.ARTIFACTS, state.TOMBSTONES.c.reason, state.TOMBSTONES.c.ticket).select_from(
    state.ARTIFACTS.outerjoin(state.TOMBSTONES, state.TOMBSTONES.c.artifact == state.ARTIFACTS.c.id)
)
ONE_ARTIFACT = WITH_TOMBSTONE.where(state.ARTIFACTS.c.id == sa.bindparam("identity"))
#: What the run in progress has read, noted by the center itself; None outside a run.
_READS: ContextVar[set[str] | None] = ContextVar("reads", default=None)


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a caller says about bytes that have no id yet."""

    label: Label
    key: str
    name: str = ""
    parents: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def artifact(self, identity: str, size_bytes: int) -> Artifact:
        return Artifact(
            id=identity, label=self.label, parents=self.parents, size_bytes=size_bytes, meta=self.meta, name=self.name
        )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What `init` was asked for beside folder and region."""

    keys_dir: str | Path | None
    keys: str
    crypto: str
    seed: int | None
    in_region_dirs: tuple[Path, ...]


class Center:
    """One center, open. Use `Center.init` or `Center.open`; processes may share a center."""

    def __init__(self, root: Path, config: CenterConfig, keys: Keys, *, actor: str, role: str) -> None:
        self.root, self.config, self.keys, self.actor, self.role = root, config, keys, actor, role
        self.region, self.id = config.region, config.id
        self.pack = load_pack(config.region)
        self.rules = Rules.from_pack(self.pack)
        self.db = state.open_state(root / "state.sqlite")
        self.reader = self.db.execution_options(onshore_read=True)
        self.ledger = Ledger(
            root / "ledger",
            origin=f"onshore/{config.region}/{config.id}",
            signer=keys.ledger_signer,
            scratch=root / "scratch",
            lock=root / "locks" / "ledger.lock",
        )
        self.raw = SealedZone(self)
        self.clock = Clock(self.ledger, self.pack.law.get("clock", {}))
        self._counted: tuple[int, int] | None = None
        self._data_keys: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Center({self.id}, {self.region}, {self.root})"

    @classmethod
    def init(
        cls,
        root: str | Path,
        region: str,
        *,
        keys_dir: str | Path | None = None,
        keys: str = "",
        crypto: str = "aes",
        seed: int | None = None,
        in_region_dirs: Iterable[str | Path] = (),
        actor: str = "operator",
        role: str = "engineer",
    ) -> Center:
        """Make a center, or open it when it is already there for this region.

        keys_dir: a folder outside the center. keys: what holds the region and ledger keys, `keys_dir` itself unless
        given (store/providers.py). crypto: `aes` or `sm`. seed makes center id and subject salt deterministic (demo);
        keys are random all the same.
        """
        root = Path(root).resolve()
        if (root / CONFIG_FILE).exists():
            return cls._again(root, region, actor=actor, role=role)
        load_pack(region)
        suite_of(crypto)
        home = Path(keys_dir or Path.home() / KEYS_HOME).resolve()
        if home.is_relative_to(root):
            raise UsageError(f"keys_dir {home}", "choose a folder outside the center; a copied center must not open.")
        for name in FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
        with locked(root / "locks" / "init.lock"):
            if not (root / CONFIG_FILE).exists():
                folders = tuple(Path(folder).resolve() for folder in in_region_dirs)
                asked = Asked(keys_dir=keys_dir, keys=keys, crypto=crypto, seed=seed, in_region_dirs=folders)
                cls._begin(root, region, asked)
        return cls._again(root, region, actor=actor, role=role)

    @classmethod
    def _begin(cls, root: Path, region: str, asked: Asked) -> None:
        """Keys, ledger, first entry, and last the config that makes the folder a center. A killed one is gone on with."""
        seeded = None
        if asked.seed is not None:
            seeded = hashlib.sha256(f"onshore-demo|{region}|{asked.seed}".encode()).digest()
        center_id = _settled_id(root / "scratch", seeded)
        folder = Path(asked.keys_dir).resolve() if asked.keys_dir else Path.home() / KEYS_HOME / center_id
        salt, suite = hashlib.sha256(b"salt|" + seeded).digest() if seeded else None, suite_of(asked.crypto)
        keys = Keys.create(folder, region=region, center_id=center_id, salt=salt, spec=asked.keys, suite=suite)
        config = CenterConfig(
            id=center_id,
            region=region,
            keys_dir=folder,
            ledger_key=keys.ledger_signer.public_key().public_bytes_raw().hex(),
            keys=asked.keys,
            crypto=asked.crypto,
            in_region_dirs=asked.in_region_dirs,
        )
        center = cls(root, config, keys, actor="operator", role="engineer")
        center.ledger.create()
        if center.ledger.head().size == 0:
            center.ledger.append("center", {"id": center_id, "region": region, "pack": center.pack.digest})
        center.close()
        write_durably(root / CONFIG_FILE, config.to_toml().encode(), scratch=root / "scratch")
        (root / "scratch" / INIT_FILE).unlink()

    @classmethod
    def _again(cls, root: Path, region: str, *, actor: str, role: str) -> Center:
        center = cls.open(root, actor=actor, role=role)
        if center.region != region:
            raise UsageError(root, f"this is a center of region {center.region}; a center never changes its region.")
        return center

    @classmethod
    def open(cls, root: str | Path, *, actor: str = "operator", role: str = "engineer") -> Center:
        """Open a center. Errors: NotFoundError without center.toml, OnshoreError `key_missing` without its keys."""
        root = Path(root).resolve()
        config = read_config(root)
        suite = suite_of(config.crypto)
        keys = Keys(config.keys_dir, region=config.region, center_id=config.id, spec=config.keys, suite=suite)
        if keys.ledger_signer.public_key().public_bytes_raw().hex() != config.ledger_key:
            advice = "these are another center's keys; name the right folder in center.toml (keys_dir)."
            raise OnshoreError("key_missing", config.keys_dir, advice)
        sweep(root / "scratch")
        return cls(root, config, keys, actor=actor, role=role)

    def close(self) -> None:
        """Give the connections to state and key slots back; the center opens them again when asked."""
        self.db.dispose()
        self.keys.close()

    # -- artifacts ---------------------------------------------------------------------------------------------------

    def put(
        self,
        data: bytes | Path,
        label: Label,
        *,
        name: str = "",
        parents: Iterable[str] = (),
        meta: dict[str, Any] | None = None,
        key: str = CENTER_KEY,
        declassified: Attestation | None = None,
    ) -> Artifact:
        """Store bytes (or a file's bytes) under their digest; the same bytes again are a no-op.

        key: `center` or a drive id; made on first use. declassified: what removed a sensitivity that a parent carries;
        it is kept in `meta["declassified"]` and in the ledger. Errors: RefusedError when the rules say no or the label
        says less than its parents', InputError `conflict` when the same bytes carry another label and `erased` when
        they, a parent or what the run has read were erased or fenced off or the key was destroyed, NotFoundError for an
        unknown parent.
        """
        if label is None or label.kind == "raw_drive":
            self._refuse_unless_sealed(label)
        facts = dict(meta or {})
        if declassified is not None:
            facts["declassified"] = declassified.as_record()
        draft = Draft(label=label, name=name, parents=tuple(dict.fromkeys(parents)), meta=facts, key=key)
        return self._store(data, draft, declassified)

    def read(self, artifact_id: str, *, purpose: str = "train") -> bytes:
        """The plaintext. Errors: RefusedError, NotFoundError, CorruptError when it is not what was put."""
        row = self._readable(artifact_id)
        self.check("read", _artifact(row).label, purpose=purpose, artifact=artifact_id)
        self._noted([artifact_id])
        return self._plaintext(artifact_id, row.key_id)

    def open_many(self, ids: Iterable[str], purpose: str) -> Callable[[str], bytes]:
        """One decision for a whole set (per distinct label, subjects aside); then a reader for exactly these ids."""
        wanted = frozenset(ids)
        found = list(self._rows(state.ARTIFACTS.c.id, sorted(wanted)))
        missing = sorted(wanted - {row.id for row in found})
        if missing:
            self._readable(missing[0])
            raise NotFoundError(missing[0], f"{len(missing)} of {len(wanted)} artifacts are not in this center.")
        # Of each class the oldest is asked about: if that one may be read, so may the others.
        oldest: dict[str, Any] = {}
        for row in sorted(found, key=lambda row: row.born_ns, reverse=True):
            oldest[row.label.get("retention", "")] = row
        for row in oldest.values():
            self._refuse_if(custody.overdue(self, row))
        keys = {row.id: row.key_id for row in found}
        asked: set[str] = set()
        for row in found:
            label = Label.from_record({**row.label, "subjects": []})
            if record_digest(label.as_record()) not in asked:
                self.check("read", label, purpose=purpose, artifact=row.id)
                asked.add(record_digest(label.as_record()))
        self._noted(wanted)

        def reader(artifact_id: str) -> bytes:
            if artifact_id not in wanted:
                raise UsageError(artifact_id, "it was not named when the set was opened; open it with the others.")
            return self._plaintext(artifact_id, keys[artifact_id])

        return reader

    def artifact(self, artifact_id: str) -> Artifact:
        """Label, parents and facts of one artifact. Errors: NotFoundError."""
        return _artifact(self._row(artifact_id))

    def many(self, ids: Iterable[str]) -> list[Artifact]:
        """As `artifact` for several, in one question; ids that are not here are left out."""
        wanted, found = list(dict.fromkeys(ids)), []
        with self.reader.connect() as connection:
            for start in range(0, len(wanted), MANY):
                some = sa.select(state.ARTIFACTS).where(state.ARTIFACTS.c.id.in_(wanted[start : start + MANY]))
                found += [_artifact(row) for row in connection.execute(some)]
        return found

    def artifacts(self, kind: str | None = None, name: str | None = None) -> list[Artifact]:
        """All artifacts, oldest first, of a kind and a name where given."""
        table = state.ARTIFACTS
        asked = WITH_TOMBSTONE.where(state.TOMBSTONES.c.artifact.is_(None)).order_by(table.c.sequence)
        asked = asked if kind is None else asked.where(table.c.kind == kind)
        asked = asked if name is None else asked.where(table.c.name == name)
        with self.reader.connect() as connection:
            return [_artifact(row) for row in connection.execute(asked) if self._path(row.id).exists()]

    def scrub(self, progress: Progress = silent) -> list[dict[str, str]]:
        """Open and hash every artifact; what is damaged or gone comes back as `artifact`, `code`, `advice`."""
        with self.reader.connect() as connection:
            found = connection.execute(WITH_TOMBSTONE.where(state.TOMBSTONES.c.artifact.is_(None))).all()
        problems = []
        for done, row in enumerate(found):
            progress("checking artifacts", done, len(found))
            try:
                if blob_id(self.region, self._plaintext(row.id, row.key_id)) != row.id:
                    raise CorruptError("corrupt", row.id, "its bytes do not have its digest; restore them from a copy.")
            except OnshoreError as fault:
                problems.append({"artifact": row.id, "code": fault.code, "advice": fault.advice})
        progress("checking artifacts", len(found), len(found))
        return problems

    def children(self, artifact_id: str) -> list[Artifact]:
        """What was made of it directly, oldest first."""
        table = state.LINEAGE
        with self.reader.connect() as connection:
            ids = connection.execute(sa.select(table.c.child).where(table.c.parent == artifact_id)).scalars().all()
        return [_artifact(row) for row in sorted(self._rows(state.ARTIFACTS.c.id, list(ids)), key=lambda r: r.sequence)]

    def check(self, action: str, label: Label | None, *, purpose: str = "", artifact: str = "") -> None:
        """Ask the rules; a refusal is written to the ledger and raised as RefusedError."""
        refusal = self.rules.decide(
            Request(
                action=action,
                label=self.effective(label),
                region=self.region,
                actor=self.actor,
                role=self.role,
                purpose=purpose,
                artifact=artifact,
            )
        )
        if refusal is not None:
            self.refuse(refusal)

    def effective(self, label: Label | None) -> Label | None:
        """A label as it counts today: once the center has seen more subjects than the region allows, personal data of
        any of them is important data (CN-06), whatever was written when it was stored."""
        limit = self.pack.law.get("limits", {}).get("subjects_important")
        if label is None or not limit or not label.subjects or "important" in label.sensitivity:
            return label
        # Counting takes long with many; what any process has added since the last count shows by its row.
        newest = custody.newest_subject(self)
        if self._counted is None or self._counted[0] != newest:
            self._counted = newest, custody.subjects_in(self)
        return replace(label, sensitivity=label.sensitivity | {"important"}) if self._counted[1] > limit else label

    def _refuse_if(self, refusal: Refusal | None) -> None:
        if refusal is not None:
            self.refuse(refusal)

    def refuse(self, refusal: Refusal) -> None:
        """Write a refusal to the ledger and raise it."""
        actor = self.keys.salted_id("person", self.actor)
        record = {"code": refusal.code, "rule": refusal.rule, "subject": _impersonal(refusal.subject), "actor": actor}
        self.ledger.append("refusal", record)
        raise RefusedError(refusal)

    # -- subjects, tables, stages, quarantine -------------------------------------------------------------------------

    def subject(self, kind: str, name: str) -> str:
        """The salted id under which a vehicle or driver is named, and the only one."""
        if kind not in {"vehicle", "driver"}:
            raise UsageError(f"subject kind {kind!r}", "use vehicle or driver.")
        return self.keys.salted_id(kind, name)

    def table(self, name: str) -> Table:
        """A catalog table; a missing one is empty."""
        return Table(self.root / "tables", name, self.root / "locks")

    def tables(self) -> list[str]:
        """Names of the catalog tables that exist."""
        return sorted(path.stem for path in (self.root / "tables").glob("*.lance"))

    def sql(self, text: str, *, jailed: bool = False) -> list[dict[str, Any]]:
        """Rows of a DuckDB query over the tables; it reads nothing else.

        jailed: run it in a child behind the jail's fences as well, for text that a person typed (about a second more).
        """
        if not jailed:
            return query(self.root / "tables", self.root / "locks", text)
        rows: list[dict[str, Any]] = self._ask("jailed_query", {"sql": text})
        return rows

    def matching(self, table: str, where: str) -> list[str]:
        """Ids of the rows of a table for which a condition that a person typed holds; asked in the jail.

        Whatever the text does, it sees this one table, and texts that are ids of the table are all that comes back.
        """
        if self.table(table).count() == 0:
            return []
        ids: list[str] = self._ask("jailed_condition", {"table": check_id(table), "where": where})
        return ids

    def _ask(self, function: str, arguments: dict[str, Any]) -> Any:
        tables = self.root / "tables"
        # Arrow and DuckDB reserve far more address space than they use; the latter has a limit of its own.
        jail = self.jail("sql", Limits(memory_bytes=SQL_ADDRESS_SPACE_BYTES, cpu_s=SQL_S))
        told = {"folder": str(tables), "locks": str(self.root / "locks"), **arguments}
        return jail.run(f"onshore.store.tables:{function}", told, read_dirs=[tables], timeout_s=SQL_S)

    def jail(self, work: str, limits: Limits | None = None, *, peers: Sequence[str] = ()) -> Jail:
        """A jail whose attestation goes to the ledger before the work starts; strict where center.toml says so."""

        def witness(attestation: dict[str, Any]) -> None:
            self.ledger.append("jail", {"work": work, "trust": "self-attested", **attestation})

        return Jail(strict=self.config.jail_strict, limits=limits, peers=peers, witness=witness)

    def stage(
        self, name: str, inputs: dict[str, Any], run: Callable[[], dict[str, Any]]
    ) -> tuple[dict[str, Any], bool]:
        """Run once for these inputs. Returns (outputs, fresh); a killed run left no record and runs again."""
        key = record_digest({"name": name, "inputs": inputs})
        asked = sa.select(state.STAGES.c.outputs).where(state.STAGES.c.key == key)
        with self.reader.connect() as connection:
            known = connection.execute(asked).scalar_one_or_none()
        if known is not None:
            return dict(known), False
        outer, reads = _READS.get(), set[str]()
        token = _READS.set(reads)
        try:
            outputs = json.loads(canonical_json(run()))
        finally:
            _READS.reset(token)
            if outer is not None:
                outer |= reads
        row = {"key": key, "name": name, "inputs": inputs, "outputs": outputs}
        with self.db.begin() as connection:
            connection.execute(insert(state.STAGES).values(row).on_conflict_do_nothing())
        return outputs, True

    def _noted(self, ids: Iterable[str]) -> None:
        reads = _READS.get()
        if reads is not None:
            reads |= set(ids)

    def in_region(self, path: str | Path) -> bool:
        """Does this path lie in the center or in a folder that center.toml names as in-region? Links are followed."""
        resolved = Path(path).resolve()
        return any(resolved.is_relative_to(folder) for folder in (self.root, *self.config.in_region_dirs))

    def quarantine_add(
        self, path: str | Path, code: str, reason: str, bytes_digest: str, *, asked: Mapping[str, Any] | None = None
    ) -> str:
        """Remember a file that did not come in; the same file for the same reason once. Returns its id.

        asked: how it was to come in, for trying it again; the last such counts.
        """
        identity = f"quarantine-{record_digest({'path': str(path), 'code': code, 'digest': bytes_digest})[:32]}"
        row = {"id": identity, "path": str(path), "code": code, "reason": reason, "bytes_digest": bytes_digest}
        again = {"asked": dict(asked or {})}
        with self.db.begin() as connection:
            added = insert(state.QUARANTINE).values(row | again)
            connection.execute(added.on_conflict_do_update(index_elements=["id"], set_=again))
        return identity

    def quarantine_list(self) -> list[dict[str, Any]]:
        with self.reader.connect() as connection:
            found = connection.execute(sa.select(state.QUARANTINE).order_by(state.QUARANTINE.c.path))
            return [dict(row._mapping) for row in found]

    def quarantine_remove(self, identity: str) -> None:
        with self.db.begin() as connection:
            gone = connection.execute(sa.delete(state.QUARANTINE).where(state.QUARANTINE.c.id == identity)).rowcount
        if not gone:
            raise NotFoundError(identity, "nothing in quarantine has this id.")

    def shred(self, key_ids: Iterable[str]) -> None:
        """Make everything sealed under these drives' keys unreadable for good, in every backup too; ledger lines say so.

        The region key is renewed with it (store/keys.py), so give all keys of one erasure at once. A process that has
        read under a key keeps it in memory until it ends. Errors: NotFoundError when one is unknown or was shredded
        before, UsageError for the center's own; then nothing is shredded.
        """
        gone = sorted({check_id(key_id, "data key") for key_id in key_ids})
        if CENTER_KEY in gone:
            raise UsageError("shred key center", "it seals what belongs to no drive; only drives' keys are destroyed.")
        for key_id in gone:
            if not self.has_key(key_id):
                raise NotFoundError(f"data key {key_id}", "it is not in this center, or was destroyed before.")
        if not gone:
            return
        self.ledger.append_many([("key_destroyed", {"key": key_id}) for key_id in gone])
        self.keys.shred(gone)
        for key_id in gone:
            self._data_keys.pop(key_id, None)

    def has_key(self, key_id: str) -> bool:
        """Whether a data key is here and was not destroyed."""
        return self.keys.holds(key_id)

    def has_bytes(self, artifact_id: str) -> bool:
        """Whether an artifact's file lies in the center, readable or not."""
        return self._path(artifact_id).exists()

    def unlink(self, artifact_id: str) -> None:
        """Remove the file of an artifact that has a tombstone; what is gone stays gone."""
        if artifact_id not in custody.tombstones(self, [artifact_id]):
            raise UsageError(artifact_id, "only what has a tombstone is destroyed; see store.custody.")
        path = self._path(artifact_id)
        path.unlink(missing_ok=True)
        if path.parent.exists():
            sync_folder(path.parent)

    # -- bytes -------------------------------------------------------------------------------------------------------

    def _store(self, data: bytes | Path, draft: Draft, declassified: Attestation | None = None) -> Artifact:
        check_id(draft.key, "data key")
        data = bytes(data) if isinstance(data, bytearray | memoryview) else data
        with _source(data) as file:
            digest, size = (sha256_hex(data), len(data)) if isinstance(data, bytes) else cipher.file_sha256(file)
            artifact = self._with_reads(draft.artifact(blob_id_of(self.region, digest), size))
            self.check("store", artifact.label, artifact=artifact.id)
            self._check_lineage(artifact, declassified)
            known = self._known(artifact)
            if known is not None:
                return known
            if declassified is not None:
                self._attest(artifact, declassified)
            chunks: Iterator[bytes | memoryview]
            if isinstance(data, bytes):
                chunks = cipher.pieces(data)
            else:
                chunks = cipher.unchanged(cipher.file_pieces(file), digest, data)
            return self._write(artifact, chunks, draft.key)

    def _with_reads(self, artifact: Artifact) -> Artifact:
        """Inside a run, whatever the run read becomes a parent unless it is one or an ancestor of one already.

        The edge is written by who opened the bytes, not by the job; a label that leaves the parent out is then refused.
        """
        unseen = (_READS.get() or set()) - {artifact.id, *artifact.parents}
        above, seen = list(artifact.parents), set(artifact.parents)
        while unseen and above:
            above = sorted({parent for one in self.many(above) for parent in one.parents} - seen)
            seen |= set(above)
            unseen -= seen
        return replace(artifact, parents=(*artifact.parents, *sorted(unseen))) if unseen else artifact

    def _check_lineage(self, artifact: Artifact, declassified: Attestation | None) -> None:
        """A label says at least what its parents' labels say, but for what an attestation names."""
        parents = [self.artifact(parent).label for parent in artifact.parents]
        gone = lost(artifact.label, parents, declassified)
        if gone:
            self.refuse(
                Refusal(
                    code="not_allowed",
                    subject=f"store {artifact.id} without {', '.join(sorted(gone))}",
                    rule="labels-only-grow",
                    clause="a derived label is the union of its parents'; only an attested declassifier removes",
                    remedy="Make the label with residency.derive, and pass the attestation as declassified=.",
                )
            )

    def _attest(self, artifact: Artifact, declassified: Attestation) -> None:
        body = {
            "artifact": artifact.id,
            "declassifier": declassified.declassifier,
            "removes": sorted(declassified.removes),
            "detector": declassified.detector_digest,
            "attestation": record_digest(declassified.as_record()),
        }
        self.ledger.append("declassified", body)

    def _known(self, artifact: Artifact) -> Artifact | None:
        """The artifact when its bytes are already visible; a row that a kill left without bytes is written anew."""
        with self.reader.connect() as connection:
            row = connection.execute(ONE_ARTIFACT, {"identity": artifact.id}).one_or_none()
        if row is None:
            return None
        if row.reason is not None:
            raise custody.gone(row)
        if row.label != artifact.label.as_record():
            advice = "the same bytes are here under another label; one content has one label."
            raise InputError("conflict", artifact.id, advice)
        if not self._path(artifact.id).exists():
            return None
        return _artifact(row) if set(artifact.parents) <= set(row.parents) else self._adopted(artifact)

    def _adopted(self, artifact: Artifact) -> Artifact:
        """The same bytes made from other parents: lineage keeps both, or erasure would miss one.

        Known parents are read in the transaction that adds to them: another process may be adding its own.
        """
        with self.db.begin() as connection:
            row = connection.execute(ONE_ARTIFACT, {"identity": artifact.id}).one()
            if row.reason is not None:
                raise custody.gone(row)
            fresh = [parent for parent in _uncircled(connection, artifact) if parent not in row.parents]
            grown = replace(_artifact(row), parents=(*row.parents, *fresh))
            if fresh:
                custody.refuse_withdrawn(connection, {*fresh, *(_READS.get() or ())})
                mine = state.ARTIFACTS.c.id == artifact.id
                connection.execute(sa.update(state.ARTIFACTS).where(mine).values(parents=list(grown.parents)))
                _add_edges(connection, grown)
        return grown

    def _write(self, artifact: Artifact, chunks: Iterator[bytes | memoryview], key_id: str) -> Artifact:
        path = self._path(artifact.id)
        data_key, suite = self._data_key(key_id), self.keys.suite
        handle, temporary = tempfile.mkstemp(dir=self.root / "scratch")
        try:
            with os.fdopen(handle, "wb") as target:
                cipher.encrypt(chunks, target, data_key, cipher.scope_of(self.region, key_id, artifact.id), suite)
                target.flush()
                os.fsync(target.fileno())
            # Row and bytes of one artifact change together: another process may be storing the same content.
            with locked(self.root / "locks" / f"blobs-{path.parent.name}.lock"):
                known = self._known(artifact)
                if known is None:
                    artifact = self._commit(artifact, key_id)
                    self._show(Path(temporary), path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        return known or artifact

    def _show(self, temporary: Path, path: Path) -> None:
        """The bytes become visible, durably; their row is already there."""
        if not path.parent.exists():
            path.parent.mkdir()
            sync_folder(path.parent.parent)
        os.replace(temporary, path)
        sync_folder(path.parent)

    def _commit(self, artifact: Artifact, key_id: str) -> Artifact:
        """The label and lineage row; one that a kill left without bytes is overwritten, its key may have been another."""
        table = state.ARTIFACTS
        row = {
            "kind": artifact.label.kind,
            "name": artifact.name,
            "label": artifact.label.as_record(),
            "meta": artifact.meta,
            "size_bytes": artifact.size_bytes,
            "key_id": key_id,
            "born_ns": custody.born(self, artifact.label, artifact.parents),
        }
        inherited = frozenset().union(*(one.label.subjects for one in self.many(artifact.parents)))
        fresh = artifact.label.subjects - inherited
        with self.db.begin() as connection:
            custody.refuse_withdrawn(connection, {*artifact.parents, *(_READS.get() or ())})
            custody.introduce(connection, artifact.id, fresh)
            artifact = replace(artifact, parents=_uncircled(connection, artifact))
            row["parents"] = list(artifact.parents)
            last = connection.execute(sa.select(sa.func.coalesce(sa.func.max(table.c.sequence), 0))).scalar_one()
            kept = insert(table).values({**row, "id": artifact.id, "sequence": last + 1})
            connection.execute(kept.on_conflict_do_update(index_elements=[table.c.id], set_=row))
            _add_edges(connection, artifact)
        return artifact

    def _plaintext(self, artifact_id: str, key_id: str) -> bytes:
        data_key = self._data_key(key_id, make=False)
        scope = cipher.scope_of(self.region, key_id, artifact_id)
        with _mapped(self._path(artifact_id), artifact_id) as stored:
            return cipher.decrypt(stored, data_key, scope, artifact_id, self.keys.suite)

    def _data_key(self, key_id: str, *, make: bool = True) -> bytes:
        if key_id not in self._data_keys:
            data_key = self.keys.data_key(key_id, make=make)
            if data_key is None and make:
                advice = (
                    "its key was destroyed with what it sealed; nothing more comes in under it. Leave this file out."
                )
                raise InputError("erased", f"drive {key_id}", advice)
            if data_key is None:
                raise NotFoundError(f"data key {key_id}", "it was destroyed; what it sealed cannot be read again.")
            self._data_keys[key_id] = data_key
        return self._data_keys[key_id]

    def _readable(self, artifact_id: str) -> Any:
        """The row of an artifact whose bytes may be opened now: neither destroyed nor past its time."""
        row = self._row(artifact_id)
        if row.reason is not None:
            raise custody.gone(row)
        self._data_key(row.key_id, make=False)  # without its keys nothing here can be believed, the clock neither
        self._refuse_if(custody.overdue(self, row))
        return row

    def _row(self, artifact_id: str) -> Any:
        """The row of an artifact that is here, or was until it was destroyed."""
        with self.reader.connect() as connection:
            row = connection.execute(ONE_ARTIFACT, {"identity": artifact_id}).one_or_none()
        if row is None or (row.reason is None and not self._path(row.id).exists()):
            raise NotFoundError(artifact_id, "no artifact of this center has this id.")
        return row

    def _rows(self, column: Any, values: list[str]) -> Iterator[Any]:
        """Rows whose bytes are visible, asked in portions that SQLite takes."""
        with self.reader.connect() as connection:
            for start in range(0, len(values), MANY):
                some = column.in_(values[start : start + MANY])
                asked = WITH_TOMBSTONE.where(some, state.TOMBSTONES.c.artifact.is_(None))
                yield from (row for row in connection.execute(asked).all() if self._path(row.id).exists())

    def _path(self, artifact_id: str) -> Path:
        matched = BLOB_PATTERN.fullmatch(artifact_id)
        if not matched:
            return self.root / "blobs" / "none"
        return self.root / "blobs" / matched[2][:2] / matched[2]

    def _refuse_unless_sealed(self, label: Label | None) -> None:
        if label is None:
            self.check("store", None)
        self.refuse(
            Refusal(
                code="not_allowed",
                subject="store raw_drive",
                rule="sealed-zone",
                clause="invariant 2: originals lie in the sealed raw zone only",
                remedy="Seal it through drive add; Center.raw is the one way in.",
            )
        )


class SealedZone:
    """Originals, each under its own drive's key. Only `drive` opens it, and only to anonymise."""

    def __init__(self, center: Center) -> None:
        self._center = center

    def seal(
        self,
        data: bytes | Path,
        *,
        key: str,
        label: Label,
        name: str = "",
        meta: dict[str, Any] | None = None,
    ) -> Artifact:
        """Store an original under its drive's key. The label's kind must be raw_drive."""
        if label.kind != "raw_drive" or key == CENTER_KEY:
            raise UsageError(
                f"seal {label.kind} under {key}", "the sealed zone takes raw_drive under a drive's own key."
            )
        return self._center._store(data, Draft(label=label, name=name, meta=meta or {}, key=key))

    def unseal(self, artifact_id: str) -> bytes:
        """The original bytes, for anonymising. Each opening leaves a ledger line."""
        row = self._center._readable(artifact_id)
        self._center.check("read", _artifact(row).label, purpose="anonymise", artifact=artifact_id)
        self._center.ledger.append("unseal", {"artifact": artifact_id, "purpose": "anonymise"})
        return self._center._plaintext(artifact_id, row.key_id)


def _impersonal(subject: str) -> str:
    """A subject made of ids and plain words as it is; anything else (a path, a name) by its digest: the ledger is forever."""
    return subject if re.fullmatch(r"[a-z0-9 ,_-]{0,400}", subject) else f"sha256-{sha256_hex(subject.encode())}"


def _settled_id(scratch: Path, seeded: bytes | None) -> str:
    """The id of a center that is being made, written down first: a killed `init` goes on under the same id."""
    begun = scratch / INIT_FILE
    fresh = f"center-{(seeded or secrets.token_bytes(16)).hex()[:24]}"
    if not begun.exists():
        write_durably(begun, fresh.encode(), scratch=scratch)
    settled = begun.read_text(encoding="ascii")
    if seeded is not None and settled != fresh:
        raise UsageError(scratch.parent, "a center was begun here with another seed; use that one, or an empty folder.")
    return settled


@contextmanager
def _mapped(path: Path, artifact_id: str) -> Iterator[bytes | mmap.mmap]:
    """A file's bytes without a copy; an empty file cannot be mapped."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                yield b""
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                mapped.madvise(mmap.MADV_WILLNEED)
                yield mapped
    except FileNotFoundError as fault:
        raise NotFoundError(artifact_id, "its bytes are gone; restore them from a copy.") from fault


@contextmanager
def _source(data: bytes | Path) -> Iterator[BinaryIO]:
    if isinstance(data, bytes):
        yield io.BytesIO()
        return
    try:
        with Path(data).open("rb") as file:
            yield file
    except IsADirectoryError as fault:
        raise InputError("unknown_format", data, "a folder is not an artifact; put its files.") from fault
    except FileNotFoundError as fault:
        raise NotFoundError(data, "no such file.") from fault


def _uncircled(connection: sa.Connection, artifact: Artifact) -> tuple[str, ...]:
    """Its parents less itself and what was made of it: bytes that come out of their own descendant are still older."""
    below = custody.descendants_in(connection, [artifact.id])
    return tuple(parent for parent in artifact.parents if parent not in below)


def _add_edges(connection: sa.Connection, artifact: Artifact) -> None:
    for parent in artifact.parents:
        edge = insert(state.LINEAGE).values(parent=parent, child=artifact.id)
        connection.execute(edge.on_conflict_do_nothing())


def _artifact(row: Any) -> Artifact:
    return Artifact(
        id=row.id,
        label=Label.from_record(row.label),
        parents=tuple(row.parents),
        size_bytes=row.size_bytes,
        meta=row.meta,
        name=row.name,
    )
