"""Faces of signs, lamps and digits as one mip-mapped atlas that the camera samples.

Rule: a face is a function of its record in the pack; nothing is photographed or copied. Colours are premultiplied by
coverage, so that a sign far away fades into what is behind it instead of growing a dark rim.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from onshore.world.glyphs import Glyphs, draw_glyph, draw_text, shared_glyphs
from onshore.world.roads import Colour, Panel, Roads, SignFace

SIDE = 128
LEVELS = 7
OVERSAMPLE = 4
#: Faces of lamps: white, coloured by the lamp's state.
LAMPS = ("disc", "left", "right", "straight", "u_turn", "glow")
DIGITS = tuple(f"digit_{digit}" for digit in range(10))
Rgba = NDArray[np.uint8]

_ROUND = np.linspace(0, 2 * np.pi, 96, endpoint=False)
_EIGHT = np.pi / 8 + np.arange(8) * np.pi / 4
#: Outlines in a square of half side 1, y up.
OUTLINES: dict[str, NDArray[np.float64]] = {
    "circle": np.stack([np.cos(_ROUND), np.sin(_ROUND)], -1) * 0.98,
    "octagon": np.stack([np.cos(_EIGHT), np.sin(_EIGHT)], -1) * 1.06,
    "triangle": np.array([[0.0, 0.95], [0.98, -0.78], [-0.98, -0.78]]),
    "triangle_down": np.array([[0.0, -0.95], [-0.98, 0.78], [0.98, 0.78]]),
    "square": np.array([[-0.96, -0.96], [0.96, -0.96], [0.96, 0.96], [-0.96, 0.96]]),
    "rectangle": np.array([[-0.97, -0.97], [0.97, -0.97], [0.97, 0.97], [-0.97, 0.97]]),
    "diamond": np.array([[0.0, 0.99], [-0.99, 0.0], [0.0, -0.99], [0.99, 0.0]]),
}
#: The part of each shape that a symbol may fill: left, top, right, bottom in 0..1.
INSIDE: dict[str, tuple[float, float, float, float]] = {
    "circle": (0.21, 0.21, 0.79, 0.79),
    "octagon": (0.1, 0.28, 0.9, 0.72),
    "triangle": (0.31, 0.36, 0.69, 0.84),
    "triangle_down": (0.27, 0.17, 0.73, 0.56),
    "square": (0.14, 0.14, 0.86, 0.86),
    "rectangle": (0.1, 0.07, 0.9, 0.93),
    "diamond": (0.26, 0.22, 0.74, 0.78),
}


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """All faces: `texels` (T, 4) premultiplied RGBA, every level of every face after one another; `index` by name."""

    texels: Rgba
    level_start: NDArray[np.int64]
    index: dict[str, int]

    def face(self, name: str) -> Rgba:
        """The finest level (SIDE, SIDE, 4)."""
        start = self.index[name] * int(self.level_start[-1])
        return self.texels[start : start + SIDE * SIDE].reshape(SIDE, SIDE, 4)


def face_name(face: str, text: str = "") -> str:
    """How the atlas calls a face with its own text."""
    return f"{face}|{text}" if text else face


def sign_text(roads: Roads, face: str, *, speed_mps: float | None = None) -> str:
    """The text of a face with {speed} and {hours} filled in."""
    speed = speed_mps if speed_mps is not None else float(roads.town["speed_limit_mps"])
    reserved = [lane.reserved_h for lane in roads.lanes if lane.reserved_h]
    hours = " ".join(f"{start:g}-{end:g}" for start, end in (reserved[0] if reserved else ()))
    shown = round(speed / roads.speed_unit_mps / 5) * 5
    return roads.sign_faces[face].text.replace("{speed}", str(shown)).replace("{hours}", hours)


def build_atlas(roads: Roads, wanted: Iterable[tuple[str, str]] = ()) -> Atlas:
    """Every face of the region with its usual text, further (face, text) pairs, lamps and digits; drawn once per process."""
    return _atlas(_ByDigest(roads), tuple(sorted(set(wanted))))


@dataclass(frozen=True)
class _ByDigest:
    """Roads that are the same where their digests are."""

    roads: Roads

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByDigest) and other.roads.digest == self.roads.digest

    def __hash__(self) -> int:
        return hash(self.roads.digest)


@lru_cache(maxsize=8)
def _atlas(region: _ByDigest, wanted: tuple[tuple[str, str], ...]) -> Atlas:
    roads = region.roads
    glyphs = {**shared_glyphs(), **roads.glyphs}
    named = {
        face_name(face): draw_face(roads.sign_faces[face], sign_text(roads, face), glyphs) for face in roads.sign_faces
    }
    for face, text in wanted:
        named[face_name(face, text)] = draw_face(roads.sign_faces[face], text, glyphs)
    for lamp in LAMPS:
        named[f"lamp_{lamp}"] = _lamp(lamp, glyphs)
    for digit in DIGITS:
        named[digit] = _white(_digit(digit[-1], glyphs))
    pieces = [level for face in named.values() for level in _levels(face)]
    sizes = [(SIDE >> level) ** 2 for level in range(LEVELS)]
    return Atlas(
        texels=np.concatenate([piece.reshape(-1, 4) for piece in pieces]),
        level_start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        index={name: index for index, name in enumerate(named)},
    )


def draw_face(face: SignFace, text: str, glyphs: Glyphs) -> Rgba:
    """One face (SIDE, SIDE, 4), premultiplied; wide and high ones are squeezed into the square."""
    high = SIDE * OVERSAMPLE
    wide = round(high * face.aspect)
    picture = np.zeros((high, wide, 4), np.float32)
    _shape(picture, face.shape, face.fill, face.border, face.border_share)
    if face.panel is not None:
        _panel(picture, face.panel)
    shape = face.panel.shape if face.panel is not None else face.shape
    left, top, right, bottom = INSIDE[shape]
    ink = np.zeros((high, wide), np.uint8)
    room = (left * wide, top * high, (right - left) * wide, (bottom - top) * high)
    if face.glyph is not None:
        share = 0.64 if text else 1.0
        draw_glyph(ink, glyphs[face.glyph], _fitted((room[0], room[1], room[2], room[3] * share)))
        if text:
            draw_text(ink, text, (room[0], room[1] + room[3] * 0.66, room[2], room[3] * 0.34), glyphs)
    elif text:
        draw_text(ink, text, room, glyphs)
    _lay(picture, ink, face.ink)
    if face.bar is not None:
        bar = np.zeros((high, wide), np.uint8)
        cv2.line(
            bar,
            (round(0.2 * wide), round(0.2 * high)),
            (round(0.8 * wide), round(0.8 * high)),
            255,
            round(0.09 * high),
            cv2.LINE_AA,
        )
        _lay(picture, bar, face.bar)
    return np.asarray(np.round(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)), np.uint8)


def _fitted(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """The largest square in the middle of a box; wide boxes keep up to twice their height."""
    left, top, width, height = box
    wide = min(width, height * 1.9) if width > height else width
    high = min(height, width * 1.5)
    return left + (width - wide) / 2, top + (height - high) / 2, wide, high


def _shape(picture: NDArray[np.float32], shape: str, fill: Colour, border: Colour | None, share: float) -> None:
    _lay(picture, _outline(picture.shape[:2], shape, 1.0), border or fill)
    if border is not None:
        wide = picture.shape[1] / picture.shape[0]
        shrink = 1 - 2 * share * (1.55 if shape.startswith("triangle") else 1.0)
        inner = (1 - (1 - shrink) / max(wide, 1.0), 1 - (1 - shrink) * min(wide, 1.0))
        _lay(picture, _outline(picture.shape[:2], shape, inner), fill)


def _panel(picture: NDArray[np.float32], panel: Panel) -> None:
    _lay(picture, _outline(picture.shape[:2], panel.shape, 0.86), panel.border or panel.fill)
    if panel.border is not None:
        _lay(picture, _outline(picture.shape[:2], panel.shape, 0.64), panel.fill)


def _outline(size: tuple[int, ...], shape: str, scale: float | tuple[float, float]) -> Rgba:
    mask = np.zeros(size[:2], np.uint8)
    lift = {"triangle": -0.12, "triangle_down": 0.12}.get(shape, 0.0) * (1 - float(np.mean(scale)))
    points = OUTLINES[shape] * scale + (0.0, lift)
    at = (points * (1, -1) + 1) / 2 * (size[1], size[0])
    cv2.fillPoly(mask, [np.round(at * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def _lay(picture: NDArray[np.float32], mask: Rgba, colour: Colour) -> None:
    """A colour over what is there, where the mask covers."""
    cover = (mask.astype(np.float32) / 255)[..., None]
    picture *= 1 - cover
    picture += cover * np.array([*colour, 255], np.float32)


def _white(mask: Rgba) -> Rgba:
    return np.repeat(mask[..., None], 4, -1)


def _lamp(kind: str, glyphs: Glyphs) -> Rgba:
    high = SIDE * OVERSAMPLE
    mask = np.zeros((high, high), np.uint8)
    if kind == "glow":
        axis = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
        distance = np.hypot(axis[:, None], axis[None])
        return _white(np.asarray(np.clip(1 - distance, 0, 1) ** 2.2 * 255, np.uint8))
    if kind == "disc":
        draw_glyph(mask, ("disc 0.5 0.5 0.47",), (0, 0, high, high))
    else:
        draw_glyph(mask, glyphs[kind], (high * 0.02, high * 0.02, high * 0.96, high * 0.96))
    return _white(np.asarray(cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8))


def _digit(digit: str, glyphs: Glyphs) -> Rgba:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    draw_text(mask, digit, (SIDE * 0.18, SIDE * 0.08, SIDE * 0.64, SIDE * 0.84), glyphs)
    return mask


def _levels(face: Rgba) -> list[Rgba]:
    levels = [face]
    for _ in range(LEVELS - 1):
        half = levels[-1].shape[0] // 2
        levels.append(np.asarray(cv2.resize(levels[-1], (half, half), interpolation=cv2.INTER_AREA), np.uint8))
    return levels
