"""Files at rest: AES-256-GCM over 1 MiB chunks, each bound to its place, its key and its content.

Rule: no chunk can be cut off, moved, repeated or read as another artifact. Layout: magic (8), salt (16), then chunks of
up to 1 MiB of ciphertext with a 16-byte tag. The file key is HKDF-SHA256(data key, salt, scope); the nonce is
7 zero bytes, the chunk number (4, big-endian) and 1 for the last chunk, else 0 (the STREAM construction).
scope = `region|key id|content id`, so a file under another name, key or region does not open.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from onshore.core.errors import CorruptError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"ONSHORE1"
SALT_BYTES, TAG_BYTES, CHUNK_BYTES = 16, 16, 1 << 20


def scope_of(region: str, key_id: str, content_id: str) -> bytes:
    return f"{region}|{key_id}|{content_id}".encode()


def encrypt(source: Iterator[bytes | memoryview], target: BinaryIO, data_key: bytes, scope: bytes) -> None:
    """Write the chunks of `source` (1 MiB each but the last) encrypted to `target`."""
    header = MAGIC + secrets.token_bytes(SALT_BYTES)
    target.write(header)
    cipher, number = _file_cipher(data_key, header, scope), 0
    chunk = next(source, b"")
    for following in source:
        target.write(cipher.encrypt(_nonce(number, last=False), chunk, header))
        chunk, number = following, number + 1
    target.write(cipher.encrypt(_nonce(number, last=True), chunk, header))


def decrypt(stored: bytes, data_key: bytes, scope: bytes, subject: str) -> Iterator[bytes]:
    """The plaintext chunks. Errors: CorruptError as soon as a chunk is not what was written in its place."""
    from cryptography.exceptions import InvalidTag

    header, view = stored[: len(MAGIC) + SALT_BYTES], memoryview(stored)
    if len(stored) < len(header) + TAG_BYTES or not header.startswith(MAGIC):
        raise CorruptError("corrupt", subject, "its file is cut short or not a sealed file; restore it from a copy.")
    cipher, step = _file_cipher(data_key, header, scope), CHUNK_BYTES + TAG_BYTES
    for number, start in enumerate(range(len(header), len(stored), step)):
        last = start + step >= len(stored)
        try:
            yield cipher.decrypt(_nonce(number, last=last), view[start : start + step], header)
        except InvalidTag as fault:
            raise CorruptError(
                "corrupt", subject, f"chunk {number} does not authenticate; restore the file."
            ) from fault


def pieces(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(data), CHUNK_BYTES):
        yield view[start : start + CHUNK_BYTES]


def file_pieces(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def file_sha256(file: BinaryIO) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes; the file is rewound."""
    digest, size = hashlib.sha256(), 0
    for chunk in file_pieces(file):
        digest.update(chunk)
        size += len(chunk)
    file.seek(0)
    return digest.hexdigest(), size


def _file_cipher(data_key: bytes, header: bytes, scope: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=header[len(MAGIC) :], info=scope).derive(data_key))


def _nonce(number: int, *, last: bool) -> bytes:
    return bytes(7) + number.to_bytes(4, "big") + bytes([last])
