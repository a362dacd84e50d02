"""What bytes betray: pictures, archives and code inside a payload, and text that names a car or a place.

Rule: a scanner only reports; the gate decides. A finding names what was found and where, never the found text itself:
a log that quotes the plate it stopped has leaked it. Signatures are checked by structure as well as by their first
bytes, so that millions of random weights do not look like a JPEG. An encrypted payload in the low bits of weights
looks like weights: no scanner finds it, and docs/border.md says so.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from onshore.border.canonical import PARAMETER_TYPES, tensors_in


@dataclass(frozen=True, kw_only=True, order=True)
class Finding:
    """Something that may not be in a payload: what kind, what exactly, at which byte of it (-1: not one place)."""

    kind: str
    what: str
    offset: int = -1

    def as_record(self) -> dict[str, object]:
        return {"kind": self.kind, "what": self.what, "offset": self.offset}


Check = Callable[[bytes, int], bool]


def scan(data: bytes, *, text: bool = True) -> list[Finding]:
    """Every finding in `data`, also inside base64 and hex runs (two layers deep)."""
    found = set(media(data)) | set(archives(data)) | set(code(data))
    if text:
        found |= set(personal(data))
    for layer in _unwrapped(data):
        found |= {Finding(kind=f.kind, what=f"{f.what} (encoded as text)") for f in [*media(layer), *archives(layer)]}
        if text:
            found |= {Finding(kind=f.kind, what=f"{f.what} (encoded as text)") for f in personal(layer)}
    return sorted(found)


def _unwrapped(data: bytes, depth: int = 2) -> Iterator[bytes]:
    for run in _BASE64.finditer(data):
        text = run.group()
        for decode in (_from_hex, _from_base64):
            if (layer := decode(text)) is not None:
                yield layer
                if depth > 1:
                    yield from _unwrapped(layer, depth - 1)


def _from_hex(text: bytes) -> bytes | None:
    try:
        return binascii.unhexlify(text[: len(text) // 2 * 2])
    except binascii.Error:
        return None


def _from_base64(text: bytes) -> bytes | None:
    plain = text.translate(bytes.maketrans(b"-_", b"+/"), b"=\r\n")
    try:
        return base64.b64decode(plain[: len(plain) // 4 * 4])
    except binascii.Error:
        return None


_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}(?:\r?\n[A-Za-z0-9+/_-]{4,})*={0,2}")


# -- pictures and films -----------------------------------------------------------------------------------------------


def media(data: bytes) -> Iterator[Finding]:
    """Pictures and films inside the bytes, by signature and structure."""
    yield from _by_signature(data, _MEDIA, "media")


def _jpeg(data: bytes, at: int) -> bool:
    """Two marker segments in a row: chance of that in random bytes is about 2^-40 per position."""
    after = at + 2
    for _ in range(2):
        if after + 4 > len(data) or data[after] != 0xFF or not 0xC0 <= data[after + 1] <= 0xFE:
            return False
        after += 2 + int.from_bytes(data[after + 2 : after + 4], "big")
    return True


def _iso_media(data: bytes, at: int) -> bool:
    size = int.from_bytes(data[at : at + 4], "big")
    brand = data[at + 8 : at + 12]
    return 16 <= size <= 512 and size % 4 == 0 and len(brand) == 4 and all(32 <= byte < 127 for byte in brand)


def _annex_b(data: bytes, at: int) -> bool:
    """H.264: a sequence parameter set with a known profile, then a picture parameter set close by."""
    return (
        data[at + 5 : at + 6] in _H264_PROFILES
        and re.search(rb"\x00\x00\x01[\x28\x48\x68]", data[at : at + 200]) is not None
    )


def _annex_b_hevc(data: bytes, at: int) -> bool:
    return re.search(rb"\x00\x00\x01\x42\x01", data[at : at + 200]) is not None


def _webm(data: bytes, at: int) -> bool:
    return re.search(rb"matroska|webm", data[at : at + 64]) is not None


def _bmp(data: bytes, at: int) -> bool:
    if at + 30 > len(data):
        return False
    size, reserved, offset, header = struct.unpack_from("<IIII", data, at + 2)
    return reserved == 0 and header in (12, 40, 108, 124) and offset < size <= len(data) - at


def _always(data: bytes, at: int) -> bool:
    return True


_H264_PROFILES = {bytes([profile]) for profile in (66, 77, 88, 100, 110, 122, 244, 44)}
_MEDIA: tuple[tuple[str, bytes, int, Check], ...] = (
    ("JPEG", rb"\xff\xd8\xff", 0, _jpeg),
    ("PNG", rb"\x89PNG\r\n\x1a\n", 0, _always),
    ("GIF", rb"GIF8[79]a", 0, _always),
    ("WebP", rb"RIFF....WEBP", 0, _always),
    ("AVI", rb"RIFF....AVI ", 0, _always),
    ("BMP", rb"BM....\x00\x00\x00\x00", 0, _bmp),
    ("TIFF", rb"(?:II\x2a\x00\x08\x00\x00\x00|MM\x00\x2a\x00\x00\x00\x08)", 0, _always),
    ("MP4 or HEIF", rb"ftyp", -4, _iso_media),
    ("MP4 fragment", rb"moof\x00\x00\x00.mfhd", -4, _always),
    ("H.264", rb"\x00\x00\x01[\x27\x47\x67]", -1, _annex_b),
    ("H.265", rb"\x00\x00\x01\x40\x01", -1, _annex_b_hevc),
    ("Matroska", rb"\x1a\x45\xdf\xa3", 0, _webm),
    ("Ogg", rb"OggS\x00[\x00-\x07]", 0, _always),
    ("MCAP recording", rb"\x89MCAP[0-9]\r\n", 0, _always),
    ("ROS bag", rb"#ROSBAG V", 0, _always),
    ("JPEG XL", rb"\x00\x00\x00\x0cJXL \r\n\x87\n", 0, _always),
    ("picture in a page", rb"data:(?:image|video)/", 0, _always),
)

# -- archives and code ------------------------------------------------------------------------------------------------


def archives(data: bytes) -> Iterator[Finding]:
    """Archives and compressed streams inside the bytes: a second file in one file."""
    yield from _by_signature(data, _ARCHIVES, "archive")


def _zip_member(data: bytes, at: int) -> bool:
    if at + 30 > len(data):
        return False
    version, _flags, method = struct.unpack_from("<HHH", data, at + 4)
    name_size = struct.unpack_from("<H", data, at + 26)[0]
    return version <= 63 and method in (0, 8, 9, 12, 14, 93, 95, 98, 99) and 0 < name_size < 1024


def _zip_end(data: bytes, at: int) -> bool:
    """The end record's comment length must reach exactly the end of the bytes, as archive readers demand."""
    return at + 22 <= len(data) and at + 22 + struct.unpack_from("<H", data, at + 20)[0] == len(data)


def _gzip(data: bytes, at: int) -> bool:
    """Deflate with sane flags whose first bytes really inflate."""
    import zlib

    if (
        at + 18 > len(data)
        or data[at + 3] & 0xE0
        or data[at + 8] not in (0, 2, 4)
        or data[at + 9] not in (0, 3, 10, 255)
    ):
        return False
    try:
        return len(zlib.decompressobj(31).decompress(data[at : at + 65536], 64)) > 0
    except zlib.error:
        return False


def _zstd(data: bytes, at: int) -> bool:
    return at == 0 or (at + 6 < len(data) and data[at + 4] & 0x08 == 0)


_ARCHIVES: tuple[tuple[str, bytes, int, Check], ...] = (
    ("zip", rb"PK\x03\x04", 0, _zip_member),
    ("zip end record", rb"PK\x05\x06", 0, _zip_end),
    ("gzip", rb"\x1f\x8b\x08", 0, _gzip),
    ("7z", rb"7z\xbc\xaf\x27\x1c", 0, _always),
    ("xz", rb"\xfd7zXZ\x00", 0, _always),
    ("bzip2", rb"BZh[1-9]\x31\x41\x59\x26\x53\x59", 0, _always),
    ("rar", rb"Rar!\x1a\x07[\x00\x01]", 0, _always),
    ("tar", rb"ustar(?:\x0000|  \x00)", 0, _always),
    ("HDF5", rb"\x89HDF\r\n\x1a\n", 0, _always),
    ("SQLite", rb"SQLite format 3\x00", 0, _always),
    ("Parquet", rb"PAR1.{0,8}\Z", 0, _always),
    ("Lance or Arrow", rb"ARROW1\x00\x00", 0, _always),
    ("NumPy", rb"\x93NUMPY[\x01-\x03]\x00", 0, _always),
)


def code(data: bytes) -> Iterator[Finding]:
    """Pickles and programs: bytes that a careless reader would run."""
    if is_pickle(data):
        yield Finding(kind="code", what="pickle", offset=0)
    yield from _by_signature(data, _CODE, "code")


def _pickle_frame(data: bytes, at: int) -> bool:
    return at + 11 <= len(data) and struct.unpack_from("<Q", data, at + 3)[0] <= len(data) - at - 11


_CODE: tuple[tuple[str, bytes, int, Check], ...] = (
    ("pickle", rb"\x80[\x04\x05]\x95", 0, _pickle_frame),
    ("pickle import", rb"c(?:os|posix|nt|subprocess|builtins|__builtin__|torch[\w.]*|numpy[\w.]*)\n\w+\n", 0, _always),
    ("ELF program", rb"\x7fELF[\x01\x02][\x01\x02]\x01", 0, _always),
    ("PDF", rb"%PDF-[12]\.\d", 0, _always),
)


def is_pickle(data: bytes) -> bool:
    """Whether the bytes begin as a pickle (protocols 0 to 5) does, told from its opcodes without running one."""
    if data[:1] == b"\x80" and data[1:2] in (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    import pickletools

    if data[:1] not in (b"(", b"]", b"}", b"c", b"V", b"S", b"I", b"L", b"F", b"N", b"."):
        return False
    try:
        count = sum(1 for _ in pickletools.genops(data))
    except Exception:  # any disorder in the opcodes means: no pickle
        return False
    return count > 1


def _by_signature(data: bytes, table: tuple[tuple[str, bytes, int, Check], ...], kind: str) -> Iterator[Finding]:
    for what, pattern, shift, check in table:
        for match in re.finditer(pattern, data, re.DOTALL):
            at = match.start() + shift
            if at >= -1 and check(data, max(at, 0)):
                yield Finding(kind=kind, what=what, offset=max(at, 0))
                break  # one finding of a kind is enough to refuse


# -- text about people and places -------------------------------------------------------------------------------------


def personal(data: bytes) -> Iterator[Finding]:
    """Vehicle numbers (ISO 3779 with check digit), Chinese plates (GA 36-2018), and precise positions."""
    for match in _VIN.finditer(data):
        if vin_is_valid(match.group(1).decode()):
            yield Finding(kind="vin", what="vehicle identification number", offset=match.start(1))
            break
    for match in _PLATE_CN.finditer(data):
        yield Finding(kind="plate", what="Chinese licence plate", offset=match.start())
        break
    for match in _PAIR.finditer(data):
        if _is_position(float(match.group(1)), float(match.group(2))):
            yield Finding(kind="position", what="coordinate pair", offset=match.start())
            break
    for what, pattern in _POSITION_FORMS:
        if (match_form := pattern.search(data)) is not None:
            yield Finding(kind="position", what=what, offset=match_form.start())


_VIN = re.compile(rb"(?<![A-Za-z0-9])([A-HJ-NPR-Za-hj-npr-z0-9]{17})(?![A-Za-z0-9])")
_VIN_VALUES = {
    **{str(d): d for d in range(10)},
    **dict(zip("ABCDEFGH", range(1, 9))),
    **dict(zip("JKLMN", range(1, 6))),
}
_VIN_VALUES |= {"P": 7, "R": 9, **dict(zip("STUVWXYZ", range(2, 10)))}
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_NUMBER = re.compile(r"\d+(?:[eE]\d*)?")


def vin_is_valid(text: str) -> bool:
    """Whether 17 characters are a vehicle number by ISO 3779 / GB 16735: alphabet, check digit, and not a mere number."""
    text = text.upper()
    if len(text) != 17 or _NUMBER.fullmatch(text) or any(character not in _VIN_VALUES for character in text):
        return False
    rest = sum(weight * _VIN_VALUES[character] for weight, character in zip(_VIN_WEIGHTS, text)) % 11
    return text[8] == ("X" if rest == 10 else str(rest))


_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PLATE_CN = re.compile(
    b"(?:" + b"|".join(re.escape(p.encode()) for p in _PROVINCES) + b")"
    rb"[A-Z](?:\xc2\xb7|\xe2\x80\xa2|\xe3\x83\xbb|[ .-])?[A-HJ-NP-Z0-9]{4,5}(?:[A-HJ-NP-Z0-9]|\xe6\x8c\x82|\xe5\xad\xa6|\xe8\xad\xa6)"
)
#: Two numbers side by side with four decimals or more: 0.0001 degree is 11 m, closer than a street is long.
_PAIR = re.compile(rb"(?<![\d.])([-+]?\d{1,3}\.\d{4,})[\s,;/|]{1,3}([-+]?\d{1,3}\.\d{4,})(?![\d.])")
_POSITION_FORMS = (
    ("NMEA sentence", re.compile(rb"\$G[PNLAB](?:GGA|RMC|GLL),\d")),
    ("ISO 6709 position", re.compile(rb"[-+]\d{2}\.\d{3,}[-+]\d{3}\.\d{3,}")),
    (
        "named coordinate",
        re.compile(
            rb"(?i)(?<![a-z])(?:lat|latitude|lon|lng|longitude|gps_lat|gps_lon)[\"']?\s*[:=>]\s*[\"']?[-+]?\d{1,3}\.\d{3,}"
        ),
    ),
    ("degrees and minutes", re.compile(rb"\d{1,3}\xc2\xb0\s?\d{1,2}(?:\.\d+)?['\xe2]")),
)


def _is_position(first: float, second: float) -> bool:
    """Latitude, longitude in either order; pairs of fractions below 1 are figures of merit, and the sea off Africa."""
    latitude, longitude = (first, second) if abs(first) <= 90 else (second, first)
    return abs(latitude) <= 90 and abs(longitude) <= 180 and abs(latitude) > 1 and abs(longitude) > 1


# -- weights ----------------------------------------------------------------------------------------------------------

_LOW_BYTE_BITS = 7.2
_MIN_VALUES = 4096


def weight_findings(data: bytes) -> list[Finding]:
    """What makes parameters implausible: types that are not floating, values not finite or huge, patterned low bits.

    Trained float32 weights have nearly uniform low mantissa bytes (8 bits of entropy). Text or plain pixels written
    there have clearly less; encrypted bytes do not, and pass.
    """
    tensors, body = tensors_in(data)
    found = []
    for tensor in tensors:
        if tensor.dtype == "I64" and tensor.end - tensor.start <= 8:
            continue  # a normalisation layer's batch counter
        if tensor.dtype not in PARAMETER_TYPES:
            found.append(Finding(kind="tensor", what=f"{tensor.name} has type {tensor.dtype}, not a parameter's"))
            continue
        raw = bytes(body[tensor.start : tensor.end])
        values = _as_float(raw, tensor.dtype)
        if not bool(np.isfinite(values).all()) or (values.size and float(np.abs(values).max()) > 1e6):
            found.append(Finding(kind="tensor", what=f"{tensor.name} holds values no trained network has"))
        if tensor.dtype == "F32" and (bits := low_byte_entropy(raw)) is not None and bits < _LOW_BYTE_BITS:
            found.append(
                Finding(
                    kind="entropy", what=f"{tensor.name}: low mantissa bytes carry a pattern ({bits:.1f} of 8 bits)"
                )
            )
    return found


def _as_float(raw: bytes, dtype: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    if dtype == "F16":
        return np.frombuffer(raw, "<f2").astype(np.float32)
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, "<f4").astype(np.float32)


def low_byte_entropy(raw: bytes) -> float | None:
    """Shannon entropy (bits, Miller-Madow corrected) of the lowest byte of each non-zero float32; None when too few."""
    words = np.frombuffer(raw, "<u4")
    words = words[(words << 1) != 0]
    if len(words) < _MIN_VALUES:
        return None
    counts = np.bincount((words & 0xFF).astype(np.int64), minlength=256)
    share = counts[counts > 0] / len(words)
    if len(share) == 1:
        return None  # computed in half precision and widened: the byte is the same everywhere and carries nothing
    return float(-(share * np.log2(share)).sum() + (len(share) - 1) / (2 * len(words) * np.log(2)))
