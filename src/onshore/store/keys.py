"""A center's keys, kept outside its folder: region key, ledger signing key, subject salt, and a slot for each data key.

Rule: the center folder, and so every backup of it, holds no key in any form. Data keys lie wrapped in slots beside the
provider's keys. Shredding empties slots and renews the region key in one step: every other slot is wrapped anew and the old
region key destroyed, so that a stale copy of the slots opens nothing either. A copy of the whole key folder from before
still opens what was in it: `onshore backup keys` has to be taken anew, and the older copy destroyed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from onshore.core.errors import NotFoundError, OnshoreError
from onshore.store.files import write_durably
from onshore.store.providers import KEY_BYTES, KeyProvider, open_provider
from onshore.store.state import open_sqlite, snapshot
from onshore.store.suite import AES, Suite

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SLOTS_FILE, LEDGER_KEY, SALT = "slots.sqlite", "ledger", "_subjects-salt"
METADATA = sa.MetaData()
#: wrapped: empty once shredded; the row stays, so that the key does not come back under its name.
SLOTS = sa.Table(
    "slots",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
)


class Signer(Protocol):
    """What signs the ledger, wherever its key lives."""

    def sign(self, message: bytes) -> bytes: ...
    def public_key(self) -> Ed25519PublicKey: ...


class LedgerSigner:
    """The ledger key of a provider, as a signer."""

    def __init__(self, provider: KeyProvider) -> None:
        self._provider, self._public = provider, provider.public_key(LEDGER_KEY)

    def sign(self, message: bytes) -> bytes:
        return self._provider.sign(LEDGER_KEY, message)

    def public_key(self) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(self._public)


class Keys:
    """One center's keys, open. folder: slots, approvers and release keys lie there whoever holds the region key.

    Never printed, never pickled. Errors: OnshoreError `key_missing` naming what is not there or does not fit.
    """

    def __init__(self, folder: Path, *, region: str, center_id: str, spec: str = "", suite: Suite = AES) -> None:
        self.folder, self.spec, self.suite = folder, spec, suite
        self._scope = f"{region}|{center_id}"
        if not (folder / SLOTS_FILE).is_file():
            advice = (
                "name the center's key folder in center.toml (keys_dir) or restore it; nothing decrypts without it."
            )
            raise OnshoreError("key_missing", folder / SLOTS_FILE, advice)
        self.provider = open_provider(spec, folder, suite=suite, scope=self._scope)
        self._db = open_sqlite(folder / SLOTS_FILE, METADATA)
        self._reader = self._db.execution_options(onshore_read=True)
        self.ledger_signer = LedgerSigner(self.provider)
        self.salt = self.data_key(SALT) or b""
        self.provider.destroy_wrapping_key(_region_key(self._generation() - 1))  # what a killed shredding left

    def __repr__(self) -> str:
        return f"Keys({self.folder}, {self.spec.partition(':')[0] or 'folder'}, [private])"

    def __reduce__(self) -> str:
        raise TypeError("keys stay in their process")

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        region: str,
        center_id: str,
        salt: bytes | None = None,
        spec: str = "",
        suite: Suite = AES,
    ) -> Keys:
        """Make what is missing; existing keys are kept."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        scope = f"{region}|{center_id}"
        provider = open_provider(spec, folder, suite=suite, scope=scope)
        provider.make_signing_key(LEDGER_KEY)
        if not (folder / SLOTS_FILE).exists():
            write_durably(folder / SLOTS_FILE, b"", scratch=folder, mode=0o600)
        db = open_sqlite(folder / SLOTS_FILE, METADATA)
        with db.begin() as connection:
            if connection.execute(sa.select(SLOTS.c.id).where(SLOTS.c.id == SALT)).first() is None:
                provider.make_wrapping_key(_region_key(1))
                secret = salt or secrets.token_bytes(KEY_BYTES)
                (wrapped,) = provider.wrap(_region_key(1), [(secret, _bound(suite, scope, SALT))])
                connection.execute(sa.insert(SLOTS).values(id=SALT, wrapped=wrapped, generation=1))
        db.dispose()
        return cls(folder, region=region, center_id=center_id, spec=spec, suite=suite)

    def close(self) -> None:
        self._db.dispose()

    def salted_id(self, kind: str, name: str) -> str:
        """The salted id under which a subject, person, recipient or purpose is named, and the only one."""
        return self.suite.salted_id(self.salt, kind, name)

    def data_key(self, key_id: str, *, make: bool = False) -> bytes | None:
        """The data key of this name; a fresh one with `make`; None when it was shredded.

        Errors: OnshoreError `key_missing` without a slot of this name.
        """
        if make:
            self._make(key_id)
        for last in (False, True):
            with self._reader.connect() as connection:
                slot = connection.execute(sa.select(SLOTS).where(SLOTS.c.id == key_id)).one_or_none()
            if slot is None:
                advice = "these are another center's keys, or older ones; restore the center's own key folder."
                raise OnshoreError("key_missing", f"data key {key_id}", advice)
            if not slot.wrapped:
                return None
            try:
                bound = _bound(self.suite, self._scope, key_id)
                return self.provider.unwrap(_region_key(slot.generation), [(slot.wrapped, bound)])[0]
            except OnshoreError:  # the region key was renewed between the two looks
                if last or slot.generation == self._generation():
                    raise
        return None

    def holds(self, key_id: str) -> bool:
        """Is there a data key of this name that was not shredded?"""
        asked = sa.select(SLOTS.c.id).where(SLOTS.c.id == key_id, SLOTS.c.wrapped != b"")
        with self._reader.connect() as connection:
            return connection.execute(asked).first() is not None

    def shredded(self) -> list[str]:
        """Names of the data keys that were shredded."""
        with self._reader.connect() as connection:
            return list(connection.execute(sa.select(SLOTS.c.id).where(SLOTS.c.wrapped == b"")).scalars())

    def prove(self) -> None:
        """Have the provider sign and unwrap once. Errors: OnshoreError `key_missing`."""
        from cryptography.exceptions import InvalidSignature

        self.data_key(SALT)
        try:
            self.ledger_signer.public_key().verify(self.ledger_signer.sign(b"onshore"), b"onshore")
        except InvalidSignature as fault:
            raise OnshoreError(
                "key_missing", "ledger key", "the provider signs with another key; restore it."
            ) from fault

    def copy_slots(self, path: Path) -> None:
        """The slots as they are now, in a new file (0600)."""
        snapshot(self._reader, path)

    def shred(self, key_ids: Iterable[str]) -> None:
        """Empty these slots, wrap every other one under a new region key, and destroy the old one.

        Killed anywhere, it has happened or it has not; opening the keys again ends what was begun.
        Errors: NotFoundError when one is unknown or was shredded before; then nothing is shredded.
        """
        gone = sorted(set(key_ids))
        with self._db.begin() as connection:
            slots = {slot.id: slot for slot in connection.execute(sa.select(SLOTS))}
            for key_id in gone:
                if key_id not in slots or not slots[key_id].wrapped:
                    raise NotFoundError(f"data key {key_id}", "it is not in this center, or was destroyed before.")
            old = slots[SALT].generation
            self._renew(connection, [s for s in slots.values() if s.wrapped and s.id not in gone], old)
            emptied = sa.update(SLOTS).where(SLOTS.c.id == sa.bindparam("key"))
            values = emptied.values(wrapped=b"", generation=old + 1)
            connection.execute(values, [{"key": key_id} for key_id in gone])
        # The old values are overwritten (secure_delete), and the write-ahead log that still holds them is emptied.
        with self._reader.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self.provider.destroy_wrapping_key(_region_key(old))

    def _renew(self, connection: sa.Connection, slots: list[sa.Row[tuple[str, bytes, int]]], old: int) -> None:
        fresh = _region_key(old + 1)
        self.provider.make_wrapping_key(fresh)
        bound = [_bound(self.suite, self._scope, slot.id) for slot in slots]
        opened = self.provider.unwrap(
            _region_key(old), [(slot.wrapped, to) for slot, to in zip(slots, bound, strict=True)]
        )
        sealed = self.provider.wrap(fresh, list(zip(opened, bound, strict=True)))
        renewed = sa.update(SLOTS).where(SLOTS.c.id == sa.bindparam("key"))
        rows = [{"key": slot.id, "again": one} for slot, one in zip(slots, sealed, strict=True)]
        connection.execute(renewed.values(wrapped=sa.bindparam("again"), generation=old + 1), rows)

    def _make(self, key_id: str) -> None:
        """In one write transaction, so that the region key cannot be renewed between the look and the slot."""
        with self._db.begin() as connection:
            if connection.execute(sa.select(SLOTS.c.id).where(SLOTS.c.id == key_id)).first() is not None:
                return
            asked = sa.select(SLOTS.c.generation).where(SLOTS.c.id == SALT)
            generation = connection.execute(asked).scalar_one()
            secret = (secrets.token_bytes(KEY_BYTES), _bound(self.suite, self._scope, key_id))
            (wrapped,) = self.provider.wrap(_region_key(generation), [secret])
            connection.execute(sa.insert(SLOTS).values(id=key_id, wrapped=wrapped, generation=generation))

    def _generation(self) -> int:
        with self._reader.connect() as connection:
            return int(connection.execute(sa.select(SLOTS.c.generation).where(SLOTS.c.id == SALT)).scalar_one())


def _region_key(generation: int) -> str:
    return f"region-{generation}"


def _bound(suite: Suite, scope: str, key_id: str) -> bytes:
    return f"onshore-data-key|{suite.name}|{scope}|{key_id}".encode()
