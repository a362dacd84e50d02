"""Recordings travel unchanged, as the same bytes, in files others can open; and no file takes more than it announces."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from mcap_protobuf.decoder import DecoderFactory
from mcap_protobuf.schema import build_file_descriptor_set

import onshore
from onshore.core.digest import sha256_hex
from onshore.core.errors import InputError
from onshore.core.recording import Camera, Clock, Packet, Recording, Rig, Signals, Video
from onshore.wire import Limits, decode, encode, read_mcap, write_mcap
from onshore.wire.annexb import H264_IDR, H264_PPS, H264_SPS, h264_types, is_keyframe, without_sei

STEP_NS = 100_000_000
SOURCE = str(Path(onshore.__file__).parents[1])


def picture(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth scene that moves, so that codecs keep it recognisable."""
    y, x = np.mgrid[0:height, 0:width]
    red = 127 + 100 * np.sin((x + 3 * index) / 9)
    green = 127 + 100 * np.cos(y / 7)
    return np.stack([red, green, np.full_like(red, 40 + index)], -1).astype(np.uint8)


def frames(count: int, start_ns: int = 5) -> list[tuple[int, np.ndarray]]:
    return [(start_ns + index * STEP_NS + index, picture(index)) for index in range(count)]


def recording(count: int = 25, codec: str = "h264", **fields: object) -> Recording:
    rng = np.random.default_rng(count)
    camera = Camera(name="front", width_px=64, height_px=48, focal_px=51.2, centre_x_px=32.0, centre_y_px=24.0)
    speed = rng.normal(8, 1, count)
    speed[1] = np.nan
    signals = Signals.build(
        np.arange(count) * STEP_NS + 7,
        speed_mps=speed,
        x_m=rng.normal(size=count),
        y_m=rng.normal(size=count),
        yaw_rad=rng.normal(size=count),
        command=np.arange(count) % 4,
    )
    values: dict = {
        "vehicle": "car-0007",
        "clock": Clock(kind="boot", utc_offset_ns=12, uncertainty_ns=3),
        "rig": Rig(cameras=(camera,), topics={"lidar": "drop"}),
        "signals": signals,
        "videos": (encode("front", frames(count), codec=codec),),
        "segment_index": 3,
        "drive_key": "monday",
        "synthetic": True,
        "facts": {"place": "town-1", "share": 0.1},
    }
    return Recording(**{**values, **fields})


def same(a: Recording, b: Recording) -> bool:
    for name in ("t_ns", *Signals.COLUMNS):
        np.testing.assert_array_equal(getattr(a.signals, name), getattr(b.signals, name))
    return replace(a, signals=b.signals, private={}) == replace(b, private={})


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_a_recording_comes_back_as_it_was(tmp_path: Path, codec: str) -> None:
    original = recording(codec=codec, segment_id="segment-1", drive_id="drive-1", dropped_topics=("/lidar",))
    digest = write_mcap(original, tmp_path / "a.mcap")
    assert digest == sha256_hex((tmp_path / "a.mcap").read_bytes())
    assert same(read_mcap(tmp_path / "a.mcap"), original)
    assert same(read_mcap((tmp_path / "a.mcap").read_bytes()), original)


def test_the_same_recording_is_the_same_bytes(tmp_path: Path) -> None:
    assert write_mcap(recording(), tmp_path / "a.mcap") == write_mcap(recording(), tmp_path / "b.mcap")
    again = read_mcap(tmp_path / "a.mcap")
    assert write_mcap(again, tmp_path / "c.mcap") == write_mcap(recording(), tmp_path / "d.mcap")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mcap", "b.mcap", "c.mcap", "d.mcap"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=hnp.arrays(np.float64, 5, elements=st.floats(allow_nan=True, allow_infinity=False)),
    times=st.lists(st.integers(0, 2**62), min_size=5, max_size=5, unique=True).map(sorted),
    facts=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3),
)
def test_any_signal_value_survives(tmp_path: Path, values: np.ndarray, times: list[int], facts: dict) -> None:
    signals = Signals.build(np.array(times), speed_mps=values, in_junction=-values)
    packet = Packet(t_ns=times[0], data=b"\x00\x00\x00\x01\x65a", keyframe=True)
    original = recording(
        2, signals=signals, facts=facts, videos=(Video(camera="front", codec="h264", packets=(packet,)),)
    )
    write_mcap(original, tmp_path / "a.mcap")
    assert same(read_mcap(tmp_path / "a.mcap"), original)


def test_other_readers_find_foxglove_schemas(tmp_path: Path) -> None:
    write_mcap(recording(), tmp_path / "a.mcap")
    with open(tmp_path / "a.mcap", "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        summary = reader.get_summary()
        assert summary is not None
        names = {c.topic: summary.schemas[c.schema_id].name for c in summary.channels.values()}
        assert names["/camera/front"] == "foxglove.CompressedVideo"
        assert names["/ego/pose"] == names["/rig"] == "foxglove.FrameTransform"
        assert names["/calibration/front"] == "foxglove.CameraCalibration"
        messages = [m for _, _, _, m in reader.iter_decoded_messages(topics=["/camera/front"])]
    assert len(messages) == 25
    assert {m.format for m in messages} == {"h264"}
    assert messages[0].timestamp.nanos == 5


def test_the_mounting_looks_forward(tmp_path: Path) -> None:
    write_mcap(recording(), tmp_path / "a.mcap")
    with open(tmp_path / "a.mcap", "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        [(_, _, _, tf)] = list(reader.iter_decoded_messages(topics=["/rig"]))
    w, x, y, z = tf.rotation.w, tf.rotation.x, tf.rotation.y, tf.rotation.z
    forward = [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]  # the optical z axis in rig
    assert forward == pytest.approx([1, 0, 0])
    assert (tf.parent_frame_id, tf.child_frame_id) == ("rig", "front")


def test_positions_are_written_only_when_asked_for(tmp_path: Path) -> None:
    original = recording(private={"gnss": [(9, 48.25, 11.5, 400.0)], "vin": "MARKER-VIN"})
    write_mcap(original, tmp_path / "a.mcap")
    write_mcap(original, tmp_path / "b.mcap", positions=True)
    assert read_mcap(tmp_path / "a.mcap").private == {}
    assert read_mcap(tmp_path / "b.mcap").private == {"gnss": [(9, 48.25, 11.5, 400.0)]}
    assert b"MARKER-VIN" not in (tmp_path / "b.mcap").read_bytes()


def test_a_receiver_without_a_fix_names_no_place(tmp_path: Path) -> None:
    nan = float("nan")
    write_mcap(
        recording(private={"gnss": [(9, nan, 11.5, 400.0), (10, 48.25, 11.5, nan)]}),
        tmp_path / "a.mcap",
        positions=True,
    )
    assert read_mcap(tmp_path / "a.mcap").private == {"gnss": [(10, 48.25, 11.5, 0.0)]}


@pytest.mark.parametrize(
    "field",
    [
        {"vehicle": 7},
        {"drive_key": ["monday"]},
        {"segment_index": 1 << 70},
        {"facts": ["a list"]},
        {"dropped_topics": (1,)},
        {"synthetic": "yes"},
        {"clock": Clock(kind="moon")},  # type: ignore[arg-type]
        {"clock": Clock(kind="boot", utc_offset_ns="soon")},  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_a_metadata_record_of_other_kinds_of_values_is_not_read(tmp_path: Path, field: dict) -> None:
    write_mcap(recording(2, **field), tmp_path / "a.mcap")
    with pytest.raises(InputError, match="unknown_format"):
        read_mcap(tmp_path / "a.mcap")


def test_every_keyframe_stands_alone_and_no_encoder_text_stays() -> None:
    video = encode("front", frames(25), gop=10)
    assert [p.keyframe for p in video.packets] == [i % 10 == 0 for i in range(25)]
    for packet in video.packets:
        kinds = h264_types(packet.data)
        assert set(kinds) <= {1, H264_IDR, H264_SPS, H264_PPS}
        if packet.keyframe:
            assert kinds[:3] == [H264_SPS, H264_PPS, H264_IDR]
    assert b"x264" not in b"".join(p.data for p in video.packets)
    second = Video(camera="front", codec="h264", packets=video.packets[10:])
    assert [t for t, _ in decode(second)] == [t for t, _ in frames(25)[10:]]


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_frames_keep_their_times_and_look(codec: str) -> None:
    given_frames = frames(12)
    video = encode("front", given_frames, codec=codec)
    assert video == encode("front", given_frames, codec=codec)
    for (t_ns, rgb), (t_before, before) in zip(decode(video), given_frames, strict=True):
        assert t_ns == t_before
        assert np.abs(rgb.astype(int) - before).mean() < 6


REPEATED = """
import hashlib, numpy as np
from onshore.wire import decode, encode
y, x = np.mgrid[0:66, 0:130]
frames = [(i, np.stack([(x + 3 * i) % 256, (y * x + i) % 200, 90 + 0 * x], -1).astype(np.uint8)) for i in range(24)]
digest = hashlib.sha256()
for codec in ("h264", "jpeg"):
    video = encode("front", frames, codec=codec)
    for packet, (_, rgb) in zip(video.packets, decode(video)):
        digest.update(packet.data + rgb.tobytes())
print(digest.hexdigest())
"""


def test_bytes_do_not_depend_on_what_memory_held_before() -> None:
    """Encoders that read memory they never wrote give other bytes in every run; glibc can fill fresh memory on purpose."""
    seen = set()
    for fill in (0, 85, 170):
        environment = {"PYTHONPATH": SOURCE, "GLIBC_TUNABLES": f"glibc.malloc.perturb={fill}"}
        run = subprocess.run([sys.executable, "-c", REPEATED], capture_output=True, text=True, env=environment)
        seen.add(run.stdout)
        assert len(run.stdout) == 65, run.stderr
    assert len(seen) == 1


def test_reordered_frames_come_out_in_order() -> None:
    """A stream with B-frames, as cameras write them: decoding order differs from display order."""
    import av

    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt, context.max_b_frames = 64, 48, "yuv420p", 2
    context.framerate, context.options = 20, {"preset": "medium", "threads": "1"}
    packets = []
    for index in [*range(20), None]:
        frame = None
        if index is not None:
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24").reformat(format="yuv420p")
            frame.pts = index
        packets += [Packet(t_ns=p.pts * 50 + 3, data=bytes(p), keyframe=p.is_keyframe) for p in context.encode(frame)]
    assert [p.t_ns for p in packets] != sorted(p.t_ns for p in packets)
    times = [t for t, _ in decode(Video(camera="front", codec="h264", packets=tuple(packets)))]
    assert times == [index * 50 + 3 for index in range(20)]


def test_encoding_demands_even_sides_and_rising_times() -> None:
    with pytest.raises(InputError, match="bad_config"):
        encode("front", [(0, picture(0, 47, 64))])
    with pytest.raises(InputError, match="clock_disorder"):
        encode("front", [(5, picture(0)), (5, picture(1))])
    with pytest.raises(InputError, match="expected 48x64x3"):
        encode("front", [(5, picture(0)), (6, picture(1, 50, 64))])
    with pytest.raises(InputError, match="vp9"):
        encode("front", frames(1), codec="vp9")
    assert encode("front", []).packets == ()


def test_damage_in_a_picture_is_noticed() -> None:
    video = encode("front", frames(12))
    broken = bytearray(video.packets[4].data)
    broken[len(broken) // 2 :] = bytes(len(broken) - len(broken) // 2)
    for packets in (
        (*video.packets[:4], replace(video.packets[4], data=bytes(broken)), *video.packets[5:]),
        (*video.packets[:4], replace(video.packets[4], data=b"\x00\x00\x00\x01\x09\x10"), *video.packets[5:]),
    ):
        with pytest.raises(InputError, match="damaged_video"):
            list(decode(replace(video, packets=packets)))
    with pytest.raises(InputError, match="unknown_format"):
        list(decode(replace(video, codec="theora")))


def test_a_picture_larger_than_the_limit_is_not_decoded() -> None:
    with pytest.raises(InputError):
        list(decode(encode("front", frames(1)), limits=Limits(frame_pixels=1000)))


def bomb(path: Path, chunks: int, size: int, announced: int | None = None, compression: str = "zstd") -> None:
    """An MCAP of chunks of zeros that announce `announced` bytes each."""
    import lz4.frame
    import zstandard

    raw = struct.pack("<BQ", 0x7E, size - 9) + bytes(size - 9)
    squeezed = zstandard.compress(raw, 19) if compression == "zstd" else lz4.frame.compress(raw)
    name = compression.encode()
    body = struct.pack("<QQQI", 0, 0, announced or size, zlib.crc32(raw)) + struct.pack("<I", len(name)) + name
    body += struct.pack("<Q", len(squeezed)) + squeezed
    magic = b"\x89MCAP0\r\n"
    header = struct.pack("<BQ", 1, 8) + bytes(8)
    path.write_bytes(magic + header + (struct.pack("<BQ", 6, len(body)) + body) * chunks + magic)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_small_file_that_swells_is_refused_before_it_does(tmp_path: Path, compression: str) -> None:
    bomb(tmp_path / "many.mcap", chunks=40, size=32 << 20, compression=compression)
    assert compression == "lz4" or (tmp_path / "many.mcap").stat().st_size < 60_000
    with pytest.raises(InputError, match="limit_exceeded"):
        read_mcap(tmp_path / "many.mcap")
    bomb(tmp_path / "liar.mcap", chunks=1, size=32 << 20, announced=1000, compression=compression)
    with pytest.raises(InputError, match="limit_exceeded"):
        read_mcap(tmp_path / "liar.mcap")
    bomb(tmp_path / "big.mcap", chunks=1, size=80 << 20, compression=compression)
    with pytest.raises(InputError, match="limit_exceeded"):
        read_mcap(tmp_path / "big.mcap")


def test_damaged_files_are_told_apart(tmp_path: Path) -> None:
    write_mcap(recording(), tmp_path / "a.mcap")
    whole = (tmp_path / "a.mcap").read_bytes()
    cases = {"empty_file": b"", "unknown_format": b"this is no recording at all", "corrupt": whole[: len(whole) // 2]}
    for code, data in cases.items():
        (tmp_path / "b.mcap").write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_mcap(tmp_path / "b.mcap")
        assert caught.value.code == code


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_cut_or_flip_escapes_the_error_tree(data: st.DataObject) -> None:
    whole = bytearray(_small_file())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert isinstance(read_mcap(bytes(whole)), Recording)
    except InputError as error:
        assert error.subject


def _small_file() -> bytes:
    from onshore.wire.writing import to_bytes

    return to_bytes(recording(3))


def foreign(path: Path, codec: str) -> None:
    """A recording of another maker: zstd chunks, no metadata record of ours, one topic we do not know."""
    video = encode("x", frames(6), codec=codec)
    with open(path, "wb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start()
        fields = {"h264": "foxglove.CompressedVideo", "jpeg": "foxglove.CompressedImage"}
        from onshore.wire import topics

        message_class = topics.camera_class(codec)
        schema = writer.register_schema(
            fields[codec], "protobuf", build_file_descriptor_set(message_class).SerializeToString()
        )
        fix = writer.register_schema(
            "foxglove.LocationFix", "protobuf", build_file_descriptor_set(LocationFix).SerializeToString()
        )
        camera = writer.register_channel("/cam/left", "protobuf", schema)
        state = writer.register_channel("/ego/state", "json", writer.register_schema("S", "jsonschema", b"{}"))
        gnss = writer.register_channel("/fix", "protobuf", fix)
        lidar = writer.register_channel("/lidar", "json", 0)
        for index, packet in enumerate(video.packets):
            writer.add_message(camera, packet.t_ns, topics.camera_bytes("x", codec, packet), packet.t_ns)
            writer.add_message(state, packet.t_ns, b'{"speed_mps": %d, "gear": "D"}' % index, packet.t_ns)
            writer.add_message(gnss, packet.t_ns, LocationFix(latitude=1.5).SerializeToString(), packet.t_ns)
            writer.add_message(lidar, packet.t_ns, b"{}", packet.t_ns)
        writer.finish()


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_a_file_of_another_maker_is_read_as_far_as_it_goes(tmp_path: Path, codec: str) -> None:
    foreign(tmp_path / "f.mcap", codec)
    found = read_mcap(tmp_path / "f.mcap")
    assert found.signals.speed_mps.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.rig.cameras[0].source == "assumed"
    assert (found.rig.cameras[0].name, found.rig.cameras[0].width_px) == ("cam-left", 64)
    assert len(list(decode(found.videos[0]))) == 6
    assert found.dropped_topics == ("/lidar",)
    assert len(found.private["gnss"]) == 6
    assert not found.anonymised and found.segment_id is None


def test_two_topics_are_not_one_camera(tmp_path: Path) -> None:
    from onshore.wire import topics

    with open(tmp_path / "f.mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        kind = build_file_descriptor_set(topics.camera_class("jpeg")).SerializeToString()
        schema = writer.register_schema("foxglove.CompressedImage", "protobuf", kind)
        for topic in ("/front", "/camera/front"):
            channel = writer.register_channel(topic, "protobuf", schema)
            [packet] = encode("x", frames(1), codec="jpeg").packets
            writer.add_message(channel, packet.t_ns, topics.camera_bytes("x", "jpeg", packet), packet.t_ns)
        writer.finish()
    with pytest.raises(InputError, match="/camera/front") as caught:
        read_mcap(tmp_path / "f.mcap")
    assert caught.value.code == "conflict"


def test_a_file_without_ego_state_names_what_is_missing(tmp_path: Path) -> None:
    with open(tmp_path / "f.mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        writer.register_schema(
            "foxglove.CompressedImage", "protobuf", build_file_descriptor_set(CompressedImage).SerializeToString()
        )
        writer.finish()
    with pytest.raises(InputError, match="/ego/state"):
        read_mcap(tmp_path / "f.mcap")


def test_nal_units() -> None:
    assert h264_types(b"\x00\x00\x00\x01\x67a\x00\x00\x01\x68b\x00\x00\x01\x06c\x00\x00\x00\x01\x65d") == [7, 8, 6, 5]
    assert h264_types(without_sei(b"\x00\x00\x01\x06text\x00\x00\x01\x41d")) == [1]
    assert is_keyframe("hevc", b"\x00\x00\x01" + bytes([19 << 1, 1])) and not is_keyframe(
        "hevc", b"\x00\x00\x01\x02\x01"
    )
    assert is_keyframe("jpeg", b"") and not is_keyframe("h264", b"")


def test_importing_wire_is_light() -> None:
    code = "import sys, onshore.wire; print([m for m in ('av', 'cv2', 'torch', 'onnxruntime') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": SOURCE})
    assert run.stdout.strip() == "[]", run.stderr
