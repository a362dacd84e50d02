"""A center's keys, kept outside its folder: region key, ledger signing key, subject salt.

Rule: the center folder holds data keys only wrapped; whoever copies the folder without the key folder has noise.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from onshore.core.errors import CorruptError, OnshoreError
from onshore.store.files import write_durably

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

REGION_KEY, LEDGER_KEY, SALT = "region.key", "ledger.key", "subjects.salt"
KEY_BYTES = 32


class Keys:
    """Key files in one folder (mode 0700, files 0600), 32 bytes each. Never printed, never pickled."""

    def __init__(self, folder: Path, *, region: str, center_id: str) -> None:
        self.folder, self._scope = folder, f"{region}|{center_id}"
        self._region_key, ledger_key, self.salt = (self._load(name) for name in (REGION_KEY, LEDGER_KEY, SALT))
        self.ledger_signer = _signer(ledger_key)

    def __repr__(self) -> str:
        return f"Keys({self.folder}, [private])"

    def __reduce__(self) -> str:
        raise TypeError("keys stay in their process")

    @classmethod
    def create(cls, folder: Path, *, region: str, center_id: str, salt: bytes | None = None) -> Keys:
        """Make what is missing; existing keys are kept."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(folder, 0o700)
        for name in (REGION_KEY, LEDGER_KEY, SALT):
            if not (folder / name).exists():
                fresh = salt if name == SALT and salt is not None else secrets.token_bytes(KEY_BYTES)
                write_durably(folder / name, fresh, scratch=folder, mode=0o600)
        return cls(folder, region=region, center_id=center_id)

    def wrap(self, key_id: str, data_key: bytes) -> bytes:
        """A data key under the region key: 12-byte nonce, then AES-256-GCM bound to region, center and key id."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(12)
        return nonce + AESGCM(self._region_key).encrypt(nonce, data_key, self._bound(key_id))

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._region_key).decrypt(wrapped[:12], wrapped[12:], self._bound(key_id))
        except InvalidTag as fault:
            advice = "the region key is not the one that wrapped it; restore the center's own key folder."
            raise OnshoreError("key_missing", f"data key {key_id}", advice) from fault

    def _bound(self, key_id: str) -> bytes:
        return f"onshore-data-key|{self._scope}|{key_id}".encode()

    def _load(self, name: str) -> bytes:
        path = self.folder / name
        try:
            key = path.read_bytes()
        except OSError as fault:
            advice = (
                "name the center's key folder in center.toml (keys_dir) or restore it; nothing decrypts without it."
            )
            raise OnshoreError("key_missing", path, advice) from fault
        if len(key) != KEY_BYTES:
            raise CorruptError("corrupt", path, f"a key file has {KEY_BYTES} bytes, this one {len(key)}; restore it.")
        return key


def _signer(seed: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed)
