"""Keys behind a command: one JSON line asks, one JSON line answers, over the command's standard input and output.

Rule: `command:PROGRAM ARGUMENTS` in center.toml is started once per process and kept; the protocol is the whole contract, so
that a carmaker puts a bridge to their own key service there. Requests: `{"do", "key", "suite", …}` with `key` =
`<region>|<center>|<name>`. Values are hex.

    {"do": "make", "key", "suite", "use": "wrap" | "sign"}                → {}            (there already: no error)
    {"do": "destroy", "key", "suite"}                                     → {}            (not there: no error)
    {"do": "wrap", "key", "suite", "items": [[secret, bound], …]}         → {"items": [sealed, …]}
    {"do": "unwrap", "key", "suite", "items": [[sealed, bound], …]}       → {"items": [secret, …]}
    {"do": "public", "key", "suite"}                                      → {"value": 32 bytes of Ed25519}
    {"do": "sign", "key", "suite", "message"}                             → {"value": 64 bytes}
    anything that goes wrong                                              → {"error": "one sentence"}

`examples/key_service/service.py` is the other side: a small, complete service with its keys in files, which the tests use.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from onshore.core.errors import InputError, OnshoreError
from onshore.store.suite import Suite

PUBLIC_BYTES, SIGNATURE_BYTES = 32, 64


class CommandProvider:
    """A provider on this side of the pipe. A forked child starts a command of its own.

    Errors: InputError `bad_config` for a spec that names no command; OnshoreError `key_missing` for whatever the service
    behind it does not answer as the protocol says.
    """

    def __init__(self, spec: str, *, suite: Suite, scope: str) -> None:
        self._words = _words(spec)
        self._suite, self._scope = suite, scope
        self._lock = threading.Lock()
        self._running: tuple[int, subprocess.Popen[str]] | None = None

    def __repr__(self) -> str:
        return f"CommandProvider({Path(self._words[0]).name}, [private])"

    def make_wrapping_key(self, name: str) -> None:
        self._ask("make", name, use="wrap")

    def destroy_wrapping_key(self, name: str) -> None:
        self._ask("destroy", name)

    def wrap(self, name: str, secrets_: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        return self._items("wrap", name, secrets_)

    def unwrap(self, name: str, sealed: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        return self._items("unwrap", name, sealed)

    def make_signing_key(self, name: str) -> None:
        self._ask("make", name, use="sign")

    def public_key(self, name: str) -> bytes:
        return self._value(name, self._ask("public", name), PUBLIC_BYTES)

    def sign(self, name: str, message: bytes) -> bytes:
        return self._value(name, self._ask("sign", name, message=message.hex()), SIGNATURE_BYTES)

    def _items(self, do: str, name: str, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        if not items:
            return []
        pairs = [[one.hex(), bound.hex()] for one, bound in items]
        answer = self._ask(do, name, items=pairs)
        try:
            found = [bytes.fromhex(one) for one in answer["items"]]
        except (KeyError, TypeError, ValueError) as fault:
            raise self._fault(name, f"no items of hex digits ({', '.join(answer) or 'nothing'})") from fault
        if len(found) != len(items):
            raise self._fault(name, f"{len(found)} answers to {len(items)} items")
        return found

    def _value(self, name: str, answer: dict[str, Any], size: int) -> bytes:
        try:
            value = bytes.fromhex(answer["value"])
        except (KeyError, TypeError, ValueError) as fault:
            raise self._fault(name, f"no value of hex digits ({', '.join(answer) or 'nothing'})") from fault
        if len(value) != size:
            raise self._fault(name, f"{len(value)} bytes where {size} are due")
        return value

    def _ask(self, do: str, name: str, **more: Any) -> dict[str, Any]:
        request = {"do": do, "key": f"{self._scope}|{name}", "suite": self._suite.name, **more}
        with self._lock:
            try:
                running = self._started()
                answer = _exchange((running.stdin, running.stdout), request)
            except (OSError, ValueError, RecursionError) as fault:
                self._running = None
                raise self._fault(name, f"it does not answer ({type(fault).__name__})") from fault
        if "error" in answer:
            raise self._fault(name, str(answer["error"]))
        return answer

    def _started(self) -> subprocess.Popen[str]:
        mine = os.getpid()
        if self._running is None or self._running[0] != mine:
            pipe = subprocess.PIPE
            started = subprocess.Popen(self._words, stdin=pipe, stdout=pipe, text=True, encoding="utf8")
            weakref.finalize(self, _end, started, mine)
            self._running = mine, started
        return self._running[1]

    def _fault(self, name: str, what: str) -> OnshoreError:
        advice = f"the key service says: {what}; check the command in center.toml (keys) and the service behind it."
        return OnshoreError("key_missing", f"key {name} behind {Path(self._words[0]).name}", advice)


def _words(spec: str) -> list[str]:
    try:
        words = shlex.split(spec.removeprefix("command:"))
    except ValueError as fault:
        raise InputError("bad_config", f"keys {spec!r}", f"the command cannot be read: {fault}.") from fault
    if not words or not words[0]:
        raise InputError("bad_config", f"keys {spec!r}", "name a program after `command:`.")
    return words


def _exchange(pipes: tuple[IO[str] | None, IO[str] | None], request: dict[str, Any]) -> dict[str, Any]:
    there, back = pipes
    if there is None or back is None:
        raise ValueError("no pipes")
    there.write(json.dumps(request) + "\n")
    there.flush()
    answer = json.loads(back.readline())
    if not isinstance(answer, dict):
        raise ValueError("not an object")
    return answer


def _end(running: subprocess.Popen[str], owner: int) -> None:
    """Hang up; a fork's copy of the pipes is its parent's to end."""
    if os.getpid() != owner:
        return
    for pipe in (running.stdin, running.stdout):
        if pipe is not None:
            pipe.close()
    running.wait()
