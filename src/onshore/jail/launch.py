"""Starts jailed children and takes their answers.

Rule: a child gets a scrubbed environment and two pipes, over which plain values travel; whatever it does beyond its limits
ends it, and the caller gets an error, not a hang. Nothing of what travels touches a disk.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import ipaddress
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from onshore.core.errors import ERROR_CODES, CorruptError, InputError, OnshoreError, Refusal, RefusedError
from onshore.core.progress import Progress, silent
from onshore.jail import child
from onshore.jail.channel import Channel, Garbled

GIB = 1 << 30
START_S = 60.0
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
#: Device files of GPUs, as their drivers name them.
GPU_FILES = (
    *("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/nvidia-uvm*", "/dev/nvidia-caps/*"),
    *("/dev/kfd", "/dev/dri/renderD*"),
)
RLIMITS = ("memory_bytes", "cpu_s", "file_bytes", "files")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """RLIMITs of a jailed child: address space and file size in bytes, CPU seconds, open files; and beside them the size
    of its private memory folders, of one answer, and how many threads numerical libraries start.
    """

    memory_bytes: int = 8 * GIB
    cpu_s: int = 3600
    file_bytes: int = 16 * GIB
    files: int = 256
    scratch_bytes: int = 4 * GIB
    answer_bytes: int = 4 * GIB
    threads: int = 1

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
    """A jail for functions `module:function` that take and return one value of JSON, with `bytes` anywhere in it.

    A function of two parameters also gets an `Outside`, with `ask(name) -> bytes` and `progress(what, done, total)`.
    A way out that a probe finds open is a refusal (`jail_unavailable`); a missing layer is one where `strict`, else it is
    attested. tolerant: refuse nothing, for looking at what this machine gives. peers: stay in the present network, which
    must lead to these addresses alone (IPv4 or IPv6), for a job of several nodes; TCP only. witness: is told the
    attestation before the work starts.
    """

    def __init__(
        self,
        *,
        strict: bool = False,
        limits: Limits | None = None,
        probe: bool = True,
        tolerant: bool = False,
        peers: Sequence[str] = (),
        witness: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self.strict, self.limits, self.probe, self.tolerant = strict, limits or Limits(), probe, tolerant
        self.peers, self.witness = tuple(_address(peer) for peer in peers), witness
        self.attestation: dict[str, Any] = {}

    def run(
        self,
        target: str,
        arguments: Any = None,
        read_dirs: Iterable[str | Path] = (),
        write_dirs: Iterable[str | Path] = (),
        timeout_s: float = 600.0,
        *,
        serve: Callable[[str], bytes] | None = None,
        progress: Progress = silent,
    ) -> Any:
        """Run in a fresh child and return its result; `.attestation` then says what held.

        serve: answers the child's `ask`. Errors: RefusedError `jail_unavailable`, InputError `limit_exceeded` when it
        ran out of time or was killed by a limit, OnshoreError with the function's own code when it raised one.
        """
        with self.open(target, read_dirs, write_dirs, serve=serve) as cell:
            return cell.call(arguments, timeout_s, progress=progress)

    def run_attested(
        self,
        target: str,
        arguments: Any = None,
        read_dirs: Iterable[str | Path] = (),
        write_dirs: Iterable[str | Path] = (),
        timeout_s: float = 600.0,
    ) -> JailResult:
        """As `run`, with the attestation beside the result."""
        result = self.run(target, arguments, read_dirs, write_dirs, timeout_s)
        return JailResult(result=result, attestation=self.attestation)

    def open(
        self,
        target: str,
        read_dirs: Iterable[str | Path] = (),
        write_dirs: Iterable[str | Path] = (),
        *,
        packages: Sequence[str] = (),
        devices: Sequence[str] = (),
        serve: Callable[[str], bytes] | None = None,
    ) -> Cell:
        """A child that stays and answers many calls to the function, one at a time; use it in a `with`.

        packages: further modules that the function imports, wherever they are installed. devices: device files that it may
        open, such as `gpu_files()`; they are attested; anything else is InputError `bad_config`, as in a folder it could
        leave files. The child lives as long as the thread that opened it.
        """
        for path in devices:
            if not Path(path).is_char_device():
                raise InputError("bad_config", f"device {path}", "give the path of a character device.")
        request = self._request(target, read_dirs, [*write_dirs, *devices], packages)
        cell = Cell(request | {"devices": list(devices)}, self.limits, serve)
        try:
            self.attestation, refused = cell.start()
            if self.witness is not None:
                self.witness({**self.attestation, "refused": refused})
            if refused:
                raise RefusedError(_unavailable(self.attestation))
        except BaseException:
            cell.close()
            raise
        return cell

    def _request(
        self, target: str, read: Iterable[str | Path], write: Iterable[str | Path], packages: Sequence[str] = ()
    ) -> dict[str, Any]:
        python_path = [str(Path(entry).resolve()) for entry in [*_homes_of([target, *packages]), *sys.path] if entry]
        homes = {str(Path(sys.prefix).resolve()), str(Path(sys.base_prefix).resolve())}
        given = {name: value for name, value in asdict(self.limits).items() if name in RLIMITS}
        return {
            "target": target,
            "python_path": list(dict.fromkeys(python_path)),
            "read": [*SYSTEM_FOLDERS, *sorted(homes), *python_path, *(str(Path(path).resolve()) for path in read)],
            "write": [*WRITABLE_DEVICES, *(str(Path(path).resolve()) for path in write)],
            "limits": given,
            "scratch_bytes": self.limits.scratch_bytes,
            "peers": list(self.peers),
            "devices": [],
            "parent": os.getpid(),
            "strict": self.strict,
            "tolerant": self.tolerant,
            "probe": self.probe or self.strict or bool(self.peers),
        }


class Cell:
    """One jailed child. A call that outlives its time, or whatever else goes wrong, ends it for good."""

    def __init__(self, request: dict[str, Any], limits: Limits, serve: Callable[[str], bytes] | None) -> None:
        self.target, self._serve, self._late = request["target"], serve, False
        self._folder = tempfile.TemporaryDirectory(prefix="onshore-jail-")
        scratch, root = (str(Path(self._folder.name).resolve() / name) for name in ("scratch", "root"))
        os.mkdir(scratch, 0o700)
        os.mkdir(root, 0o700)
        request |= {"scratch": scratch, "root": root, "write": [*request["write"], scratch]}
        self._errors: BinaryIO = os.fdopen(os.memfd_create("errors"), "w+b")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._channel = Channel(ours_in, ours_out, limit_bytes=limits.answer_bytes)
        self._process = subprocess.Popen(
            [
                *(os.path.abspath(sys.executable), "-I", "-S", child.__file__, str(theirs_in), str(theirs_out)),
                json.dumps(request["python_path"]),
            ],
            env=_scrubbed(scratch, limits.threads) | (_libraries() if request["devices"] else {}),
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            cwd=scratch,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._request = request

    def start(self) -> tuple[dict[str, Any], bool]:
        """The attestation, and whether the child refuses to work."""
        with self._watched(START_S):
            self._channel.send(self._request)
            told = self._told()
            if not isinstance(told.get("attestation"), dict) or not isinstance(told.get("refused"), bool):
                raise Garbled("an answer without an attestation")
        return told["attestation"], told["refused"]

    def call(
        self,
        arguments: Any,
        timeout_s: float = 600.0,
        *,
        progress: Progress = silent,
        take: Callable[[str, Any], object] | None = None,
    ) -> Any:
        """One call of the function; errors as `Jail.run`. take: gets what the child hands over, by name, before it ends."""
        with self._watched(timeout_s):
            self._channel.send({"call": arguments})
            while True:
                told = self._told()
                if "ask" in told and self._serve is not None:
                    self._channel.send({"data": self._serve(str(told["ask"]))})
                elif "hand" in told and take is not None:
                    take(*_handed(told["hand"]))
                    self._channel.send({"taken": True})
                elif "progress" in told:
                    progress(*_how_far(told["progress"]))
                else:
                    break
            error = _raised(told["error"], self.target) if "error" in told else None
        if error is not None:
            raise error
        if "result" not in told:
            self.close()
            raise InputError("limit_exceeded", self.target, "the jailed child asked for what it was not given.")
        return told["result"]

    def _told(self) -> dict[str, Any]:
        """What the child says next. A child that was taken over says anything: what has no sense is Garbled, here and below."""
        told = self._channel.receive()
        if not isinstance(told, dict):
            raise Garbled("an answer that is no table")
        return told

    @property
    def closed(self) -> bool:
        """Whether the child has ended; it then answers nothing more."""
        return self._errors.closed

    def close(self) -> None:
        """End the child and all of its own; its folders go with it. Safe to call twice."""
        # A new session was started for it: its process group carries its id, also when the child itself is gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._channel.close()
        self._errors.close()
        self._folder.cleanup()

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @contextlib.contextmanager
    def _watched(self, timeout_s: float) -> Iterator[None]:
        """Within: the child is killed at the end of time, and of whatever goes wrong the child ends too."""
        timer = threading.Timer(timeout_s, self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (Garbled, BrokenPipeError) as fault:
            error = self._ending(timeout_s, fault)
            self.close()
            raise error from fault
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._late = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _ending(self, timeout_s: float, fault: Exception) -> InputError:
        """Why there was no answer: its time, its last words, or how it ended."""
        if self._late:
            return InputError("limit_exceeded", self.target, f"the jailed child ran longer than {timeout_s:g} s.")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._errors.seek(0)
        words = self._errors.read()[-500:].decode(errors="replace").strip().splitlines()[-1:]
        status = self._process.returncode
        why = words[0][:200] if words else (str(fault) if status is None else f"status {status}")
        return InputError("limit_exceeded", self.target, f"the jailed child ended without an answer: {why}.")


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as fault:
        raise InputError("bad_config", f"peer {text!r}", "give the addresses of the other nodes, not names.") from fault


def _homes_of(modules: Iterable[str]) -> list[str]:
    """Where this package and the modules' own are imported from, however they were installed."""
    homes = [str(Path(__file__).parents[2])]
    for module in modules:
        spec = None
        with contextlib.suppress(ValueError, ModuleNotFoundError):
            spec = importlib.util.find_spec(module.partition(":")[0].partition(".")[0])
        places = (spec.submodule_search_locations or ()) if spec is not None else ()
        homes += [str(Path(place).parent) for place in places]
    return homes


def gpu_files() -> list[str]:
    """The device files of this machine's GPUs; none where it has none."""
    return sorted(path for pattern in GPU_FILES for path in glob.glob(pattern))


def _libraries() -> dict[str, str]:
    """Where a driver's libraries are, if the caller's loader was told so; the child can read no more by it."""
    told = os.environ.get("LD_LIBRARY_PATH", "")
    return {"LD_LIBRARY_PATH": told} if told else {}


def _scrubbed(scratch: str, threads_each: int) -> dict[str, str]:
    """Nothing of the caller's environment but the path; few threads for numerics; a temporary folder of its own."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = dict.fromkeys(names, str(threads_each))
    plain = {"PATH": os.defpath, "LANG": "C.UTF-8", "LOGNAME": "jailed", "HOME": scratch, "TMPDIR": scratch}
    return {**plain, **threads}


def _unavailable(attestation: dict[str, Any]) -> Refusal:
    missing = ", ".join([*attestation["missing"], *(f"{name} is open" for name in attestation["open"])])
    return Refusal(
        code="jail_unavailable",
        subject=f"jail without {missing}",
        rule="jail",
        clause="isolation is shown before work starts",
        remedy="Allow unprivileged user namespaces, Landlock and seccomp for this process, and close what was found open.",
    )


def _handed(told: Any) -> tuple[str, Any]:
    try:
        name, value = told
    except (TypeError, ValueError) as fault:
        raise Garbled("something handed over without a name") from fault
    return str(name), value


def _how_far(told: Any) -> tuple[str, int, int]:
    try:
        what, done, total = told
        return str(what), int(done), int(total)
    except (TypeError, ValueError, OverflowError) as fault:
        raise Garbled("a progress that says nothing") from fault


def _raised(error: Any, target: str) -> OnshoreError:
    """The error that the function raised, of its own class, so that a batch goes on as it would without a jail."""
    words = {name: word for name, word in error.items() if isinstance(word, str)} if isinstance(error, dict) else {}
    try:
        if words.get("code") not in ERROR_CODES:
            return OnshoreError("corrupt", target, f"it raised {words['type']} in the jail: {words['text'][:500]}")
        if "rule" in words:
            parts = ("code", "subject", "rule", "clause", "remedy")
            return RefusedError(Refusal(**{name: words[name] for name in parts}))
        known = {"InputError": InputError, "CorruptError": CorruptError}.get(words["type"], OnshoreError)
        return known(words["code"], words["subject"], words["advice"])
    except KeyError as fault:
        raise Garbled("an error that does not say what it is") from fault
