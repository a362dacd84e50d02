"""Bytes: rewriting is strict and repeatable, scanners find what hides and leave honest weights alone."""

from __future__ import annotations

import base64
import io
import json
import math
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from border.conftest import SHAPES, network, safetensors
from onshore.border import canonical, scan
from onshore.border.figures import FigureLimits, rewrite_figures
from onshore.core.errors import InputError

MANIFEST = canonical.manifest_from_record({name: ["F32", shape] for name, shape in SHAPES.items()})


def refused(data: bytes, manifest: canonical.Tensors = MANIFEST) -> str:
    with pytest.raises(InputError) as caught:
        canonical.rewrite_weights(data, manifest)
    assert caught.value.code == "import_refused"
    return caught.value.advice


def file_of(header: str, body: bytes = b"\0" * 4) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + body


def test_rewriting_is_repeatable_and_keeps_every_value() -> None:
    written = canonical.rewrite_weights(safetensors(network()), MANIFEST)
    assert canonical.rewrite_weights(written, MANIFEST) == written
    tensors, body = canonical.tensors_in(written)
    for tensor in tensors:
        values = np.frombuffer(body[tensor.start : tensor.end], "<f4").reshape(tensor.shape)
        assert (values == network()[tensor.name]).all()


def test_the_order_in_which_a_file_was_written_leaves_no_trace() -> None:
    honest = safetensors(network())
    shuffled = {name: network()[name] for name in reversed(sorted(SHAPES))}
    header: dict[str, object] = {}
    at, blocks = 0, []
    for name, array in shuffled.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at, blocks = at + array.nbytes, [*blocks, array.tobytes()]
    other = file_of(json.dumps(header), b"".join(blocks))
    assert canonical.rewrite_weights(other, MANIFEST) == canonical.rewrite_weights(honest, MANIFEST)


def test_the_formats_own_writer_and_reader_agree_with_ours() -> None:
    numpy_format = pytest.importorskip("safetensors.numpy")
    written = canonical.rewrite_weights(numpy_format.save(network()), MANIFEST)
    assert {name: array.shape for name, array in numpy_format.load(written).items()} == {
        name: tuple(shape) for name, shape in SHAPES.items()
    }


def test_weights_with_something_more_or_less_are_refused() -> None:
    good = safetensors(network())
    extra = safetensors({**network(), "z.hidden": np.zeros((720, 3), np.uint8)})
    less = safetensors({"stem.weight": network()["stem.weight"]})
    assert "not in the manifest" in refused(extra)
    assert "missing" in refused(less)
    assert "the manifest says" in refused(safetensors({**network(), "head.bias": np.zeros(9, np.float32)}))
    assert "metadata" in refused(safetensors(network(), metadata={"comment": "x" * 100_000}))
    assert "padded" in refused(safetensors(network(), pad=4096))
    assert "after its last tensor" in refused(good + b"trailing")
    assert refused(good[:-1]) and refused(good[:20]) and refused(b"") and refused(b"\xff" * 64)


def test_a_header_that_readers_understand_differently_is_refused() -> None:
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    one = canonical.manifest_from_record({"a": ["F32", [1]]})
    assert canonical.rewrite_weights(file_of(f'{{"a":{entry}}}'), one)
    assert "twice" in refused(file_of(f'{{"a":{entry},"a":{entry}}}'), one)
    assert "no tensor, or to two" in refused(file_of(f'{{"a":{entry},"b":{entry}}}'), one)
    gap = '{"dtype":"F32","shape":[1],"data_offsets":[4,8]}'
    assert "no tensor" in refused(file_of(f'{{"a":{gap}}}', b"\0" * 8), one)
    for broken in (
        '{"a":{"dtype":"F32","shape":[1]}}',
        '{"a":[]}',
        '{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
    ):
        refused(file_of(broken), one)
    negative = '{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}'
    refused(file_of(f'{{"a":{negative}}}'), one)
    refused(file_of('{"a\\u0007":' + entry + "}"), one)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_rewritten_never_a_crash(data: bytes) -> None:
    for candidate in (data, struct.pack("<Q", len(data)) + data, safetensors(network())[: len(data) * 30]):
        try:
            canonical.rewrite_weights(candidate, MANIFEST)
        except InputError as problem:
            assert problem.code == "import_refused"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(safetensors(network())) - 1), st.integers(1, 255))
def test_one_changed_byte_is_refused_or_changes_one_value_only(at: int, flip: int) -> None:
    good = bytearray(safetensors(network()))
    good[at] ^= flip
    try:
        written = canonical.rewrite_weights(bytes(good), MANIFEST)
    except InputError:
        return
    honest = canonical.rewrite_weights(safetensors(network()), MANIFEST)
    assert sum(a != b for a, b in zip(written, honest)) <= 4 or len(written) == len(honest)


# -- scanners ---------------------------------------------------------------------------------------------------------


def jpeg() -> bytes:
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", picture)[1])


def png() -> bytes:
    cv2 = pytest.importorskip("cv2")
    return bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1])


def zipped(content: bytes = b"x" * 200) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.bin", content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (jpeg, "JPEG"),
        (png, "PNG"),
        (lambda: b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41", "MP4 or HEIF"),
        (lambda: b"\x00\x00\x00\x01\x67\x64\x00\x1f\xac" + b"\x11" * 20 + b"\x00\x00\x01\x68\xee", "H.264"),
        (lambda: b"RIFF\x10\x00\x00\x00WEBPVP8 ", "WebP"),
        (lambda: b"GIF89a\x01\x00\x01\x00", "GIF"),
        (lambda: b"\x89MCAP0\r\n", "MCAP recording"),
        (zipped, "zip"),
        (lambda: b"\x1f\x8b\x08\x00" + b"\x00" * 4 + b"\x02\xff" + zlib.compress(b"hello" * 50)[2:], "gzip"),
        (lambda: pickle.dumps({"a": 1}, protocol=4), "pickle"),
        (lambda: b"cos\nsystem\n(S'true'\ntR.", "pickle import"),
        (lambda: b"\x93NUMPY\x01\x00v\x00", "NumPy"),
        (lambda: b"\x7fELF\x02\x01\x01", "ELF program"),
    ],
)
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_payload_is_found_wherever_it_lies(payload, what: str, place: str) -> None:  # type: ignore[no-untyped-def]
    around = np.random.default_rng(3).bytes(5000)
    data = {"start": payload() + around, "middle": around + payload() + around, "end": around + payload()}[place]
    assert what in {finding.what for finding in scan.scan(data)}


def test_text_wrapping_does_not_hide_a_picture() -> None:
    for wrapped in (
        base64.b64encode(jpeg()),
        jpeg().hex().encode(),
        base64.urlsafe_b64encode(png()),
        base64.encodebytes(jpeg()),
    ):
        found = scan.scan(b'{"note":"' + wrapped + b'"}')
        assert any(finding.kind == "media" for finding in found)
    assert scan.scan(b'<img src="data:image/webp;base64,AAAA">')
    assert any(finding.kind == "media" for finding in scan.scan(base64.b64encode(base64.b64encode(jpeg()))))


@pytest.mark.parametrize("seed", range(6))
def test_honest_weights_raise_no_alarm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {"a": rng.normal(0, 0.05, (400, 1000)).astype(np.float32), "b": np.zeros(5000, np.float32)}
    values["c"] = rng.normal(0, 1, 5000).astype(np.float16).astype(np.float32)
    values["counter"] = np.array([7], np.int64)
    data = safetensors(values)
    assert scan.scan(data) == [] and scan.weight_findings(data) == []


def test_random_bytes_raise_no_alarm() -> None:
    assert scan.scan(np.random.default_rng(11).bytes(8 << 20)) == []


def test_a_picture_in_the_low_bytes_of_weights_is_found_and_an_encrypted_one_is_not() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.05, 20_000).astype(np.float32).view(np.uint32)
    picture = (np.arange(20_000) // 40 % 64).astype(np.uint32)  # smooth, as pixels are
    hidden = ((weights & ~np.uint32(0xFF)) | picture).view(np.float32)
    assert [finding.kind for finding in scan.weight_findings(safetensors({"w": hidden}))] == ["entropy"]
    cipher = rng.integers(0, 256, 20_000).astype(np.uint32)  # the limit that docs/border.md states
    assert scan.weight_findings(safetensors({"w": ((weights & ~np.uint32(0xFF)) | cipher).view(np.float32)})) == []


def test_tensors_that_are_no_parameters_are_found() -> None:
    assert scan.weight_findings(safetensors({"frame": np.zeros((90, 160, 3), np.uint8)}))
    assert scan.weight_findings(safetensors({"w": np.array([np.inf, 1], np.float32)}))
    assert scan.weight_findings(safetensors({"w": np.array([1e30, 1], np.float32)}))


def vin(prefix: str, rest: str) -> str:
    for digit in "0123456789X":
        if scan.vin_is_valid(prefix + digit + rest):
            return prefix + digit + rest
    raise AssertionError("no check digit fits")


def test_vehicle_numbers_by_check_digit() -> None:
    good = vin("ZZZTEST0", "XT000001")
    for text in (good, good.lower(), f'"vin":"{good}"', f"comment={good};"):
        assert [finding.kind for finding in scan.personal(text.encode())] == ["vin"]
    wrong = good[:8] + ("1" if good[8] != "1" else "2") + good[9:]
    for text in (wrong, f"a{good}", "0.12345678901234567", "1.2345678901234567e-05", "f" * 64, "12345678901234567"):
        assert list(scan.personal(text.encode())) == []


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**63))
def test_a_number_is_never_taken_for_a_vehicle(value: float, whole: int) -> None:
    assert not [f for f in scan.personal(f'{{"a":{value!r},"t":{whole}}}'.encode()) if f.kind == "vin"]


def test_plates_and_positions() -> None:
    for text in ("京A·T0000", "沪BD00000", "粤B T0000"):
        assert [finding.kind for finding in scan.scan(text.encode())] == ["plate"]
    for text in (
        "39.90420, 116.40740",
        "[116.40740,39.90420]",
        '{"lat": 39.904}',
        "longitude=116.4074",
        "$GPRMC,0000",
        "+39.9042+116.4074/",
        "39°54'15\"",
    ):
        assert {finding.kind for finding in scan.scan(text.encode())} == {"position"}, text
    for text in ("score 61.2, low 55.1", "[0.123456, 0.654321]", "plate", '{"latency": 3.14159, "salon": 4.12345}'):
        assert list(scan.scan(text.encode())) == [], text


# -- figures ----------------------------------------------------------------------------------------------------------


def leave(record: object, **limits: int) -> object:
    return json.loads(rewrite_figures(json.dumps(record).encode(), FigureLimits(**limits)))


def test_figures_are_rounded_and_keep_their_sense() -> None:
    record = {
        "score": 61.23456789,
        "p": 0.00012345678,
        "routes": 123456,
        "passed": True,
        "none": None,
        "rows": [{"m": "base"}],
    }
    assert leave(record) == {
        "score": 61.23,
        "p": 0.0001235,
        "routes": 123500,
        "passed": True,
        "none": None,
        "rows": [{"m": "base"}],
    }


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
def test_a_rounded_figure_has_few_digits_and_is_close(value: float) -> None:
    out = leave({"a": value})
    assert isinstance(out, dict) and math.isclose(out["a"], value, rel_tol=5.1e-4, abs_tol=1e-300)
    assert leave(out) == out
    digits = f"{out['a']:.17g}" if not out["a"] else f"{abs(out['a']):.4g}"
    assert float(digits) == abs(out["a"])


def test_figures_that_say_too_much_are_refused() -> None:
    clip = "clip-" + "0" * 32
    for record in (
        {clip: 1.0},
        {"worst": clip},
        {"row": {"clips": 3, "score": 1.0}},
        {"embedding": [0.1] * 65},
        {f"m{i}": i for i in range(201)},
        {"a": {f"k{i}": {f"j{j}": 1 for j in range(20)} for i in range(150)}},
        {"note": "x" * 200},
        {"note": "line\nbreak"},
        {"名": 1},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": 1}}}}}}}}},
        [1, 2],
    ):
        with pytest.raises(InputError) as caught:
            leave(record)
        assert caught.value.code == "not_allowed"
    with pytest.raises(InputError):
        rewrite_figures(b'{"a":NaN}', FigureLimits())
    for infinite in (b"1e999", b"-1e999", b"1" * 4000):
        with pytest.raises(InputError, match="not_allowed"):
            rewrite_figures(b'{"a":[%s]}' % infinite, FigureLimits())
    with pytest.raises(InputError):
        rewrite_figures(b'{"a":1,"a":2}', FigureLimits())
    with pytest.raises(InputError):
        FigureLimits(k=0)
    with pytest.raises(InputError):
        FigureLimits.from_law({"export": {"metrics": {"kk": 5}}})
