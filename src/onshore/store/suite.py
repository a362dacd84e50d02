"""The two sets of ciphers a center may be made with: `aes` (AES-256-GCM, SHA-256, BLAKE2) and `sm` (SM4-GCM, SM3).

Rule: chosen once by `init`, written into center.toml, and bound into the header of every sealed file, into every wrapped
key and into every salted id; bytes of one suite opened by the other are refused by name, never half read. Content ids, the
ledger's tree and its signatures are SHA-256 and Ed25519 in both (docs/adr/0003-keys-and-ciphers.md says why).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from onshore.core.digest import check_id, salted_id
from onshore.core.errors import InputError

Buffer = bytes | bytearray | memoryview
TAG_BYTES, NONCE_BYTES = 16, 12
ID_BYTES = 12


class Aead(Protocol):
    """Authenticated encryption with a 12-byte nonce and a 16-byte tag behind the ciphertext; InvalidTag when it is not."""

    def encrypt(self, nonce: bytes, data: Buffer, associated: bytes, /) -> bytes: ...
    def decrypt(self, nonce: bytes, data: Buffer, associated: bytes, /) -> bytes: ...
    def encrypt_into(self, nonce: bytes, data: Buffer, associated: bytes, room: Buffer, /) -> int: ...
    def decrypt_into(self, nonce: bytes, data: Buffer, associated: bytes, room: Buffer, /) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One set of ciphers. magic: the first 8 bytes of every file sealed under it; key_bytes: of its block cipher."""

    name: str
    magic: bytes
    key_bytes: int

    def aead(self, key: bytes) -> Aead:
        """key: `key_bytes` long, or longer: the first of them count (wrapping keys have 32 bytes in both suites)."""
        if self.name == "sm":
            return _Sm4Gcm(key[: self.key_bytes])
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(key[: self.key_bytes])

    def derived(self, key: bytes, salt: bytes, scope: bytes) -> bytes:
        """HKDF (RFC 5869) over the suite's hash; `key_bytes` of it."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        hashed = hashes.SM3() if self.name == "sm" else hashes.SHA256()
        return HKDF(algorithm=hashed, length=self.key_bytes, salt=salt, info=scope).derive(key)

    def salted_id(self, salt: bytes, kind: str, name: str) -> str:
        """The only form in which a subject or person is named: keyed BLAKE2, or HMAC-SM3 in `sm`."""
        if self.name != "sm":
            return salted_id(salt, kind, name)
        from cryptography.hazmat.primitives import hashes, hmac

        keyed = hmac.HMAC(salt, hashes.SM3())
        keyed.update(f"{kind}|{name}".encode())
        return check_id(f"{kind}-{keyed.finalize()[:ID_BYTES].hex()}")


SUITES = {
    "aes": Suite(name="aes", magic=b"ONSHORE1", key_bytes=32),
    "sm": Suite(name="sm", magic=b"ONSHORS1", key_bytes=16),
}
AES = SUITES["aes"]


def suite_of(name: str) -> Suite:
    """Errors: InputError `bad_config` for a suite that is not here."""
    if name not in SUITES:
        raise InputError("bad_config", f"crypto {name!r}", f"use one of {', '.join(SUITES)}.")
    return SUITES[name]


def suite_of_file(header: bytes) -> Suite | None:
    """The suite whose magic a file begins with."""
    return next((suite for suite in SUITES.values() if header.startswith(suite.magic)), None)


class _Sm4Gcm:
    """SM4 (GB/T 32907-2016) in Galois/counter mode with the interface of AESGCM."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import algorithms

        self._algorithm = algorithms.SM4(key)

    def encrypt(self, nonce: bytes, data: Buffer, associated: bytes) -> bytes:
        room = bytearray(memoryview(data).nbytes + TAG_BYTES)
        self.encrypt_into(nonce, data, associated, room)
        return bytes(room)

    def decrypt(self, nonce: bytes, data: Buffer, associated: bytes) -> bytes:
        room = bytearray(max(0, memoryview(data).nbytes - TAG_BYTES))
        self.decrypt_into(nonce, data, associated, room)
        return bytes(room)

    def encrypt_into(self, nonce: bytes, data: Buffer, associated: bytes, room: Buffer) -> int:
        from cryptography.hazmat.primitives.ciphers import Cipher, modes

        encryptor = Cipher(self._algorithm, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated)
        with memoryview(data) as plain, memoryview(room) as view:
            size = plain.nbytes
            with view[:size] as target:
                encryptor.update_into(plain, target)
            encryptor.finalize()
            view[size : size + TAG_BYTES] = encryptor.tag
        return size + TAG_BYTES

    def decrypt_into(self, nonce: bytes, data: Buffer, associated: bytes, room: Buffer) -> int:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers import Cipher, modes

        with memoryview(data) as sealed, memoryview(room) as view:
            size = sealed.nbytes - TAG_BYTES
            if size < 0:
                raise InvalidTag
            decryptor = Cipher(self._algorithm, modes.GCM(nonce, bytes(sealed[size:]))).decryptor()
            decryptor.authenticate_additional_data(associated)
            with sealed[:size] as hidden, view[:size] as target:
                decryptor.update_into(hidden, target)
            decryptor.finalize()
        return size
