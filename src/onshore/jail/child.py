"""The jailed child: raises the fences in order, tries them, then imports one function and answers calls to it.

Rule: nothing but the standard library is imported before the fences stand. Started as
`python -I -S child.py <reading end> <writing end> <module path as JSON>`; the first message says everything else.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from typing import Any


class Outside:
    """What the jailed function may ask of its parent: bytes by name, that something be kept, and that somebody be told
    how far it is."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def ask(self, name: str) -> bytes:
        """Bytes that the parent hands out under this name, or its refusal to as an error that ends the work."""
        self._channel.send({"ask": name})
        data: bytes = self._channel.receive()["data"]
        return data

    def hand(self, name: str, value: Any) -> None:
        """Give the parent a value before the work is done; it has taken it when this returns."""
        self._channel.send({"hand": [name, value]})
        self._channel.receive()

    def progress(self, what: str, done: int, total: int) -> None:
        self._channel.send({"progress": [what, done, total]})


def main(reading: int, writing: int, python_path: list[str]) -> None:
    sys.path[:] = python_path
    from onshore.jail import kernel
    from onshore.jail.channel import Channel, Garbled

    kernel.close_descriptors(keep=(0, 1, 2, reading, writing))
    channel = Channel(reading, writing, limit_bytes=1 << 40)
    request = channel.receive()
    attestation = _prepare(request, kernel)
    refused = _refused(request, attestation)
    channel.send({"attestation": attestation, "refused": refused})
    function: Callable[..., Any] | None = None
    while not refused:
        try:
            arguments = channel.receive()["call"]
        except Garbled:  # the parent has no more calls
            return
        try:
            function = function or _function(request["target"])
            takes_outside = len(inspect.signature(function).parameters) > 1
            result = function(arguments, Outside(channel)) if takes_outside else function(arguments)
            channel.send({"result": result})
        except Exception as fault:  # the outermost handler: the parent raises it
            record = fault.as_record() if hasattr(fault, "as_record") else {}
            channel.send({"error": {"type": type(fault).__name__, "text": str(fault)[:2000], **record}})


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _prepare(request: dict[str, Any], kernel: Any) -> dict[str, Any]:
    """Raise the fences, then try them. Returns layers, probes, what is missing and what was found open."""
    layers = raise_fences(request, kernel)
    from onshore.jail.probes import probe

    probes = probe({"peers": request["peers"]}) if request["probe"] else {}
    missing = sorted(name for name, state in layers.items() if state != "in force")
    opened = sorted(name for name, state in probes.items() if state != "closed")
    if request["peers"] and "fenced_network" in missing:
        opened.append("fenced_network")
    given = {"peers": request["peers"], "devices": request["devices"]}
    return {"layers": layers, "probes": probes, "missing": missing, "open": opened, **given}


def _refused(request: dict[str, Any], attestation: dict[str, Any]) -> bool:
    if request["tolerant"]:
        return False
    return bool(attestation["open"] or (request["strict"] and attestation["missing"]))


def raise_fences(request: dict[str, Any], kernel: Any) -> dict[str, str]:
    """Raise each fence; a fence that this machine refuses is named with its reason."""
    layers = {"descriptors": "in force"}

    def attempt(name: str, step: Callable[[], object]) -> None:
        try:
            step()
            layers[name] = "in force"
        except OSError as fault:
            layers[name] = f"missing: {fault.strerror or fault}"

    attempt("limits", lambda: kernel.limit(**request["limits"]))
    if request["peers"]:
        attempt("fenced_network", lambda: kernel.keep_network(request["peers"]))
    else:
        attempt("network_namespace", kernel.isolate_network)
    shared = "/dev/shm"
    attempt("private_memory", lambda: kernel.private_folders([request["scratch"], shared], request["scratch_bytes"]))
    private = layers["private_memory"] == "in force"
    write = [*request["write"], *([shared] if private else [])]
    attempt("private_root", lambda: _hide_the_rest(request, write, kernel, private))
    os.chdir(request["scratch"])
    kernel.die_with(request["parent"])
    attempt("capabilities", kernel.drop_capabilities)
    attempt("no_new_privileges", kernel.no_new_privileges)
    gpus = bool(request["devices"])
    attempt("landlock", lambda: kernel.restrict_files(request["read"], write, named_threads=gpus))
    # Without an empty network of its own, the child gets no internet socket at all; among peers, TCP alone.
    alone = layers.get("network_namespace") == "in force"
    families = kernel.FAMILIES if alone or request["peers"] else kernel.LOCAL_FAMILIES
    attempt("seccomp", lambda: kernel.filter_calls(families, streams_only=bool(request["peers"])))
    return layers


def _hide_the_rest(request: dict[str, Any], write: list[str], kernel: Any, private: bool) -> None:
    if not private:
        raise OSError(0, "it needs private memory")
    kernel.private_root(request["root"], [*request["read"], *write])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
