"""Nothing passes unseen: every frame is looked at, what is found is filled, and a detector that is blind is caught."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onshore.core.errors import InputError, OnshoreError
from onshore.privacy import Anonymiser, default_anonymiser, detectors, measure
from onshore.privacy.canary import drawn_face
from onshore.privacy.centerface import CenterFace, weights_path
from onshore.privacy.detector import Boxes, Frames, dilated, overlap, suppress
from onshore.privacy.measure import wilson_low


@pytest.fixture(scope="module")
def anonymiser() -> Anonymiser:
    return default_anonymiser()


@dataclass
class RedDetector:
    """A real detector of a simple thing, pure red pixels, with knobs for the ways in which detectors fail."""

    name: str = "red"
    target: str = "plate"
    digest: str = "0" * 64
    blind: bool = False
    lossy: bool = False
    seen: list[int] = field(default_factory=list)

    def detect(self, frames_NHWC: Frames) -> list[Boxes]:
        self.seen.append(len(frames_NHWC))
        boxes = [np.zeros((0, 5), np.float32) if self.blind else self._box(frame) for frame in frames_NHWC]
        return boxes[:-1] if self.lossy and len(boxes) > 1 else boxes

    def _box(self, frame: Frames) -> Boxes:
        rows, columns = np.nonzero((frame[..., 0] > 200) & (frame[..., 1:] < 50).all(-1))
        if not len(rows):
            return np.zeros((0, 5), np.float32)
        return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 1.0]], np.float32)

    def canary(self, height_px: int, width_px: int) -> tuple[Frames, Boxes]:
        picture = np.zeros((1, 40, 40, 3), np.uint8)
        picture[0, 10:20, 10:30, 0] = 255
        return picture, np.array([[10, 10, 30, 20, 1]], np.float32)


def faces(*sizes: tuple[int, int]) -> np.ndarray:
    return np.concatenate([drawn_face(*size)[0] for size in sizes])


@pytest.mark.parametrize("size", [(96, 160), (97, 161), (128, 256), (330, 526)])
def test_a_drawn_face_is_found_and_filled(anonymiser: Anonymiser, size: tuple[int, int]) -> None:
    picture, expected = drawn_face(*size)
    clean, proof = anonymiser.redact(picture)
    assert (proof.frames, proof.boxes, proof.removes, proof.unmeasured) == (1, {"face": 1}, {"face"}, {"plate"})
    left, top, right, bottom = expected[0, :4].astype(int)
    middle = clean[0, top + 15 : bottom - 8, left + 8 : right - 8]
    assert not middle.any()
    assert anonymiser.redact(clean)[1].boxes == {"face": 0}


def test_redacting_leaves_the_input_and_the_rest_of_the_frame_alone(anonymiser: Anonymiser) -> None:
    picture, _ = drawn_face(128, 256)
    before = picture.copy()
    clean, _ = anonymiser.redact(picture)
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(clean[:, :, :60], before[:, :, :60])
    np.testing.assert_array_equal(clean[:, :, 196:], before[:, :, 196:])


def test_a_frame_is_treated_the_same_in_any_company(anonymiser: Anonymiser) -> None:
    """Boxes do not depend on how many frames come at once: the batch is fixed and padded."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 255, (5, 96, 160, 3), dtype=np.uint8)
    together = np.concatenate([noise, faces((96, 160), (96, 160)), noise[:2]])
    detector = anonymiser.detectors[0]
    alone = [detector.detect(frame[None])[0] for frame in together]
    for one, other in zip(alone, detector.detect(together), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_frame_is_skipped() -> None:
    detector = RedDetector()
    frames = np.zeros((7, 30, 50, 3), np.uint8)
    frames[4, 5:9, 6:20, 0] = 255
    clean, proof = Anonymiser([detector]).redact(frames)
    assert sum(detector.seen) == 7 + 1  # and the canary
    assert not clean.any() and proof.boxes == {"plate": 1}
    assert (proof.removes, proof.unmeasured) == ({"plate"}, {"face"})


@pytest.mark.parametrize("fault", [{"blind": True}, {"lossy": True}])
def test_a_detector_that_fails_lets_nothing_pass(fault: dict) -> None:
    with pytest.raises(OnshoreError) as caught:
        Anonymiser([RedDetector(**fault)]).redact(np.zeros((3, 30, 50, 3), np.uint8))
    assert caught.value.code == "not_measurable"


def test_weights_that_find_nothing_are_caught_by_the_canary() -> None:
    """The real network with its last layer silenced: it runs, answers finite numbers, and sees nothing."""
    import onnx

    model = onnx.load_from_string(weights_path().read_bytes())
    producer = {name: node for node in model.graph.node for name in node.output}
    bias = producer[producer["537"].input[0]].input[2]
    for tensor in model.graph.initializer:
        if tensor.name == bias:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full((1,), -50, np.float32), bias))
    blind = Anonymiser([CenterFace(model.SerializeToString())])
    with pytest.raises(OnshoreError, match="canary"):
        blind.redact(faces((96, 160)))


def test_broken_weights_are_an_error_of_ours() -> None:
    with pytest.raises(OnshoreError) as caught:
        Anonymiser([CenterFace(b"these are no weights")]).redact(faces((96, 160)))
    assert caught.value.code == "missing_dependency"


def test_bad_frames_and_no_detectors() -> None:
    with pytest.raises(InputError, match="bad_config"):
        Anonymiser([])
    for frames in (np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8, 4), np.uint8)):
        with pytest.raises(InputError, match="bad_config"):
            Anonymiser([RedDetector()]).redact(frames)


def test_the_digest_names_weights_and_threshold() -> None:
    weights = weights_path().read_bytes()
    digests = {Anonymiser([CenterFace(weights, threshold=t)]).digest for t in (0.2, 0.3, 0.2)}
    assert len(digests) == 2
    assert default_anonymiser().digest in digests


boxes_strategy = st.lists(
    st.tuples(st.floats(0, 80), st.floats(0, 40), st.floats(0.5, 60), st.floats(0.5, 60), st.floats(0, 1)), max_size=12
).map(lambda rows: np.array([[x, y, x + w, y + h, s] for x, y, w, h, s in rows], np.float32).reshape(-1, 5))


@settings(max_examples=100, deadline=None)
@given(boxes_strategy)
def test_suppression_keeps_the_best_and_loses_no_region(boxes: np.ndarray) -> None:
    kept = suppress(boxes, 0.3)
    assert len(kept) <= len(boxes)
    for box in boxes:  # everything dropped overlaps something at least as good that stayed
        assert any(overlap(box, kept[None, i])[0] >= 0.3 - 1e-6 and kept[i, 4] >= box[4] for i in range(len(kept)))


@settings(max_examples=100, deadline=None)
@given(boxes_strategy)
def test_filled_boxes_hold_the_found_ones(boxes: np.ndarray) -> None:
    boxes = np.clip(boxes, 0, [100, 50, 100, 50, 1]).astype(np.float32)
    grown = dilated(boxes, 0.15, 50, 100)
    assert (grown[:, :2] <= boxes[:, :2]).all() and (grown[:, 2:] >= boxes[:, 2:4]).all()
    assert (grown >= 0).all() and (grown[:, [0, 2]] <= 100).all() and (grown[:, [1, 3]] <= 50).all()


def test_wilson_bound() -> None:
    assert wilson_low(0, 0) == 0.0
    assert wilson_low(10, 10) == pytest.approx(0.7225, abs=1e-4)
    assert wilson_low(81, 263) == pytest.approx(0.2553, abs=1e-4)  # Newcombe 1998, Stat. Med. 17:857, table I
    assert wilson_low(0, 20) == pytest.approx(0.0, abs=1e-12)


def labelled(folder: Path) -> Path:
    import av

    rows = ["file, class, x0, y0, x1, y1"]
    for name, size in {"a.png": (128, 256), "b.png": (200, 200)}.items():
        picture, box = drawn_face(*size)
        context = av.CodecContext.create("png", "w")
        context.width, context.height, context.pix_fmt = size[1], size[0], "rgb24"
        frame = av.VideoFrame.from_ndarray(picture[0], format="rgb24")
        (folder / name).write_bytes(b"".join(bytes(p) for f in (frame, None) for p in context.encode(f)))
        rows += [f"{name},face,{','.join(str(v) for v in box[0, :4])}", f"{name},plate,1,1,20,9"]
    rows.append("b.png,face,2,2,12,14")  # a label on nothing: missed, and counted
    (folder / "boxes.csv").write_text("\n".join(rows))
    return folder / "boxes.csv"


def test_measured_recall_per_width(tmp_path: Path, anonymiser: Anonymiser) -> None:
    found = measure(tmp_path, labelled(tmp_path), anonymiser=anonymiser)
    by = {(row["target"], row["least_width_px"]): row for row in found}
    wide, narrow, plate = by["face", 32], by["face", 8], by["plate", 16]
    assert (wide["labelled"], wide["covered"], wide["recall"], wide["low"]) == (2, 2, 1.0, wilson_low(2, 2))
    assert (narrow["labelled"], narrow["covered"], narrow["recall"]) == (1, 0, 0.0)
    assert (plate["labelled"], plate["recall"], plate["low"]) == (2, None, None)
    assert plate["status"] == "not measurable: no detector"
    assert by["face", 128]["status"] == "not measurable: no labelled box"


def test_bad_labels(tmp_path: Path, anonymiser: Anonymiser) -> None:
    header = "file,class,x0,y0,x1,y1\n"
    cases = {
        "unknown_format": [header + "a,face,3,3,1,5", header + "a,nose,1,1,2,2", header + "a,face,1,2", "\xff\xfe"],
        "missing_column": ["file,x0\na,1"],
        "empty_input": [header],
        "unsafe_path": [header + "../a.png,face,1,1,2,2"],
        "damaged_video": [header + "gone.png,face,1,1,2,2"],
    }
    for code, texts in cases.items():
        for text in texts:
            (tmp_path / "boxes.csv").write_text(text, encoding="latin1")
            with pytest.raises(InputError) as caught:
                measure(tmp_path, tmp_path / "boxes.csv", anonymiser=anonymiser)
            assert caught.value.code == code, text


def test_what_has_no_detector_says_so() -> None:
    face, plate = detectors()
    assert (face["target"], face["detector"]) == ("face", "centerface")
    assert plate["detector"] == "" and "not measurable" in plate["status"]


@pytest.mark.data
def test_real_faces_are_found_and_gone(anonymiser: Anonymiser) -> None:
    import av

    root = os.environ.get("ONSHORE_TEST_DATA")
    source = Path(root or ".") / "intel_sample_videos/preview/head-pose-face-detection-female-and-male.gif"
    if not root or not source.exists():
        pytest.skip("needs ONSHORE_TEST_DATA with intel_sample_videos")
    with av.open(str(source)) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])[::4]
    found = anonymiser.detectors[0].detect(frames)
    assert [len(boxes) for boxes in found] == [2] * len(frames)  # a woman and a man in every frame
    clean, _ = anonymiser.redact(frames)
    assert anonymiser.redact(clean)[1].boxes == {"face": 0}
