#!/usr/bin/env python3
"""Verify a ledger folder of onshore without onshore: one file, the standard library alone, no network.

    python onshore_ledger_verify.py LEDGER --key HEX [--witness NOTE --witness-key NAME=HEX]

Rule: written apart from the center's own code, from the texts alone (RFC 6962 2.1 for the tree, RFC 8032 5.1 for Ed25519,
C2SP signed-note and tlog-cosignature for the checkpoints), so that one mistake is not made twice. LEDGER holds
`entries.jsonl` and `checkpoint`. Prints one JSON document; exit 0 when the log verifies, 1 when it does not.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

FILES = {"entries.jsonl", "checkpoint", "checkpoint.next"}
BLOCK_BYTES = 1 << 20

# -- Ed25519, verification only (RFC 8032 5.1.7): plain, slow (some ms a signature), nothing secret in it ------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]


def decompressed(data: bytes) -> Point | None:
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= P:
        return None
    squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if (x * x - squared) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - squared) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


def added(a: Point, b: Point) -> Point:
    left, right = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    cross, double = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = right - left, double - cross, double + cross, right + left
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(scalar: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    while scalar:
        total = added(total, point) if scalar & 1 else total
        point, scalar = added(point, point), scalar >> 1
    return total


def signature_holds(key: bytes, message: bytes, signature: bytes) -> bool:
    base = decompressed((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    public, first = decompressed(key), decompressed(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if base is None or public is None or first is None or len(signature) != 64 or scalar >= L:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = times(scalar, base), added(first, times(challenge, public))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# -- checkpoints -------------------------------------------------------------------------------------------------------


class Broken(Exception):
    """Something in the folder is not what was signed."""


def key_id(name: str, kind: bytes, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + kind + key).digest()[:4]


def signed_parts(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The signed text and the (name, key id and signature) of each line below it."""
    text, separator, below = note.partition(b"\n\n")
    if not separator or not below.endswith(b"\n"):
        raise Broken("it is no signed note")
    lines = []
    for line in below.decode().splitlines():
        dash, name, packed = line.split(" ")
        if dash != "—":
            raise Broken("a signature line is damaged")
        lines.append((name, base64.b64decode(packed, validate=True)))
    return text + b"\n", lines


def checkpoint(note: bytes, key: bytes) -> dict[str, object]:
    """The fields of a checkpoint that `key` signed."""
    try:
        text, lines = signed_parts(note)
        origin, size, root, length, time_ns, *frontier = text.decode()[:-1].split("\n")
        name, packed = lines[0]
        fields: dict[str, object] = {
            "origin": origin,
            "size": int(size),
            "root": base64.b64decode(root, validate=True),
            "bytes": int(length.removeprefix("bytes ")),
        }
        regular = [
            origin,
            str(int(size)),
            root,
            f"bytes {fields['bytes']}",
            f"time {int(time_ns.removeprefix('time '))}",
        ]
        if "\n".join([*regular, *frontier, ""]).encode() != text or len(frontier) != int(size).bit_count():
            raise Broken("its text is not regular")
    except (ValueError, IndexError) as fault:
        raise Broken("it is no checkpoint") from fault
    if name != origin or packed[:4] != key_id(origin, b"\x01", key) or not signature_holds(key, text, packed[4:]):
        raise Broken("it is not signed by the center's key")
    return fields


def cosigned_by(note: bytes, keys: dict[str, bytes]) -> dict[str, int]:
    """Witness -> when it signed (POSIX s), for every cosignature/v1 line that verifies with a key given."""
    text, lines = signed_parts(note)
    found = {}
    for name, packed in lines[1:]:
        if name in keys and packed[:4] == key_id(name, b"\x04", keys[name]):
            time_s = int.from_bytes(packed[4:12], "big")
            if signature_holds(keys[name], f"cosignature/v1\ntime {time_s}\n".encode() + text, packed[12:]):
                found[name] = time_s
    return found


# -- the tree ----------------------------------------------------------------------------------------------------------


def lines_of(path: Path, length: int) -> Iterator[bytes]:
    """The lines of the first `length` bytes; a last one without its end is marked, so that its hash differs."""
    rest = b""
    with path.open("rb") as file:
        while length > 0 and (block := file.read(min(length, BLOCK_BYTES))):
            length -= len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
    if rest:
        yield rest + b"?"


def folded(stack: list[bytes]) -> bytes:
    root = stack[-1] if stack else hashlib.sha256(b"").digest()
    for node in reversed(stack[:-1]):
        root = hashlib.sha256(b"\x01" + node + root).digest()
    return root


def roots(lines: Iterator[bytes], marks: set[int]) -> tuple[dict[int, bytes], int]:
    """The RFC 6962 root after each marked number of lines and after all of them, and how many there are."""
    sha256, stack, count = hashlib.sha256, list[bytes](), 0
    found = {0: folded([])}
    for line in lines:
        node, count = sha256(b"\0" + line).digest(), count + 1
        number = count
        while not number & 1:
            node, number = sha256(b"\x01" + stack.pop() + node).digest(), number >> 1
        stack.append(node)
        if count in marks:
            found[count] = folded(stack)
    found[count] = folded(stack)
    return found, count


# -- the verdict -------------------------------------------------------------------------------------------------------


def verify(
    folder: Path, key: bytes, note: bytes | None = None, witnesses: dict[str, bytes] | None = None
) -> dict[str, object]:
    """{"ok", "size", "root", "witnessed", "trust", "problems"} of a ledger folder."""
    try:
        head = checkpoint((folder / "checkpoint").read_bytes(), key)
    except (Broken, OSError) as fault:
        return verdict([f"checkpoint: {fault}"])
    if not (folder / "entries.jsonl").is_file():
        return verdict(["entries.jsonl: there is no such file"])
    size = int(str(head["size"]))
    problems = [f"{path.name}: not a ledger file" for path in sorted(folder.iterdir()) if path.name not in FILES]
    problems += tail_problems(folder, key, size, int(str(head["bytes"])))
    kept: dict[str, object] | None = None
    if note is not None:
        try:
            kept = checkpoint(note, key)
        except Broken as fault:
            problems.append(f"the witness's note: {fault}")
    marks = {int(str(kept["size"]))} if kept else set()
    found, count = roots(lines_of(folder / "entries.jsonl", int(str(head["bytes"]))), marks)
    if count != size or found.get(size) != head["root"]:
        problems.append(f"the entries do not have the root that the checkpoint of size {size} signed")
    witnessed = 0
    if kept is not None and note is not None:
        problems += witness_problems(kept, size, found)
        seen = cosigned_by(note, witnesses or {})
        if witnesses and not seen:
            problems.append("the witness's note: no witness whose key was given has signed it")
        witnessed = int(str(kept["size"])) if seen else 0
    return verdict(problems, size, found.get(count, b"").hex(), witnessed)


def tail_problems(folder: Path, key: bytes, size: int, length: int) -> list[str]:
    """Bytes behind the signed ones are an append that was interrupted only while a signed checkpoint.next announces them."""
    tail = (folder / "entries.jsonl").stat().st_size - length
    following = folder / "checkpoint.next"
    if tail < 0:
        return [f"{-tail} bytes of the entries are gone"]
    if not following.exists():
        return [f"{tail} bytes more than the checkpoint signed"] if tail else []
    try:
        announced = checkpoint(following.read_bytes(), key)
    except Broken as fault:
        return [f"checkpoint.next: {fault}"]
    fits = int(str(announced["size"])) > size and tail <= int(str(announced["bytes"])) - length
    return [] if fits else ["an announced append does not fit the log"]


def witness_problems(kept: dict[str, object], size: int, found: dict[int, bytes]) -> list[str]:
    seen = int(str(kept["size"]))
    if seen > size:
        return [f"the witness saw {seen} entries, the log has {size}: it was cut back"]
    if found.get(seen) != kept["root"]:
        return [f"the first {seen} entries are not those that the witness saw: history was rewritten"]
    return []


def verdict(problems: list[str], size: int = 0, root: str = "", witnessed: int = 0) -> dict[str, object]:
    trust = "witnessed" if witnessed and not problems else "self-attested"
    record: dict[str, object] = {"ok": not problems, "size": size, "root": root}
    return {**record, "witnessed": witnessed if not problems else 0, "trust": trust, "problems": problems}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--key", required=True, help="the center's public key (64 hex digits)")
    parser.add_argument("--witness", type=Path, help="a checkpoint that somebody outside kept")
    parser.add_argument("--witness-key", action="append", default=[], metavar="NAME=HEX")
    given = parser.parse_args()
    keys = {name: bytes.fromhex(key) for name, _, key in (one.rpartition("=") for one in given.witness_key)}
    note = given.witness.read_bytes() if given.witness else None
    answer = verify(given.ledger, bytes.fromhex(given.key), note, keys)
    sys.stdout.write(json.dumps(answer, indent=1) + "\n")
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
