"""The jailed child: raises the fences in order, tries them, then imports and runs one function.

Rule: nothing but the standard library is imported before the fences stand. Started as
`python -I -S child.py <request descriptor> <answer descriptor>`; the request says everything.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any


def main(request_fd: int, answer_fd: int) -> None:
    with os.fdopen(request_fd, "rb") as file:
        request = json.loads(file.read())
    sys.path[:] = request["python_path"]
    from onshore.jail import kernel

    kernel.close_descriptors(keep=(0, 1, 2, answer_fd))
    answer = _run(request, kernel)
    with os.fdopen(answer_fd, "wb") as file:
        file.write(json.dumps(answer).encode())


def _run(request: dict[str, Any], kernel: Any) -> dict[str, Any]:
    layers = raise_fences(request, kernel)
    from onshore.jail.probes import probe

    probes = probe() if request["probe"] else {}
    missing = sorted(name for name, state in layers.items() if state != "in force")
    opened = sorted(name for name, state in probes.items() if state != "closed")
    attestation = {"layers": layers, "probes": probes, "missing": missing, "open": opened}
    if request["strict"] and (missing or opened):
        return {"attestation": attestation, "refused": True}
    try:
        module, _, function = request["target"].partition(":")
        result = getattr(importlib.import_module(module), function)(request["arguments"])
        return {"attestation": attestation, "result": json.loads(json.dumps(result))}
    except Exception as fault:  # the outermost handler: the parent raises it
        record = fault.as_record() if hasattr(fault, "as_record") else {}
        return {"attestation": attestation, "error": {"type": type(fault).__name__, "text": str(fault), **record}}


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
    attempt("network_namespace", kernel.isolate_network)
    attempt("capabilities", kernel.drop_capabilities)
    attempt("no_new_privileges", kernel.no_new_privileges)
    attempt("landlock", lambda: kernel.restrict_files(request["read"], request["write"]))
    # Without an empty network of its own, the child gets no internet socket at all.
    alone = layers["network_namespace"] == "in force"
    attempt("seccomp", lambda: kernel.filter_calls(kernel.FAMILIES if alone else kernel.LOCAL_FAMILIES))
    return layers


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
