"""Files at rest: AES-256-GCM or SM4-GCM over 1 MiB chunks, each bound to its place, its key, its suite and its content.

Rule: no chunk can be cut off, moved, repeated or read as another artifact. Layout: magic of the suite (8), salt (16), then
chunks of up to 1 MiB of ciphertext with a 16-byte tag. The file key is HKDF(data key, salt, scope) over the suite's hash;
the nonce is 7 zero bytes, the chunk number (4, big-endian) and 1 for the last chunk, else 0 (the STREAM construction).
scope = `region|key id|content id`, so a file under another name, key or region does not open.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from onshore.core.errors import CorruptError, InputError
from onshore.store.suite import AES, TAG_BYTES, Aead, Suite, suite_of_file

SALT_BYTES, CHUNK_BYTES = 16, 1 << 20
MAGIC_BYTES = len(AES.magic)
HEADER_BYTES = MAGIC_BYTES + SALT_BYTES


def scope_of(region: str, key_id: str, content_id: str) -> bytes:
    return f"{region}|{key_id}|{content_id}".encode()


def encrypt(
    source: Iterator[bytes | memoryview], target: BinaryIO, data_key: bytes, scope: bytes, suite: Suite = AES
) -> None:
    """Write the chunks of `source` (1 MiB each but the last) encrypted to `target`."""
    header = suite.magic + secrets.token_bytes(SALT_BYTES)
    target.write(header)
    cipher, number = _file_cipher(data_key, header, scope, suite), 0
    sealed = memoryview(bytearray(CHUNK_BYTES + TAG_BYTES))
    chunk = next(source, b"")
    for following in source:
        cipher.encrypt_into(_nonce(number, last=False), chunk, header, sealed)
        target.write(sealed)
        chunk, number = following, number + 1
    target.write(cipher.encrypt(_nonce(number, last=True), chunk, header))


def decrypt(stored: bytes | mmap.mmap, data_key: bytes, scope: bytes, subject: str, suite: Suite = AES) -> bytes:
    """The plaintext. Errors: CorruptError when a chunk is not what was written in its place or of another suite.

    The scope names the content's digest, and `Center.put` hashed the very bytes it sealed: what authenticates has it.
    """
    from cryptography.exceptions import InvalidTag

    header, size = stored[:HEADER_BYTES], plain_size(len(stored))
    found = suite_of_file(header)
    if size is None or found is None:
        raise CorruptError("corrupt", subject, "its file is cut short or not a sealed file; restore it from a copy.")
    if found != suite:
        advice = f"it was sealed under the suite {found.name}, this center uses {suite.name}; they do not mix."
        raise CorruptError("wrong_suite", subject, advice)
    cipher, step = _file_cipher(data_key, header, scope, suite), CHUNK_BYTES + TAG_BYTES
    # A buffer that gives its bytes away without a copy; copies cost more than the decryption.
    plain = io.BytesIO(bytes(size))
    with memoryview(stored) as view, plain.getbuffer() as room:
        for number, start in enumerate(range(HEADER_BYTES, len(stored), step)):
            last = start + step >= len(stored)
            target = room[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
            try:
                with view[start : start + step] as sealed:
                    cipher.decrypt_into(_nonce(number, last=last), sealed, header, target)
            except InvalidTag as fault:
                advice = f"chunk {number} does not authenticate; restore the file."
                raise CorruptError("corrupt", subject, advice) from fault
            target.release()
    return plain.getvalue()


def plain_size(stored: int) -> int | None:
    """Plaintext bytes in a file of `stored` bytes; None when no file has that size."""
    chunks, rest = divmod(stored - HEADER_BYTES, CHUNK_BYTES + TAG_BYTES)
    if stored < HEADER_BYTES + TAG_BYTES or 0 < rest < TAG_BYTES:
        return None
    return chunks * CHUNK_BYTES + max(0, rest - TAG_BYTES)


def pieces(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(data), CHUNK_BYTES):
        yield view[start : start + CHUNK_BYTES]


def file_pieces(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def unchanged(chunks: Iterator[bytes], sha256: str, subject: object) -> Iterator[bytes]:
    """The same chunks; InputError `corrupt` at their end when a file changed after its digest was taken."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise InputError("corrupt", subject, "the file changed while it was read; put it again when it is complete.")


def file_sha256(file: BinaryIO) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes; the file is rewound."""
    digest, size = hashlib.sha256(), 0
    for chunk in file_pieces(file):
        digest.update(chunk)
        size += len(chunk)
    file.seek(0)
    return digest.hexdigest(), size


def _file_cipher(data_key: bytes, header: bytes, scope: bytes, suite: Suite) -> Aead:
    return suite.aead(suite.derived(data_key, header[MAGIC_BYTES:], scope))


def _nonce(number: int, *, last: bool) -> bytes:
    return bytes(7) + number.to_bytes(4, "big") + bytes([last])
