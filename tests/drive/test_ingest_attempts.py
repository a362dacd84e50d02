"""Attempts on intake that a tester will make (reference numbers in the names): each one a stable code, the rest arrives."""

from __future__ import annotations

import io
import os
import resource
import struct
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drive.conftest import HEIGHT, HZ, MP4_OPTIONS, WIDTH, Fleet, new_center, picture
from drive.test_laundering import scene
from jail.layers import without
from onshore import drive
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError, OnshoreError
from onshore.core.recording import Clock
from onshore.drive.content import staying
from onshore.drive.signers import enroll_signer, revoke_signer, signers
from onshore.jail import child
from onshore.privacy import Anonymiser
from onshore.privacy.canary import drawn_face
from onshore.privacy.detector import Boxes, bridged
from onshore.store import Center
from onshore.wire import decode, encode, read_mcap, write_mcap
from onshore.wire.signing import manifest_path, sign_segment
from wire.test_wire import bomb


def codes(report: drive.AddReport) -> list[str]:
    return sorted(row["code"] for row in report.quarantined)


# -- 2: what an upload may hold --------------------------------------------------------------------------------------------


def member(name: str, kind: bytes, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def put(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info, io.BytesIO())

    return put


@pytest.mark.parametrize(
    "bad",
    [
        member("a.mcap", tarfile.SYMTYPE, "/etc/passwd"),
        member("a.mcap", tarfile.LNKTYPE, "../../state.sqlite"),
        member("a.mcap", tarfile.CHRTYPE),
        member("a.mcap", tarfile.BLKTYPE),
        member("a.mcap", tarfile.FIFOTYPE),
        member("../a.mcap", tarfile.REGTYPE),
        member("/a.mcap", tarfile.REGTYPE),
        member("in/../../a.mcap", tarfile.REGTYPE),
    ],
    ids="symlink hardlink device block fifo parent absolute winding".split(),
)
def test_02_unsafe_member_of_an_upload(center: Center, fleet: Fleet, bad: Callable[[tarfile.TarFile], None]) -> None:
    fleet.mcap("good.mcap")
    with tarfile.open(fleet.root / "upload.tar", "w") as archive:
        archive.add(fleet.root / "good.mcap", "good.mcap")
        bad(archive)
    report = drive.add(center, fleet.root)
    assert codes(report) == ["unsafe_member"] and report.segments == 1


def test_02_a_harmless_archive_is_named_and_not_opened(center: Center, fleet: Fleet) -> None:
    fleet.mcap("good.mcap")
    with tarfile.open(fleet.root / "upload.tar", "w") as archive:
        archive.add(fleet.root / "good.mcap", "other.mcap")
    report = drive.add(center, fleet.root)
    assert codes(report) == ["unknown_format"] and "unpack it" in report.quarantined[0]["reason"]


def test_02_links_and_pipes_in_a_folder(center: Center, fleet: Fleet, tmp_path: Path) -> None:
    outside = Fleet(root=tmp_path / "elsewhere").mcap("theirs.mcap", drive_key="theirs", start_s=200.0)
    fleet.mcap("good.mcap")
    (fleet.root / "link.mcap").symlink_to(outside)
    (fleet.root / "folder").symlink_to(outside.parent)
    os.mkfifo(fleet.root / "pipe.mcap")
    report = drive.add(center, fleet.root)
    assert codes(report) == ["unsafe_member"] * 3 and report.segments == 1


# -- 4: files that swell ---------------------------------------------------------------------------------------------------


def test_04_a_chunk_of_a_terabyte(center: Center, fleet: Fleet) -> None:
    fleet.mcap("good.mcap")
    magic = b"\x89MCAP0\r\n"
    for name, body in {
        "record.mcap": struct.pack("<BQ", 6, 1 << 40) + b"x" * 64,
        "chunk.mcap": struct.pack("<BQ", 6, 48)
        + struct.pack("<QQQII", 0, 0, 1 << 40, 0, 0)
        + struct.pack("<Q", 8)
        + b"x" * 8,
    }.items():
        (fleet.root / name).write_bytes(magic + struct.pack("<BQ", 1, 8) + bytes(8) + body + magic)
    report = drive.add(center, fleet.root)
    assert codes(report) == ["limit_exceeded"] * 2 and report.segments == 1


def test_04_a_bomb_is_refused_before_it_is_decompressed(center: Center, fleet: Fleet) -> None:
    fleet.root.mkdir()
    bomb(fleet.root / "bomb.mcap", chunks=32, size=32 << 20)
    assert (fleet.root / "bomb.mcap").stat().st_size * 10_000 < 32 * (32 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert codes(drive.add(center, fleet.root)) == ["limit_exceeded"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10, "kB more than before"


# -- 6: videos made to break a parser --------------------------------------------------------------------------------------


def atoms(path: Path, name: bytes, change: Callable[[bytearray, int], None]) -> None:
    """Change an mp4 in place at the first atom of this name."""
    data = bytearray(path.read_bytes())
    change(data, data.index(name))
    path.write_bytes(data)


def _no_duration(data: bytearray, at: int) -> None:
    data[at + 16 : at + 24] = bytes(8)  # mdhd: time scale and duration 0


def _many_streams(data: bytearray, at: int) -> None:
    head = bytes(data[: at - 4])
    (size,) = struct.unpack(">I", data[at - 4 : at])
    body = bytes(data[at + 4 : at - 4 + size])
    track = struct.pack(">I4s", 8, b"trak")
    grown = body + track * 200_000
    data[:] = head + struct.pack(">I4s", len(grown) + 8, b"moov") + grown + bytes(data[at - 4 + size :])


def _looping_edits(data: bytearray, at: int) -> None:
    data[at + 8 : at + 12] = struct.pack(">I", 0x7FFFFFFF)  # elst: two thousand million entries in a few bytes


def _noise(data: bytearray, at: int) -> None:
    rng = np.random.default_rng(0)
    data[at + 4 : at + 4 + len(data) // 2] = rng.integers(0, 256, len(data) // 2, np.uint8).tobytes()


@pytest.mark.parametrize(
    ("atom", "change"),
    [(b"mdhd", _no_duration), (b"moov", _many_streams), (b"elst", _looping_edits), (b"mdat", _noise)],
    ids="duration streams edits noise".split(),
)
def test_06_a_malformed_video_is_quarantined_alone(
    center: Center, fleet: Fleet, atom: bytes, change: Callable[[bytearray, int], None]
) -> None:
    fleet.table("b/bad")
    atoms(fleet.root / "b/bad.mp4", atom, change)
    fleet.table("a/good", start_s=300.0, shift=9)
    started = time.process_time()
    report = drive.add(center, fleet.root)
    assert time.process_time() - started < 60
    assert report.segments + len(report.quarantined) == 2 and report.segments >= 1
    assert set(codes(report)) <= {"damaged_video", "clock_disorder", "unknown_format", "limit_exceeded"}
    if change is _noise:  # the others leave frames that can be read, or none; what is read is read whole
        assert len(report.quarantined) == 1


# -- 8: whose segment it is ------------------------------------------------------------------------------------------------


def signed(
    fleet: Fleet, name: str, key: Ed25519PrivateKey, *, region: str = "us", vehicle: str = "car-0007", **f: object
) -> Path:
    path = fleet.mcap(name, **f)  # type: ignore[arg-type]
    data = sign_segment([path], key, region=region, vehicle=vehicle, processing={"anonymiser": "none"})
    manifest_path(path).write_bytes(data)
    return path


@pytest.fixture
def key(center: Center) -> Ed25519PrivateKey:
    made = Ed25519PrivateKey.generate()
    enroll_signer(center, "car-0007", made.public_key().public_bytes_raw(), made=date(1969, 1, 1))
    return made


def test_08_a_signed_segment_says_who_signed_and_an_unsigned_one_that_nobody_did(
    center: Center, fleet: Fleet, key: Ed25519PrivateKey
) -> None:
    signed(fleet, "a.mcap", key)
    fleet.mcap("b.mcap", segment_index=1, start_s=70.0)
    assert drive.add(center, fleet.root).quarantined == []
    found = {row["index"]: row["signer"] for row in drive.segments(center)}
    assert found == {0: signers(center)[0].id, 1: "unsigned"}
    for row in drive.segments(center):
        assert center.artifact(row["artifact"]).meta["signer"] == row["signer"]


def _other_car(center: Center, fleet: Fleet, key: Ed25519PrivateKey) -> None:
    other = Ed25519PrivateKey.generate()
    enroll_signer(center, "car-0008", other.public_key().public_bytes_raw())
    signed(fleet, "a.mcap", other)


def _revoked(center: Center, fleet: Fleet, key: Ed25519PrivateKey) -> None:
    signed(fleet, "a.mcap", key)
    revoke_signer(center, signers(center)[0].id)


def _other_region(center: Center, fleet: Fleet, key: Ed25519PrivateKey) -> None:
    signed(fleet, "a.mcap", key, region="cn")


def _stranger(center: Center, fleet: Fleet, key: Ed25519PrivateKey) -> None:
    signed(fleet, "a.mcap", Ed25519PrivateKey.generate())


def _edited_file(center: Center, fleet: Fleet, key: Ed25519PrivateKey) -> None:
    manifest = manifest_path(signed(fleet, "a.mcap", key)).read_bytes()
    manifest_path(fleet.mcap("a.mcap", frames=16)).write_bytes(manifest)


def _edited_manifest(center: Center, fleet: Fleet, key: Ed25519PrivateKey) -> None:
    path = manifest_path(signed(fleet, "a.mcap", key))
    path.write_bytes(path.read_bytes().replace(b'"anonymiser":"none"', b'"anonymiser":"best"'))


def _slipped_in(center: Center, fleet: Fleet, key: Ed25519PrivateKey) -> None:
    """A key written into the table, which the ledger never enrolled."""
    other = Ed25519PrivateKey.generate()
    (row,) = center.table("signers").rows()
    public = other.public_key().public_bytes_raw()
    import hashlib

    center.table("signers").append([{**row, "id": hashlib.sha256(public).hexdigest(), "public_key": public.hex()}])
    signed(fleet, "a.mcap", other)


def _no_manifest(center: Center, fleet: Fleet, key: Ed25519PrivateKey) -> None:
    manifest_path(signed(fleet, "a.mcap", key)).write_bytes(b"{}")


ATTEMPTS = [_other_car, _revoked, _other_region, _stranger, _edited_file, _edited_manifest, _slipped_in, _no_manifest]


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__.strip("_"))
def test_08_a_segment_signed_by_the_wrong_key_stays_out(
    center: Center, fleet: Fleet, key: Ed25519PrivateKey, attempt: Callable[[Center, Fleet, Ed25519PrivateKey], None]
) -> None:
    attempt(center, fleet, key)
    report = drive.add(center, fleet.root)
    assert codes(report) == ["bad_signer"] and report.segments == 0


def test_08_an_enrolling_that_was_killed_is_done_again(center: Center, key: Ed25519PrivateKey) -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    (row,) = center.table("signers").rows()
    left = {**row, "id": sha256_hex(other), "public_key": other.hex(), "vehicle": center.subject("vehicle", "car-0009")}
    center.table("signers").append([left])  # the row is there, its ledger line is not
    assert enroll_signer(center, "car-0009", other).state == "enrolled"
    assert {one.id: one.state for one in signers(center)}[sha256_hex(other)] == "enrolled"


def test_08_one_key_signs_for_one_car(center: Center, key: Ed25519PrivateKey) -> None:
    public = key.public_key().public_bytes_raw()
    assert enroll_signer(center, "car-0007", public) == signers(center)[0]
    with pytest.raises(InputError, match="bad_signer"):
        enroll_signer(center, "car-0008", public)
    revoke_signer(center, signers(center)[0].id)
    with pytest.raises(InputError, match="bad_signer"):
        enroll_signer(center, "car-0007", public)


# -- 10: times that gain retention -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [400.0, 1.0, -20_000.0])
def test_10_a_recording_from_the_future_or_before_any_car_is_quarantined(
    center: Center, fleet: Fleet, days: float
) -> None:
    start_s = max(0.0, time.time() + days * 86_400)
    fleet.mcap("a.mcap", start_s=start_s, clock=Clock(kind="utc"))
    fleet.mcap("b.mcap", start_s=time.time() - 86_400, clock=Clock(kind="utc"), segment_index=1, drive_key="good")
    report = drive.add(center, fleet.root)
    assert codes(report) == ["clock_disorder"] and report.segments == 1


def test_10_a_recording_from_before_its_own_car_is_quarantined(center: Center, fleet: Fleet) -> None:
    public = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    enroll_signer(center, "car-0007", public, made=date(2025, 3, 1))
    before, after = (time.mktime((2025, month, 1, 0, 0, 0, 0, 0, 0)) for month in (1, 6))
    fleet.mcap("a.mcap", start_s=before, clock=Clock(kind="utc"))
    fleet.mcap("b.mcap", start_s=after, clock=Clock(kind="utc"), drive_key="good")
    report = drive.add(center, fleet.root)
    assert codes(report) == ["clock_disorder"] and report.segments == 1


# -- 12: a camera that looks inside ----------------------------------------------------------------------------------------


def test_12_a_cabin_camera_under_a_front_cameras_name(center: Center, fleet: Fleet) -> None:
    """The pictures stay while the car moves; the honest camera beside it shows a road that passes."""
    cabin = lambda index: scene(3) // 2 + picture(index)[:, :, :1] // 32  # noqa: E731
    for name, shown in (("cabin.mcap", cabin), ("road.mcap", scene)):
        base = fleet.recording(frames=90, drive_key=name.split(".")[0], synthetic=False)
        signals = replace(base.signals, speed_mps=np.full(90, 10.0))
        frames = [(int(t), np.ascontiguousarray(shown(index))) for index, t in enumerate(base.signals.t_ns)]
        camera = replace(base.rig.cameras[0], name="camera_front_2")
        video = replace(encode("front", frames), camera="camera_front_2")
        fleet.root.mkdir(exist_ok=True)
        made = replace(base, signals=signals, videos=(video,), rig=replace(base.rig, cameras=(camera,)))
        write_mcap(made, fleet.root / name)
    report = drive.add(center, fleet.root)
    assert codes(report) == ["content_mismatch"] and report.segments == 1
    assert "cabin" in report.quarantined[0]["path"]


def test_12_a_camera_full_of_a_face(center: Center, fleet: Fleet) -> None:
    base = fleet.recording(frames=90, synthetic=False)
    frames = []
    for index, t_ns in enumerate(base.signals.t_ns):
        frame = np.roll(picture(index), 3 * index, axis=1) // 2
        frame[:, 32:128] = drawn_face(HEIGHT, WIDTH)[0][0][:, 32:128]
        frames.append((int(t_ns), frame))
    fleet.root.mkdir()
    write_mcap(replace(base, videos=(encode("front", frames),)), fleet.root / "a.mcap")
    assert codes(drive.add(center, fleet.root)) == ["content_mismatch"]


@pytest.mark.skipif(not os.environ.get("ONSHORE_TEST_DATA"), reason="needs ONSHORE_TEST_DATA")
def test_12_real_road_clips_are_not_taken_for_cabins() -> None:
    import av

    found = []
    for path in sorted(Path(os.environ["ONSHORE_TEST_DATA"], "openlka").rglob("*.mp4")):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            found.append(
                staying([f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(stream)) if i % 20 == 0])
            )
    assert len(found) >= 10 and max(found) < 0.8


# -- 14, 20: text and pictures that hide -----------------------------------------------------------------------------------

VIN = "1HGCM82633A004352"


def test_14_a_vehicle_number_in_a_video_is_stripped(center: Center, fleet: Fleet) -> None:
    fleet.table("a/one", vin=VIN, note=VIN)
    assert (fleet.root / "a/one.mp4").read_bytes().count(VIN.encode()) >= 2
    assert drive.add(center, fleet.root).segments == 1
    (row,) = drive.segments(center)
    stored = center.read(row["artifact"])
    assert VIN.encode() not in stored and VIN not in str(center.artifact(row["artifact"]).as_record())


def test_20_nothing_but_pixels_goes_on(center: Center, fleet: Fleet) -> None:
    """A second video track, a `free` box with a picture, a track of text: one track comes out, and none of their bytes."""
    import av

    marker = b"MARKER-ORIGINAL-PIXELS"
    fleet.table("a/one")
    path = fleet.root / "a/one.mp4"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("libx264", rate=20, options=MP4_OPTIONS) for _ in range(2)]
        for stream in tracks:
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(12):
            for number, stream in enumerate(tracks):
                image = picture(index) if number == 0 else np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in tracks:
            container.mux(stream.encode())
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", 8 + len(marker), b"free") + marker)
    assert drive.add(center, fleet.root).segments == 1
    (row,) = drive.segments(center)
    stored = center.read(row["artifact"])
    recording = read_mcap(stored)
    assert len(recording.videos) == 1 and marker not in stored
    assert max(int(frame[:, :, 1].min()) for _, frame in decode(recording.videos[0])) < 200, "the white track is gone"


def test_20_a_file_with_transparency_is_not_read(center: Center, fleet: Fleet) -> None:
    import av

    fleet.table("a/one")
    path = fleet.root / "a/one.mp4"
    path.unlink()
    with av.open(str(path.with_suffix(".mov")), "w") as container:
        stream = container.add_stream("png", rate=20)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgba"
        for index in range(3):
            pixels = np.dstack([picture(index), np.zeros((HEIGHT, WIDTH), np.uint8)])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode())
    report = drive.add(center, fleet.root)
    assert codes(report) == ["unknown_format"] and report.segments == 0


# -- 18: the frame between two boxes ---------------------------------------------------------------------------------------


def test_18_what_is_found_before_and_after_is_filled_between() -> None:
    def box(x: float) -> Boxes:
        return np.array([[x, 10, x + 20, 40, 0.9]], np.float32)

    none = np.empty((0, 5), np.float32)
    found = bridged([box(10), none, none, box(16), none])
    assert [len(boxes) for boxes in found] == [1, 1, 1, 1, 0]
    np.testing.assert_allclose(found[1][0, :4], [12, 10, 32, 40])
    assert [len(b) for b in bridged([box(10), *[none] * 6, box(10)])] == [1, 0, 0, 0, 0, 0, 0, 1], "too long a gap"
    assert [len(b) for b in bridged([box(10), none, box(200)])] == [1, 0, 1], "another thing"


class Blinking:
    """Finds the white square, but for chosen frames (counted over all calls)."""

    name, target, digest = "blinking", "face", "00" * 32

    def __init__(self, misses: set[int]) -> None:
        self.misses, self.seen = misses, 0

    def detect(self, frames: np.ndarray) -> list[Boxes]:
        answers = []
        for frame in frames:
            rows, columns = np.nonzero(frame[:, :, 0] > 200)
            missed = frame.shape[0] != 64 and self.seen in self.misses
            self.seen += frame.shape[0] != 64
            if missed or not len(rows):
                answers.append(np.empty((0, 5), np.float32))
            else:
                answers.append(
                    np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 1]], np.float32)
                )
        return answers

    def canary(self, height: int, width: int) -> tuple[np.ndarray, Boxes]:
        shown = np.zeros((1, 64, 64, 3), np.uint8)
        shown[0, 10:30, 10:30] = 255
        return shown, np.array([[10, 10, 30, 30, 1]], np.float32)


@pytest.mark.parametrize("portions", [[20], [7, 7, 6], [10, 10], [1] * 20])
def test_18_also_where_a_portion_ends_and_no_frame_is_lost(portions: list[int]) -> None:
    frames = np.zeros((20, 48, 96, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[10:26, 10 + 2 * index : 26 + 2 * index] = 255
    cuts = np.split(frames, np.cumsum(portions)[:-1])
    out = list(Anonymiser([Blinking({5, 6, 7, 8, 9, 13})]).redact_stream(iter(cuts)))  # type: ignore[list-item]
    clean = np.concatenate([part for part, _ in out])
    assert len(clean) == 20 == sum(proof.frames for _, proof in out)
    assert [index for index, frame in enumerate(clean) if frame.max() > 0] == []


# -- 22: a redactor that sees nothing --------------------------------------------------------------------------------------


class Blind(Blinking):
    def detect(self, frames: np.ndarray) -> list[Boxes]:
        return [np.empty((0, 5), np.float32) for _ in frames]


def blind_anonymiser() -> Anonymiser:
    return Anonymiser([Blind(set())])  # type: ignore[list-item]


def test_22_a_redactor_that_finds_nothing_lets_nothing_in(
    center: Center, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.mcap("a.mcap", face=True)
    swap = (
        "import onshore.drive.workers as w, drive.test_ingest_attempts as t; w.default_anonymiser = t.blind_anonymiser"
    )
    monkeypatch.setattr(child, "__file__", without(tmp_path, before=swap))
    with pytest.raises(OnshoreError) as caught:
        drive.add(center, fleet.root)
    assert caught.value.code == "not_measurable" and drive.segments(center) == [] and center.artifacts() == []


def missing_anonymiser() -> Anonymiser:
    return Anonymiser([open("/nowhere/face.onnx")])  # type: ignore[list-item]


def test_22_a_missing_face_model_is_no_fault_of_a_file(
    center: Center, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.mcap("a.mcap")
    swap = "import onshore.drive.workers as w, drive.test_ingest_attempts as t; w.default_anonymiser = t.missing_anonymiser"
    monkeypatch.setattr(child, "__file__", without(tmp_path, before=swap))
    with pytest.raises(OnshoreError, match="FileNotFoundError"):
        drive.add(center, fleet.root)
    assert drive.segments(center) == [] and center.quarantine_list() == []


def test_22_the_segment_names_the_detector_that_made_it(center: Center, fleet: Fleet) -> None:
    fleet.mcap("a.mcap")
    drive.add(center, fleet.root)
    (row,) = drive.segments(center)
    from onshore.privacy import default_anonymiser

    assert row["anonymiser"] == default_anonymiser().digest
    assert center.artifact(row["artifact"]).meta["declassified"]["detector_digest"] == row["anonymiser"]


def test_a_second_center_does_not_know_the_first_ones_keys(
    fleet: Fleet, key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    signed(fleet, "a.mcap", key)
    assert codes(drive.add(new_center(tmp_path, "other"), fleet.root)) == ["bad_signer"]
    assert HZ == 10
