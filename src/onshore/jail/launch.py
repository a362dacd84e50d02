"""Starts a jailed child and takes its answer.

Rule: the child gets a scrubbed environment, a request and a pipe for one JSON answer; whatever it does beyond its limits
ends it, and the caller gets an error, not a hang.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onshore.core.errors import ERROR_CODES, CorruptError, InputError, OnshoreError, Refusal, RefusedError
from onshore.jail import child

GIB = 1 << 30
ANSWER_LIMIT_BYTES = 64 << 20
#: What a Python child needs to read to start at all.
SYSTEM_FOLDERS = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
    "/dev/zero",
    "/proc",
    "/sys",
)
WRITABLE_DEVICES = ("/dev/null",)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """RLIMITs of a jailed child: address space and file size in bytes, CPU seconds, open files."""

    memory_bytes: int = 8 * GIB
    cpu_s: int = 3600
    file_bytes: int = 16 * GIB
    files: int = 256

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise InputError("bad_config", f"jail limit {name}", "give a number above zero.")


@dataclass(frozen=True, kw_only=True)
class JailResult:
    """result: what the function returned; attestation: layers, probes, what is missing and what was found open."""

    result: Any
    attestation: dict[str, Any] = field(default_factory=dict)


class Jail:
    """A jail for functions `module:function` that take one JSON value and return one.

    strict: refuse (`jail_unavailable`) unless every layer is in force and every probe found its way closed.
    """

    def __init__(self, *, strict: bool = False, limits: Limits | None = None, probe: bool = True) -> None:
        self.strict, self.limits, self.probe = strict, limits or Limits(), probe
        self.attestation: dict[str, Any] = {}

    def run(
        self,
        target: str,
        arguments: Any = None,
        read_dirs: Iterable[str | Path] = (),
        write_dirs: Iterable[str | Path] = (),
        timeout_s: float = 600.0,
    ) -> Any:
        """Run in a fresh child and return its JSON result; `.attestation` then says what held.

        Errors: RefusedError `jail_unavailable` (strict), InputError `limit_exceeded` when it ran out of time or was
        killed by a limit, OnshoreError with the function's own code when it raised one.
        """
        return self.run_attested(target, arguments, read_dirs, write_dirs, timeout_s).result

    def run_attested(
        self,
        target: str,
        arguments: Any = None,
        read_dirs: Iterable[str | Path] = (),
        write_dirs: Iterable[str | Path] = (),
        timeout_s: float = 600.0,
    ) -> JailResult:
        """As `run`, with the attestation beside the result."""
        with tempfile.TemporaryDirectory(prefix="onshore-jail-") as scratch:
            request = self._request(target, arguments, read_dirs, [scratch, *write_dirs])
            answer = _answer(request, scratch, timeout_s, target)
        self.attestation = answer["attestation"]
        if answer.get("refused"):
            raise RefusedError(_unavailable(self.attestation))
        if "error" in answer:
            raise _raised(answer["error"], target)
        return JailResult(result=answer["result"], attestation=self.attestation)

    def _request(
        self, target: str, arguments: Any, read: Iterable[str | Path], write: Iterable[str | Path]
    ) -> dict[str, Any]:
        python_path = [str(Path(entry).resolve()) for entry in sys.path if entry]
        homes = {str(Path(sys.prefix).resolve()), str(Path(sys.base_prefix).resolve())}
        return {
            "target": target,
            "arguments": arguments,
            "python_path": python_path,
            "read": [*SYSTEM_FOLDERS, *sorted(homes), *python_path, *(str(Path(path).resolve()) for path in read)],
            "write": [*WRITABLE_DEVICES, *(str(Path(path).resolve()) for path in write)],
            "limits": asdict(self.limits),
            "strict": self.strict,
            "probe": self.probe or self.strict,
        }


def _answer(request: dict[str, Any], scratch: str, timeout_s: float, target: str) -> dict[str, Any]:
    asked, told, said = (Path(scratch) / name for name in ("request.json", "answer.json", "stderr"))
    asked.write_text(json.dumps(request), encoding="utf8")
    with asked.open("rb") as reading, told.open("wb") as writing, said.open("wb") as errors:
        descriptors = (reading.fileno(), writing.fileno())
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", child.__file__, *map(str, descriptors)],
            env=_scrubbed(scratch),
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd=scratch,
            start_new_session=True,
        )
        status = _ended(process, timeout_s, target)
    if status != 0 or not 0 < told.stat().st_size <= ANSWER_LIMIT_BYTES:
        ending = said.read_bytes()[-500:].decode(errors="replace").strip().splitlines()[-1:]
        why = ending[0][:200] if ending else f"status {status}"
        raise InputError("limit_exceeded", target, f"the jailed child ended without an answer: {why}.")
    answer: dict[str, Any] = json.loads(told.read_bytes())
    return answer


def _ended(process: subprocess.Popen[bytes], timeout_s: float, target: str) -> int:
    """Exit status; at the end of time, or when the caller is interrupted, the child and all of its own are killed."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired as fault:
        raise InputError("limit_exceeded", target, f"the jailed child ran longer than {timeout_s:g} s.") from fault
    finally:
        # A new session was started for it: its process group carries its id, also when the child itself is gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _scrubbed(scratch: str) -> Mapping[str, str]:
    """Nothing of the caller's environment but the path; one thread for numerics; a temporary folder of its own."""
    threads = {
        name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    }
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": scratch, "TMPDIR": scratch, **threads}


def _unavailable(attestation: dict[str, Any]) -> Refusal:
    missing = ", ".join([*attestation["missing"], *(f"{name} is open" for name in attestation["open"])])
    return Refusal(
        code="jail_unavailable",
        subject=f"jail without {missing}",
        rule="strict-jail",
        clause="isolation is shown before work starts",
        remedy="Allow unprivileged user namespaces, Landlock and seccomp for this process, or run without strict.",
    )


def _raised(error: dict[str, str], target: str) -> OnshoreError:
    """The error that the function raised, of its own class, so that a batch goes on as it would without a jail."""
    if error.get("code") not in ERROR_CODES:
        return OnshoreError("corrupt", target, f"it raised {error['type']} in the jail: {error['text'][:500]}")
    if "rule" in error:
        return RefusedError(Refusal(**{name: error[name] for name in ("code", "subject", "rule", "clause", "remedy")}))
    known = {"InputError": InputError, "CorruptError": CorruptError}.get(error["type"], OnshoreError)
    return known(error["code"], error["subject"], error["advice"])
