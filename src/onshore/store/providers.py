"""Where a center's own keys live: a folder of files, a PKCS#11 module, or a command that speaks to a key service.

Rule: a provider holds named keys and never gives them out; it wraps and unwraps small secrets under them and signs. Which
one a center uses stands in center.toml as `keys`: empty for the key folder itself, `pkcs11:…` (RFC 7512) or `command:…`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from onshore.core.errors import CorruptError, InputError, OnshoreError
from onshore.store.files import write_durably
from onshore.store.suite import NONCE_BYTES, Suite

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32


class KeyProvider(Protocol):
    """Named keys of one center. Making a key that is there, or destroying one that is not, is no error.

    Errors of all: OnshoreError `key_missing` naming the key when it is not there or does not fit what it should open.
    """

    def make_wrapping_key(self, name: str) -> None: ...
    def destroy_wrapping_key(self, name: str) -> None: ...

    def wrap(self, name: str, secrets_: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """Each (secret, what it is bound to) sealed under the key: 12-byte nonce, ciphertext, 16-byte tag."""
        ...

    def unwrap(self, name: str, sealed: Sequence[tuple[bytes, bytes]]) -> list[bytes]: ...
    def make_signing_key(self, name: str) -> None: ...

    def public_key(self, name: str) -> bytes:
        """The 32 bytes of an Ed25519 public key."""
        ...

    def sign(self, name: str, message: bytes) -> bytes: ...


def open_provider(spec: str, folder: Path, *, suite: Suite, scope: str) -> KeyProvider:
    """The provider that `spec` names. scope: region and center id, so that one token or service can serve several centers.

    Errors: InputError `bad_config` for a spec that cannot be read, OnshoreError `missing_dependency`, `key_missing`.
    """
    if not spec:
        return FolderProvider(folder, suite)
    if spec.startswith("pkcs11:"):
        from onshore.store.pkcs11 import Pkcs11Provider

        return Pkcs11Provider(spec, suite=suite, scope=scope)
    if spec.startswith("command:"):
        from onshore.store.kms import CommandProvider

        return CommandProvider(spec, suite=suite, scope=scope)
    raise InputError("bad_config", f"keys {spec!r}", "give a folder, pkcs11:… or command:…; docs/store.md shows each.")


class FolderProvider:
    """Key files in one folder outside the center (mode 0700, files 0600), 32 bytes each. The default."""

    def __init__(self, folder: Path, suite: Suite) -> None:
        self._folder, self._suite = folder, suite
        self._loaded: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"FolderProvider({self._folder}, [private])"

    def make_wrapping_key(self, name: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(self._folder, 0o700)
        if not self._path(name).exists():
            write_durably(self._path(name), secrets.token_bytes(KEY_BYTES), scratch=self._folder, mode=0o600)

    make_signing_key = make_wrapping_key

    def destroy_wrapping_key(self, name: str) -> None:
        """Overwritten, flushed, removed: as far as a file system lets go of anything."""
        self._loaded.pop(name, None)
        if self._path(name).exists():
            overwrite(self._path(name))

    def wrap(self, name: str, secrets_: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        cipher, sealed = self._suite.aead(self._load(name)), []
        for secret, bound in secrets_:
            nonce = secrets.token_bytes(NONCE_BYTES)
            sealed.append(nonce + cipher.encrypt(nonce, secret, bound))
        return sealed

    def unwrap(self, name: str, sealed: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        from cryptography.exceptions import InvalidTag

        cipher = self._suite.aead(self._load(name))
        try:
            return [cipher.decrypt(one[:NONCE_BYTES], one[NONCE_BYTES:], bound) for one, bound in sealed]
        except InvalidTag as fault:
            raise not_the_key(name, self._path(name)) from fault

    def public_key(self, name: str) -> bytes:
        return self._signer(name).public_key().public_bytes_raw()

    def sign(self, name: str, message: bytes) -> bytes:
        return self._signer(name).sign(message)

    def _signer(self, name: str) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self._load(name))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.key"

    def _load(self, name: str) -> bytes:
        if name not in self._loaded:
            try:
                key = self._path(name).read_bytes()
            except OSError as fault:
                advice = (
                    "name the center's key folder in center.toml (keys_dir) or restore it; nothing decrypts without it."
                )
                raise OnshoreError("key_missing", self._path(name), advice) from fault
            if len(key) != KEY_BYTES:
                advice = f"a key file has {KEY_BYTES} bytes, this one {len(key)}; restore it."
                raise CorruptError("corrupt", self._path(name), advice)
            self._loaded[name] = key
        return self._loaded[name]


def not_the_key(name: str, where: object) -> OnshoreError:
    advice = f"the key {name} there is not the one that sealed this; name or restore the center's own keys."
    return OnshoreError("key_missing", where, advice)


def overwrite(path: Path) -> None:
    """Random bytes over the old ones, flushed, then removed. A copy-on-write disk may keep the old block; say so."""
    write_over = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(write_over, secrets.token_bytes(max(1, os.fstat(write_over).st_size)))
        os.fsync(write_over)
    finally:
        os.close(write_over)
    path.unlink()
