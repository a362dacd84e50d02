"""Marker pixels of raw frames over a whole small path, crashes included: they are in the raw drive and nowhere that leads out.

The marker is two saturated blocks (magenta above green, as nothing on these roads is) painted on the drawn face that the car
drives past. That is a region which the anonymiser removes, so an anonymised frame must not show it, and a raw frame always
does: wherever it turns up outside the sealed zone, a raw frame got there. It survives the codec and being made smaller; it is
looked for in decoded pictures and films, in arrays of pixels lying bare in any file (a core dump, a pickle, a log), and the raw
file's own bytes are looked for too. What this does not try: root reading memory, and swap.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dataset.recordings import recording, shifted, signals
from onshore import border, cli, clip, dataset, drive, evaluation
from onshore.border import viewing
from onshore.border.audit import draw_audit
from onshore.core.errors import OnshoreError, RefusedError
from onshore.core.recording import Video
from onshore.dataset.proxy import Proxy
from onshore.flywheel import judging
from onshore.model import Nano, Recipe, models
from onshore.privacy.canary import drawn_face
from onshore.store import Center
from onshore.wire import decode, encode, read_mcap, write_mcap

CARS = 3
QUICK = Recipe(name="quick", trainable=Nano(channels=(8, 8, 16, 16, 16), hidden=32), steps=6, batch=8)
MAGENTA, GREEN = (255, 0, 255), (0, 255, 0)
FACE = (26, 36)  # width, height in pixels
#: Runs of one colour as bytes: rows of a decoded picture, channels first or last, whichever order.
BARE = [bytes(MAGENTA) * 10, bytes(GREEN) * 10]
FEWEST = 4


def marked_face() -> np.ndarray:
    whole, boxes = drawn_face(96, 96)
    x0, y0, x1, y1 = (int(value) for value in boxes[0, :4])
    rows, columns = np.linspace(y0, y1 - 1, FACE[1]).astype(int), np.linspace(x0, x1 - 1, FACE[0]).astype(int)
    face = whole[0, rows][:, columns].copy()
    face[20:27, 7:19], face[27:34, 7:19] = MAGENTA, GREEN
    return face


def marked_film(video: Video) -> Iterator[tuple[int, np.ndarray]]:
    for index, (t_ns, frame) in enumerate(decode(video)):
        frame = frame.copy()
        left = 15 + index % 120
        frame[12 : 12 + FACE[1], left : left + FACE[0]] = marked_face()
        yield t_ns, frame


def has_marker(frame: np.ndarray) -> bool:
    """Magenta with green right below it, in a picture (H, W, 3) of any size."""
    red, green, blue = (frame[..., channel].astype(int) for channel in range(3))
    magenta = (np.minimum(red, blue) - green) > 90
    lime = (green - np.maximum(red, blue)) > 90
    if magenta.sum() < FEWEST or lime.sum() < FEWEST:
        return False
    rows, columns = np.nonzero(magenta)
    reach = 12
    near = lime[rows.min() : rows.max() + reach, max(0, columns.min() - reach) : columns.max() + reach]
    return bool(near.sum() >= FEWEST)


@dataclass(frozen=True)
class Scanner:
    """Looks for the marker in one file by every way of reading it; `raw`: pieces of the raw files' own bytes."""

    raw: tuple[bytes, ...]

    def finds(self, data: bytes) -> str:
        """How the marker is in these bytes, or nothing."""
        if any(piece in data for piece in self.raw):
            return "raw bytes"
        if any(run in data for run in BARE):
            return "bare pixels"
        return next((f"picture {n}" for n, frame in enumerate(_pictures(data)) if has_marker(frame)), "")

    def over(self, folder: Path) -> dict[str, str]:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
        found = {str(path.relative_to(folder)): self.finds(path.read_bytes()) for path in files}
        return {name: how for name, how in found.items() if how}


def _pictures(data: bytes) -> Iterator[np.ndarray]:
    """Every frame of a picture, a film, an MCAP recording or a proxy."""
    import av

    if data[:5] == b"\x89MCAP":
        for video in read_mcap(data).videos:
            yield from (frame for _, frame in decode(video))
        return
    try:
        with av.open(io.BytesIO(data)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError, ValueError, OSError):
        return


CRASH = """
import faulthandler, os, signal, sys
faulthandler.enable()
from onshore.store import Center
center = Center.open(sys.argv[1])

def children():
    listed = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return [int(pid) for pid in listed]

def crash(what, done, total):
    if done >= int(sys.argv[3]):
        for pid in children():
            os.kill(pid, signal.SIGABRT)
        try:
            raise RuntimeError(f"forced at {what} {done} of {total}")
        except RuntimeError:
            import traceback
            traceback.print_exc()
        os.abort()

if sys.argv[2] == "intake":
    from onshore import drive
    drive.add(center, [sys.argv[4]], progress=crash)
else:
    from border.test_marker import QUICK
    from onshore.model import models
    models.train(center, sys.argv[4], QUICK, progress=crash)
"""
PLAIN_CRASH = "import os; marker = bytearray(bytes((255, 0, 255)) * 5000); os.abort()"


def _crashed(root: Path, code: str, *words: str, core: int) -> subprocess.CompletedProcess[bytes]:
    """A child whose working folder is where a core file would lie; its words go to the logs, as a service's would."""

    limited = f"import resource; resource.setrlimit(resource.RLIMIT_CORE, ({core}, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n{code}"
    (root / "crashes").mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(root / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", limited, *words],
        cwd=root / "crashes",
        env=environment,
        capture_output=True,
        timeout=300,
        check=False,
    )
    (root / "logs" / f"crash-{len(list((root / 'logs').iterdir()))}.log").write_bytes(done.stdout + done.stderr)
    return done


def test_marker_pixels_of_raw_frames_are_nowhere_that_leads_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tmp", "logs", "out", "cars"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    scanner = _raw_drives(tmp_path / "cars")
    center = Center.init(
        tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=1, in_region_dirs=[tmp_path / "in"]
    )

    # intake, ended in the middle: raw frames are in the memory of its jailed readers
    killed = _crashed(tmp_path, CRASH, str(center.root), "intake", "0", str(tmp_path / "cars"), core=0)
    assert killed.returncode == -signal.SIGABRT, killed.stderr
    report = drive.add(center, [tmp_path / "cars"])
    assert not report.quarantined, report.quarantined
    clip.cut(center)
    frozen = dataset.freeze(center, "marked", held_out=0.4, split_by="drive")

    # training, ended in the middle: frames of the dataset are in the memory of the jailed trainer
    killed = _crashed(tmp_path, CRASH, str(center.root), "train", "2", frozen.id, core=0)
    assert killed.returncode == -signal.SIGABRT and b"RuntimeError: forced at" in killed.stderr, killed.stderr
    weights = models.train(center, frozen.id, QUICK).id
    _leave(center, tmp_path, weights, frozen.id)
    _say(center, tmp_path, capsys)

    _in_the_raw_zone_alone(center, scanner)
    for folder in ("center", "in", "out", "logs", "tmp", "crashes"):
        assert scanner.over(tmp_path / folder) == {}, folder
    left = {name: sum(1 for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("in", "out", "logs")}
    print(left, sorted(path.name for path in (tmp_path / "crashes").iterdir()))
    assert min(left.values()) >= 2
    center.close()


def _raw_drives(folder: Path) -> Scanner:
    """Drives past a marked face; pieces of their bytes for the scanner, which sees the marker in every raw frame."""
    pieces = list[bytes]()
    for car in range(CARS):
        moves = shifted(signals(8.0, lambda t, c=car: (0.02 * c, 0.2)), car * 10**13)
        plain = recording(vehicle=f"car-{car:04d}", drive_key=f"r-{car}", moves=moves, hz=5.0, synthetic=False)
        raw = replace(plain, videos=(encode("front", marked_film(plain.videos[0]), crf=10),))
        write_mcap(raw, folder / f"{car}.mcap")
        assert all(has_marker(frame) for _, frame in decode(raw.videos[0]))
        longest = max((packet.data for packet in raw.videos[0].packets), key=len)
        pieces += [longest[at : at + 48] for at in range(len(longest) // 4, len(longest) - 48, len(longest) // 8)]
    scanner = Scanner(tuple(pieces))
    assert set(scanner.over(folder)) == {f"{car}.mcap" for car in range(CARS)}
    return scanner


def _leave(center: Center, root: Path, weights: str, frozen: str) -> None:
    """Every way out is tried: most are refused; what may leave under a permit, and what may be written in-region, is."""
    models.export_onnx(center, weights)
    found = evaluation.open_loop(center, weights, frozen)
    segment = drive.segments(center)[0]
    for name in (segment["drive"], segment["id"], segment["artifact"], frozen, weights, str(root / "cars" / "0.mcap")):
        assert border.check(center, name, "cn").refusal is not None, name
        with pytest.raises((RefusedError, OnshoreError)):
            border.write_out(center, [name], root / "out")
    for name in ("bertha", "chen"):
        border.enroll_approver(center, name)
    center.pack.law["audit"]["required"] = center.pack.law["export"]["leakage"]["required"] = False
    for one in (weights, found.id):
        permit = border.request_permit(
            center, one, recipient="Example", to_region="cn", purpose="base", requester="alice"
        ).id
        for name in ("bertha", "chen"):
            border.approve(center, permit, name)
        try:
            border.export(center, one, permit=permit, out_dir=root / "out")
        except RefusedError as refused:
            assert one == found.id and refused.code == "not_cleared"
    rows = drive.segments(center)
    border.write_out(center, [row["artifact"] for row in rows], root / "in" / "segments")
    drive.export_mcap(
        center, rows[0]["drive"], border.open_folder(center, [rows[0]["artifact"]], root / "in", kind="segment")
    )
    assert len(draw_audit(center, root / "in" / "thumbnails", pictures=40)["files"]) == 40
    abroad = viewing.identify(center, "mallory")
    for name in (rows[0]["drive"], rows[0]["id"], weights):
        if name != weights:
            with pytest.raises(RefusedError):
                viewing.view(center, abroad, name)
    document = judging.evaluate(center, model=weights, dataset=frozen, rows=False)
    border.write_out(center, {"evaluation.json": json.dumps(document, default=str).encode()}, root / "in")


def _say(center: Center, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the command prints about all this goes to the logs, also where it fails."""
    capsys.readouterr()
    for words in (["drive", "list"], ["clip", "find"], ["ledger", "show"], ["model", "list"], ["border", "audit", "show"],
                  ["drive", "add", str(root / "cars")], ["border", "check", drive.drives(center)[0]["id"], "--to", "cn"]):  # fmt: skip
        cli.run(["--center", str(center.root), "--json", *words])
    told = capsys.readouterr()
    assert len(told.out) > 2000
    (root / "logs" / "commands.out").write_text(told.out)
    (root / "logs" / "commands.err").write_text(told.err)


def _in_the_raw_zone_alone(center: Center, scanner: Scanner) -> None:
    """Every artifact in clear: the originals show the marker, nothing that was made of them does."""
    shown = {"raw_drive": 0}
    for one in center.artifacts():
        if one.label.kind == "raw_drive":
            assert scanner.finds(center.raw.unseal(one.id))
            shown["raw_drive"] += 1
            continue
        data = center.read(one.id)
        assert not scanner.finds(data), one.label.kind
        if one.label.kind == "proxy":
            frames = [frame for _, frame in decode(Proxy.from_bytes(data).video)]
            assert len(frames) > 20 and not any(has_marker(frame) for frame in frames)
        shown[one.label.kind] = shown.get(one.label.kind, 0) + 1
    print(shown)
    assert shown["raw_drive"] == CARS and {"segment", "proxy", "dataset", "weights", "onnx"} <= set(shown)


def test_the_scanner_finds_what_is_planted_in_every_way_it_looks(tmp_path: Path) -> None:
    import cv2

    scanner = _raw_drives_in(tmp_path)
    road = read_mcap(tmp_path / "cars" / "0.mcap").videos[0]
    frame = next(frame for _, frame in decode(road))
    small = cv2.resize(frame, (128, 64), interpolation=cv2.INTER_AREA)
    (tmp_path / "out").mkdir()
    for name, seen in (("full.png", frame), ("small.png", small), ("small.jpg", small)):
        cv2.imwrite(str(tmp_path / "out" / name), seen[..., ::-1])
    (tmp_path / "out" / "film.bin").write_bytes((tmp_path / "cars" / "0.mcap").read_bytes())
    (tmp_path / "out" / "memory.dump").write_bytes(b"\0" * 5000 + marked_face().tobytes() + b"\1" * 5000)
    (tmp_path / "out" / "piece.log").write_bytes(b"decoder said: " + scanner.raw[0] + b" and died")
    (tmp_path / "out" / "honest.txt").write_text("nothing here")
    assert sorted(scanner.over(tmp_path / "out")) == [
        "film.bin", "full.png", "memory.dump", "piece.log", "small.jpg", "small.png",
    ]  # fmt: skip
    clean = next(frame for _, frame in decode(recording(moves=signals(1.0)).videos[0]))
    assert not has_marker(clean)


def _raw_drives_in(root: Path) -> Scanner:
    (root / "cars").mkdir()
    return _raw_drives(root / "cars")


def test_a_core_file_would_hold_it_and_the_command_and_the_jail_leave_none(tmp_path: Path) -> None:
    """Control: a child without our limit leaves a core file with the marker in it, where the machine writes such files."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "tmp").mkdir()
    pattern, hard = (
        Path("/proc/sys/kernel/core_pattern").read_text().strip(),
        resource.getrlimit(resource.RLIMIT_CORE)[1],
    )
    if pattern.startswith("core") and hard:
        assert _crashed(tmp_path, PLAIN_CRASH, core=hard).returncode == -signal.SIGABRT
        assert set(Scanner(()).over(tmp_path / "crashes").values()) == {"bare pixels"}
        for path in (tmp_path / "crashes").iterdir():
            path.unlink()
    ours = "import sys, os; from onshore import cli; cli.run = lambda words: os.abort(); cli.main([])"
    assert _crashed(tmp_path, ours, core=hard).returncode == -signal.SIGABRT
    assert list((tmp_path / "crashes").iterdir()) == []
