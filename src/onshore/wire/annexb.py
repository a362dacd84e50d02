"""NAL units of an Annex B byte stream (ITU-T H.264 Annex B, H.265 Annex B): finding, classifying, stripping."""

from __future__ import annotations

from collections.abc import Iterator

START = b"\x00\x00\x01"
H264_SLICES, H264_IDR, H264_SEI, H264_SPS, H264_PPS = range(1, 6), 5, 6, 7, 8
HEVC_IRAP = range(16, 24)  # H.265 table 7-1
HEVC_LAST_SLICE = 31


def is_annexb(data: bytes) -> bool:
    """Whether the bytes begin with a start code."""
    return data.startswith((START, b"\x00" + START))


def units(data: bytes) -> Iterator[bytes]:
    """The NAL units between start codes, without trailing zero bytes."""
    begin = data.find(START)
    while begin >= 0:
        end = data.find(START, begin + 3)
        unit = data[begin + 3 : end if end >= 0 else len(data)].rstrip(b"\x00")
        if unit:
            yield unit
        begin = end


def h264_types(data: bytes) -> list[int]:
    """nal_unit_type (7.3.1) of every unit."""
    return [unit[0] & 0x1F for unit in units(data)]


def is_keyframe(codec: str, data: bytes) -> bool:
    """Whether a packet can be decoded without those before it; the first slice decides."""
    if codec not in ("h264", "hevc"):
        return True
    for unit in units(data):
        kind = unit[0] & 0x1F if codec == "h264" else (unit[0] >> 1) & 0x3F
        if codec == "h264" and kind in H264_SLICES:
            return kind == H264_IDR
        if codec == "hevc" and kind <= HEVC_LAST_SLICE:
            return kind in HEVC_IRAP
    return False


def without_sei(data: bytes) -> bytes:
    """The H.264 packet without supplemental information, where encoders and cameras leave their names and settings."""
    kept = [unit for unit in units(data) if unit[0] & 0x1F != H264_SEI]
    return b"".join(b"\x00" + START + unit for unit in kept)
