"""A key service that keeps its keys as files: small, complete, and the pattern for a bridge to a real one.

    onshore init center --region cn --keys "command:python examples/key_service/service.py /safe/keys"

One JSON line asks, one answers; the protocol stands in src/onshore/store/kms.py. It imports nothing of onshore.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherAlgorithm, algorithms, modes

NONCE_BYTES, TAG_BYTES = 12, 16


def algorithm(suite: str, key: bytes) -> CipherAlgorithm:
    return algorithms.SM4(key[:16]) if suite == "sm" else algorithms.AES(key)


def wrap(suite: str, key: bytes, secret: bytes, bound: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    cipher = Cipher(algorithm(suite, key), modes.GCM(nonce)).encryptor()
    cipher.authenticate_additional_data(bound)
    return nonce + cipher.update(secret) + cipher.finalize() + cipher.tag


def unwrap(suite: str, key: bytes, sealed: bytes, bound: bytes) -> bytes:
    nonce, hidden, tag = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:-TAG_BYTES], sealed[-TAG_BYTES:]
    cipher = Cipher(algorithm(suite, key), modes.GCM(nonce, tag)).decryptor()
    cipher.authenticate_additional_data(bound)
    return cipher.update(hidden) + cipher.finalize()


def path_of(folder: Path, name: str) -> Path:
    plain = re.sub(r"[^a-z0-9-]", "-", name)
    return folder / f"{plain}.key"


def make(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


def destroy(path: Path) -> None:
    if path.exists():
        with path.open("r+b") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()


def answer(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    do, suite, path = asked["do"], asked["suite"], path_of(folder, asked["key"])
    if do in ("make", "destroy"):
        {"make": make, "destroy": destroy}[do](path)
        return {}
    key = path.read_bytes()
    if do in ("public", "sign"):
        signer = Ed25519PrivateKey.from_private_bytes(key)
        value = (
            signer.public_key().public_bytes_raw() if do == "public" else signer.sign(bytes.fromhex(asked["message"]))
        )
        return {"value": value.hex()}
    work = {"wrap": wrap, "unwrap": unwrap}[do]
    pairs = [(bytes.fromhex(one), bytes.fromhex(bound)) for one, bound in asked["items"]]
    return {"items": [work(suite, key, one, bound).hex() for one, bound in pairs]}


def main() -> None:
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        try:
            found = answer(folder, json.loads(line))
        except (OSError, KeyError, TypeError, ValueError, InvalidTag) as fault:
            found = {"error": f"{type(fault).__name__} {fault}".strip()}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
