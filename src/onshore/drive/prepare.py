"""From a source on disk to an anonymised recording: read, check, drop, decode, anonymise, encode afresh.

Rule: pure but for reading its source; the same source gives the same recording in any process. No text of the source file
goes on: names are checked, facts are a closed list, containers and encoder notes are left behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.recording import Camera, Recording, Rig, Signals, Video
from onshore.drive.content import LARGE_FACE, LEAST_SPEED_MPS, check_content
from onshore.drive.digests import signals_digest, video_digest
from onshore.drive.fence import Fence
from onshore.drive.grouping import Placed
from onshore.drive.looks import EVERY_NS, looks_of
from onshore.drive.positions import CUSTODY
from onshore.drive.table import read_lone_video, read_table
from onshore.privacy import Anonymiser, Proof
from onshore.wire import decode, encode, read_mcap
from onshore.wire.annexb import H264_IDR, H264_PPS, H264_SPS, h264_types

#: What a road car can do, in SI units: beyond it a unit or a column is wrong.
PLAUSIBLE: dict[str, tuple[float, float]] = {
    "speed_mps": (-15.0, 100.0),
    "accel_mps2": (-25.0, 25.0),
    "yaw_rate_radps": (-3.0, 3.0),
    "steering_rad": (-1.5, 1.5),
    "junction_distance_m": (-1e5, 1e7),
}
#: Frames are decoded and anonymised in portions of this many bytes.
PORTION_BYTES = 48 << 20
#: Facts that may stay in a segment; text only in the form of an id.
FACTS = frozenset("place town_seed traffic_seed seed scenario weather map assumed anonymiser".split())
#: What a topic of another maker holds, by its name; the first that fits.
KINDS = {
    "biometric": re.compile("biometric|fingerprint|heart|iris|pulse", re.IGNORECASE),
    "cabin": re.compile("cabin|driver|interior|dms|occupant|inside", re.IGNORECASE),
    "audio": re.compile("audio|microphone|voice|sound", re.IGNORECASE),
    "lidar": re.compile("lidar|point_?cloud|velodyne|laser", re.IGNORECASE),
    "radar": re.compile("radar", re.IGNORECASE),
    "gnss": re.compile("gnss|gps|location|fix$", re.IGNORECASE),
}
#: Kinds that a recording of this project may itself name.
SAID = frozenset([*KINDS, "camera", "ego_state", "ego_pose", "navigation", "other"])
#: A camera's name: words and a small number, nothing that could number a vehicle.
NAME = re.compile(r"(?=.{1,24}$)[a-z]+(-[a-z]+)*(-?[0-9]{1,2})?")
#: Under this name the center's map of fenced areas travels with the region's law to the processes that read.
FENCE = "fence"
#: Under this one, whether recordings without a speed may come in: only those that are public.
UNSIGNALLED = "unsignalled"
NAVIGATION = ("command", "junction_distance_m", "in_junction")
PSEUDONYM = re.compile("vehicle-[0-9a-f]{24}")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An anonymised recording with what identifies its original. `untouched`: it came in as we would have written it.

    looks: one picture a second, as `looks` tells pictures apart. located: it carried positions, so that a fence could judge
    it. positions: fixes for the custodian, if the region keeps them apart.
    """

    recording: Recording
    proof: dict[str, Any]
    signals: str
    video: str
    position: bool
    untouched: bool = False
    looks: tuple[str, ...] = ()
    located: bool = False
    positions: tuple[tuple[int, float, float, float], ...] = ()


def prepare(placed: Placed, law: Mapping[str, Any], anonymiser: Anonymiser) -> Prepared:
    """Raises InputError with one reason when the source cannot come in."""
    recording = _read(placed)
    _check_region(recording, str(law.get("region", "")), placed.source.path.name)
    check(recording, placed.source.path.name, speed_needed=not law.get(UNSIGNALLED, False))
    _check_fence(recording, law, placed.source.path.name)
    fixes = tuple(recording.private.get("gnss", ()))
    recording = _judged(recording, law)
    identity = signals_digest(recording.signals), video_digest(recording.videos)
    kept = _kept(recording, anonymiser)
    videos, proofs = kept if kept is not None else _anonymised(recording, anonymiser)
    pictures = {video.camera: list(_pictures(video)) for video in videos}
    _check_contents(recording, videos, pictures, proofs)
    cameras = tuple(_cropped(camera) for camera in recording.rig.cameras)
    position = "gnss" in recording.private
    clean = replace(
        recording,
        videos=videos,
        rig=replace(recording.rig, cameras=cameras),
        anonymised=True,
        facts=_facts({**recording.facts, "anonymiser": anonymiser.digest}, recording.synthetic),
        private={"gnss": recording.private["gnss"]} if position else {},
    )
    return Prepared(
        recording=clean,
        proof=_merged(proofs),
        signals=identity[0],
        video=identity[1],
        position=position,
        untouched=kept is not None,
        looks=tuple(looks_of(frame) for _, frame in pictures[videos[0].camera]),
        located=bool(fixes),
        positions=fixes if recording.rig.topics.get("gnss") == CUSTODY else (),
    )


def _pictures(video: Video) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """One anonymised picture a second; keyframes are enough, they decode alone."""
    due = -1
    for packet in video.packets:
        if packet.keyframe and packet.t_ns >= due:
            due = packet.t_ns + EVERY_NS
            yield from decode(replace(video, packets=(packet,)))


def _check_contents(
    recording: Recording,
    videos: tuple[Video, ...],
    pictures: Mapping[str, list[tuple[int, NDArray[np.uint8]]]],
    proofs: list[Proof],
) -> None:
    """Every camera that is kept shows the road while the car moves."""
    signals, widths = recording.signals, [width for proof in proofs for width in proof.widest_faces]
    known = np.isfinite(signals.speed_mps)
    for video in videos:
        mine, widths = widths[: len(video.packets)], widths[len(video.packets) :]
        times = np.array([t_ns for t_ns, _ in pictures[video.camera]], np.float64)
        speed = np.zeros(len(times))  # nobody knows whether a car without signals moves
        if known.any():
            speed = np.interp(times, signals.t_ns[known].astype(np.float64), signals.speed_mps[known])
        moving = [
            frame for (_, frame), fast in zip(pictures[video.camera], speed >= LEAST_SPEED_MPS, strict=True) if fast
        ]
        check_content(video.camera, moving, [width > LARGE_FACE for width in mine])


def _read(placed: Placed) -> Recording:
    source = placed.source
    if source.reader == "mcap":
        recording = read_mcap(source.path)
    elif source.reader == "video":
        recording = read_lone_video(source.path)
    elif source.column_map is not None:
        recording = read_table(source.files[0], source.files[1], source.column_map)
    else:
        raise ValueError("a table source without a map")
    return replace(recording, vehicle=placed.vehicle, drive_key=placed.drive_key, segment_index=placed.index)


def _check_fence(recording: Recording, law: Mapping[str, Any], subject: str) -> None:
    """Positions are judged before the region's verdict drops them; the answer names no place."""
    record = law.get(FENCE)
    if record is not None and Fence.from_record(record).hits(recording.private.get("gnss", ())):
        raise InputError(
            "geofenced", subject, "it touches an area that the operator fenced off; nothing of it is kept."
        )


def _check_region(recording: Recording, region: str, subject: str) -> None:
    """A file that another region's center wrote says so in its label; recordings stay in their region."""
    label = recording.facts.get("label")
    stated = label.get("region") if isinstance(label, dict) else None
    if stated is not None and stated != region:
        raise InputError("import_refused", subject, f"it is labelled {stated!r}; recordings never change their region.")


def check(recording: Recording, subject: str, *, speed_needed: bool = True) -> None:
    """Finite, plausible, in order, and with pictures; raises InputError naming the signal."""
    signals = recording.signals
    if speed_needed and not np.isfinite(signals.speed_mps).any():
        raise InputError("missing_column", f"{subject} speed_mps", "the speed is known at no time; a drive needs one.")
    for name, (low, high) in PLAUSIBLE.items():
        column: NDArray[np.float64] = getattr(signals, name)
        worst = column[np.isinf(column) | (column < low) | (column > high)]
        if len(worst):
            raise InputError(
                "implausible",
                f"{subject} {name}",
                f"{worst[0]:g} is outside {low:g} to {high:g}; check unit and column.",
            )
    if not any(video.packets for video in recording.videos):
        raise InputError("damaged_video", subject, "it carries no picture of a camera.")
    for video in recording.videos:
        times = video.t_ns
        if len(times) and (times[0] < 0 or bool((np.diff(times) <= 0).any())):
            raise InputError(
                "clock_disorder", f"{subject} camera {video.camera!r}", "frame times repeat or are negative."
            )
        if len(times) and (times[-1] < signals.t_ns[0] or times[0] > signals.t_ns[-1]):
            advice = "its pictures and the signals share no time; give both the same clock."
            raise InputError("clock_disorder", f"{subject} camera {video.camera!r}", advice)


def _judged(recording: Recording, law: Mapping[str, Any]) -> Recording:
    """Only what the region keeps, with every verdict written down; raises InputError `not_allowed` for a refused topic."""
    verdicts = _verdicts(recording, law)
    refused = sorted(kind for kind, answer in verdicts.items() if answer == "refuse")
    if refused:
        raise InputError(
            "not_allowed", ", ".join(refused), "the region refuses recordings that carry this kind of topic."
        )
    videos = tuple(video for video in recording.videos if verdicts[_camera_kind(video)] == "keep" and video.packets)
    if not videos:
        raise InputError("damaged_video", "cameras", "no camera that the region keeps carries a picture.")
    names = [video.camera for video in videos]
    undescribed = set(names) - {camera.name for camera in recording.rig.cameras}
    if undescribed:
        raise InputError("bad_config", f"cameras {sorted(undescribed)}", "the file's rig does not describe them.")
    renamed = _renamed(names)
    cameras = tuple(
        replace(camera, name=renamed[camera.name]) for camera in recording.rig.cameras if camera.name in renamed
    )
    return replace(
        recording,
        videos=tuple(replace(video, camera=renamed[video.camera]) for video in videos),
        rig=Rig(cameras=cameras, vehicle=recording.rig.vehicle, topics=verdicts),
        dropped_topics=tuple(kind for kind, answer in verdicts.items() if answer == "drop"),
        signals=_kept_signals(recording.signals, verdicts),
        private={"gnss": recording.private["gnss"]} if verdicts.get("gnss") == "keep" else {},
    )


def _renamed(names: list[str]) -> dict[str, str]:
    """What each camera is called from here on: its own name, or where that may hold text, the first free number from
    its position on."""
    renamed = {name: name for name in names if NAME.fullmatch(name)}
    for position, name in enumerate(names):
        if name not in renamed:
            taken = set(renamed.values())
            renamed[name] = next(free for number in count(position) if (free := f"camera-{number}") not in taken)
    return renamed


def _verdicts(recording: Recording, law: Mapping[str, Any]) -> dict[str, str]:
    """The region's answer for every kind of topic in the recording; names of topics are the source's text and stay out."""
    known = set(recording.signals.known())
    present = {"ego_state", *(_camera_kind(video) for video in recording.videos)}
    present |= {"ego_pose"} if known & {"x_m", "y_m", "yaw_rad"} else set()
    present |= {"navigation"} if known & set(NAVIGATION) else set()
    present |= {"gnss"} if "gnss" in recording.private else set()
    answers = {kind: verdict(law, kind) for kind in present}
    for kind in {kind_of(topic) for topic in recording.dropped_topics} - present:
        # the reader left it out, so that it stays out; a refusal still counts
        answers[kind] = "refuse" if verdict(law, kind) == "refuse" else "drop"
    return dict(sorted(answers.items()))


def _camera_kind(video: Video) -> str:
    return kind_of(video.camera, otherwise="camera")


def _kept_signals(signals: Signals, verdicts: Mapping[str, str]) -> Signals:
    unknown = np.full(len(signals.t_ns), np.nan)
    blank: dict[str, NDArray[Any]] = {}
    if verdicts.get("ego_pose", "keep") != "keep":
        blank |= dict.fromkeys(("x_m", "y_m", "yaw_rad"), unknown)
    if verdicts.get("navigation", "keep") != "keep":
        blank |= {"command": np.zeros(len(unknown), np.int8), "junction_distance_m": unknown, "in_junction": unknown}
    return replace(signals, **blank)


def kind_of(topic: str, otherwise: str = "other") -> str:
    """The kind of topic that a region pack has an answer for, told by the topic's name."""
    if topic in SAID:
        return topic
    return next((kind for kind, names in KINDS.items() if names.search(topic)), otherwise)


def verdict(law: Mapping[str, Any], kind: str) -> str:
    """keep, drop or refuse: the pack's answer for this kind of topic, else its default, else drop."""
    answers = law.get("topics", {})
    return str(answers.get(kind, answers.get("default", "drop")))


def _facts(facts: Mapping[str, Any], synthetic: bool) -> dict[str, Any]:
    kept = {name: value for name, value in facts.items() if name in FACTS}
    return {name: value for name, value in sorted(kept.items()) if _harmless(name, value, synthetic)}


def _harmless(name: str, value: Any, synthetic: bool) -> bool:
    """Numbers; ids where nothing real could hide behind them; the short texts that this room itself wrote."""
    if name == "assumed":
        return isinstance(value, list) and all(_short_text(item) for item in value)
    if isinstance(value, (bool, int, float)):
        return bool(np.isfinite(value))
    worded = synthetic or name in ("map", "anonymiser")
    return worded and isinstance(value, str) and bool(re.fullmatch("[a-z0-9-]{1,80}", value))


def _short_text(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z0-9. -]{1,60}", value) is not None


def _anonymised(recording: Recording, anonymiser: Anonymiser) -> tuple[tuple[Video, ...], list[Proof]]:
    proofs: list[Proof] = []
    videos = tuple(
        encode(video.camera, _redacted(video, recording.rig.camera(video.camera), anonymiser, proofs))
        for video in recording.videos
    )
    for before, after in zip(recording.videos, videos, strict=True):
        if len(before.packets) != len(after.packets):
            raise InputError(
                "damaged_video", f"camera {before.camera!r}", "frames were lost on the way; nothing is kept."
            )
    return videos, proofs


def _redacted(
    video: Video, camera: Camera, anonymiser: Anonymiser, proofs: list[Proof]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Anonymised frames in order of time, cut to even sides."""
    times: list[int] = []

    def portions() -> Iterator[NDArray[np.uint8]]:
        for portion in _portions(video, camera):
            times.extend(t_ns for t_ns, _ in portion)
            yield np.stack([frame for _, frame in portion])

    done = 0
    for clean, proof in anonymiser.redact_stream(portions()):
        proofs.append(proof)
        yield from zip(times[done : done + len(clean)], clean, strict=True)
        done += len(clean)


def _portions(video: Video, camera: Camera) -> Iterator[list[tuple[int, NDArray[np.uint8]]]]:
    """Times and frames cut to even sides; InputError `bad_config` at the first frame of another size than the camera's."""
    even = camera.width_px // 2 * 2, camera.height_px // 2 * 2
    portion: list[tuple[int, NDArray[np.uint8]]] = []
    for t_ns, frame in decode(video):
        width, height = frame.shape[1] // 2 * 2, frame.shape[0] // 2 * 2
        if (width, height) != even:
            advice = (
                f"the rig says {camera.width_px}x{camera.height_px}, a picture is {frame.shape[1]}x{frame.shape[0]}."
            )
            raise InputError("bad_config", f"camera {camera.name!r}", advice)
        portion.append((t_ns, frame[:height, :width]))
        if len(portion) * frame.nbytes >= PORTION_BYTES:
            yield portion
            portion = []
    if portion:
        yield portion


def _kept(recording: Recording, anonymiser: Anonymiser) -> tuple[tuple[Video, ...], list[Proof]] | None:
    """The videos as they came, if the file says that this very anonymiser made them and it finds nothing more in them.

    A file's word is never enough: every frame goes through the detectors again.
    """
    claimed = recording.anonymised and recording.facts.get("anonymiser") == anonymiser.digest
    if not claimed or recording.segment_id is None or not all(_plain_stream(video) for video in recording.videos):
        return None
    proofs: list[Proof] = []
    for video in recording.videos:
        camera = recording.rig.camera(video.camera)
        stacks = (np.stack([frame for _, frame in portion]) for portion in _portions(video, camera))
        proofs += [proof for _, proof in anonymiser.redact_stream(stacks)]
    return None if any(sum(proof.boxes.values()) for proof in proofs) else (recording.videos, proofs)


def _plain_stream(video: Video) -> bool:
    """H.264 slices and parameter sets in order of time, and nothing that could carry text."""
    plain = {1, H264_IDR, H264_SPS, H264_PPS}
    ordered = all(a.t_ns < b.t_ns for a, b in pairwise(video.packets))
    return video.codec == "h264" and ordered and all(set(h264_types(packet.data)) <= plain for packet in video.packets)


def _cropped(camera: Camera) -> Camera:
    return replace(camera, width_px=camera.width_px // 2 * 2, height_px=camera.height_px // 2 * 2)


def _merged(proofs: list[Proof]) -> dict[str, Any]:
    """One proof for all portions and cameras."""
    first = proofs[0]
    boxes = {target: sum(proof.boxes[target] for proof in proofs) for target in first.boxes}
    canaries = sum(proof.canaries_found for proof in proofs)
    return replace(
        first, frames=sum(proof.frames for proof in proofs), boxes=boxes, canaries_found=canaries
    ).as_record()
