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


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A literal, where the thing begins from there, and the check of what surrounds it."""

    kind: str
    what: str
    literal: bytes
    shift: int
    check: Check


Check = Callable[[bytes, int], bool]
#: What it is called, the literal to look for, where the thing begins from there, and the check of what surrounds it.
Table = tuple[tuple[str, bytes, int, Check], ...]


def scan(data: bytes) -> list[Finding]:
    """Every finding in `data`, also inside base64 and hex runs (two layers deep)."""
    found = {*signatures(data), *personal(data)}
    if is_pickle(data):
        found.add(Finding(kind="code", what="pickle", offset=0))
    for layer in _unwrapped(data):
        inner = [*signatures(layer), *personal(layer)]
        found |= {Finding(kind=f.kind, what=f"{f.what} (encoded as text)") for f in inner}
    return sorted(found)


def signatures(data: bytes) -> Iterator[Finding]:
    """Pictures, films, archives, code and plates by signature and structure; each told once."""
    told: set[str] = set()
    for at in _candidates(data):
        for mark in _BY_START[data[at : at + 2]]:
            begin = max(at + mark.shift, 0)
            if mark.what not in told and data.startswith(mark.literal, at) and mark.check(data, begin):
                told.add(mark.what)
                yield Finding(kind=mark.kind, what=mark.what, offset=begin)


def _candidates(data: bytes) -> Iterator[int]:
    """Where two bytes stand that some literal begins with: one pass, whatever the number of literals."""
    for start in range(0, len(data) - 1, _BLOCK):
        piece = np.frombuffer(data, np.uint8, min(_BLOCK + 1, len(data) - start), start)
        pairs = piece[:-1].astype(np.uint16) << 8
        pairs |= piece[1:]
        yield from (np.flatnonzero(_STARTS[pairs]) + start).tolist()


def text_runs(data: bytes, least: int = 8) -> Iterator[tuple[int, bytes]]:
    """Runs of printable ASCII of at least `least` bytes, with where they begin: the only places text can be in weights."""
    for start in range(0, len(data), _BLOCK):
        piece = np.frombuffer(data, np.uint8, min(_BLOCK + _OVERLAP, len(data) - start), start)
        printable = np.zeros(len(piece) + 2, bool)
        printable[1:-1] = ((piece >= 32) & (piece < 127)) | (piece == 10) | (piece == 13) | (piece == 9)
        edges = np.flatnonzero(printable[1:] != printable[:-1])
        for first, past in edges.reshape(-1, 2)[np.diff(edges)[::2] >= least].tolist():
            yield start + first, data[start + first : start + past]


_BLOCK, _OVERLAP = 64 << 20, 1 << 16


def _unwrapped(data: bytes, depth: int = 2) -> Iterator[bytes]:
    for _, text in text_runs(data, 24):
        for run in _BASE64.finditer(text):
            for decode in (_from_hex, _from_base64):
                if (layer := decode(run.group())) is not None:
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
        data.startswith(b"\x00\x00\x01", at)
        and data[at + 4 : at + 5] in _H264_PROFILES
        and re.search(rb"\x00\x00\x01[\x28\x48\x68]", data[at : at + 200]) is not None
    )


def _annex_b_hevc(data: bytes, at: int) -> bool:
    return data.startswith(b"\x00\x00\x01", at) and b"\x00\x00\x01\x42\x01" in data[at : at + 200]


def _webm(data: bytes, at: int) -> bool:
    return re.search(rb"matroska|webm", data[at : at + 64]) is not None


def _bmp(data: bytes, at: int) -> bool:
    if at + 30 > len(data):
        return False
    size, reserved, offset, header = struct.unpack_from("<IIII", data, at + 2)
    return reserved == 0 and header in (12, 40, 108, 124) and offset < size <= len(data) - at


def _riff(data: bytes, at: int) -> bool:
    return data[at : at + 4] == b"RIFF"


def _moof(data: bytes, at: int) -> bool:
    return data[at + 12 : at + 16] == b"mfhd"


def _ogg(data: bytes, at: int) -> bool:
    return data[at + 5 : at + 6] <= b"\x07"


def _always(data: bytes, at: int) -> bool:
    return True


_H264_PROFILES = {bytes([profile]) for profile in (66, 77, 88, 100, 110, 122, 244, 44)}
_MEDIA: Table = (
    ("JPEG", b"\xff\xd8\xff", 0, _jpeg),
    ("PNG", b"\x89PNG\r\n\x1a\n", 0, _always),
    ("GIF", b"GIF87a", 0, _always),
    ("GIF", b"GIF89a", 0, _always),
    ("WebP", b"WEBP", -8, _riff),
    ("AVI", b"AVI ", -8, _riff),
    ("BMP", b"BM", 0, _bmp),
    ("TIFF", b"II\x2a\x00\x08\x00\x00\x00", 0, _always),
    ("TIFF", b"MM\x00\x2a\x00\x00\x00\x08", 0, _always),
    ("MP4 or HEIF", b"ftyp", -4, _iso_media),
    ("MP4 fragment", b"moof\x00\x00\x00", -4, _moof),
    ("H.264", b"\x01\x27", -2, _annex_b),
    ("H.264", b"\x01\x47", -2, _annex_b),
    ("H.264", b"\x01\x67", -2, _annex_b),
    ("H.265", b"\x01\x40\x01", -2, _annex_b_hevc),
    ("Matroska", b"\x1a\x45\xdf\xa3", 0, _webm),
    ("Ogg", b"OggS\x00", 0, _ogg),
    ("MCAP recording", b"\x89MCAP", 0, _always),
    ("ROS bag", b"#ROSBAG V", 0, _always),
    ("JPEG XL", b"JXL \r\n\x87\n", -4, _always),
    ("picture in a page", b"data:image/", 0, _always),
    ("picture in a page", b"data:video/", 0, _always),
)

# -- archives and code ------------------------------------------------------------------------------------------------


def _zip_member(data: bytes, at: int) -> bool:
    if at + 30 > len(data):
        return False
    version, _flags, method = struct.unpack_from("<HHH", data, at + 4)
    name_size = struct.unpack_from("<H", data, at + 26)[0]
    return version <= 63 and method in (0, 8, 9, 12, 14, 93, 95, 98, 99) and 0 < name_size < 1024


def _zip_end(data: bytes, at: int) -> bool:
    """The end record's comment length must reach exactly the end of the bytes, as archive readers demand."""
    return at + 22 <= len(data) and at + 22 + struct.unpack_from("<H", data, at + 20)[0] == len(data)


def _bzip2(data: bytes, at: int) -> bool:
    return data[at : at + 3] == b"BZh"


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


_ARCHIVES: Table = (
    ("zip", b"PK\x03\x04", 0, _zip_member),
    ("zip end record", b"PK\x05\x06", 0, _zip_end),
    ("gzip", b"\x1f\x8b\x08", 0, _gzip),
    ("7z", b"7z\xbc\xaf\x27\x1c", 0, _always),
    ("xz", b"\xfd7zXZ\x00", 0, _always),
    ("bzip2", b"\x31\x41\x59\x26\x53\x59", -4, _bzip2),
    ("rar", b"Rar!\x1a\x07", 0, _always),
    ("tar", b"ustar\x0000", 0, _always),
    ("tar", b"ustar  \x00", 0, _always),
    ("HDF5", b"\x89HDF\r\n\x1a\n", 0, _always),
    ("SQLite", b"SQLite format 3\x00", 0, _always),
    ("Arrow", b"ARROW1\x00\x00", 0, _always),
    ("NumPy", b"\x93NUMPY", 0, _always),
)


_PICKLED_MODULES = (
    b"os",
    b"posix",
    b"nt",
    b"subprocess",
    b"builtins",
    b"__builtin__",
    b"torch._utils",
    b"numpy",
    b"sys",
)


def _pickle_name(data: bytes, at: int) -> bool:
    """A protocol 0 import: module, newline, an identifier, newline."""
    return re.match(rb"c[\w.]+\n[A-Za-z_]\w*\n", data[at : at + 200]) is not None


def _elf(data: bytes, at: int) -> bool:
    return data[at + 4 : at + 5] in (b"\x01", b"\x02") and data[at + 6 : at + 7] == b"\x01"


def _pickle_frame(data: bytes, at: int) -> bool:
    return at + 11 <= len(data) and struct.unpack_from("<Q", data, at + 3)[0] <= len(data) - at - 11


_CODE: Table = (
    ("pickle", b"\x80\x04\x95", 0, _pickle_frame),
    ("pickle", b"\x80\x05\x95", 0, _pickle_frame),
    *(("pickle import", b"c" + name + b"\n", 0, _pickle_name) for name in _PICKLED_MODULES),
    ("ELF program", b"\x7fELF", 0, _elf),
    ("PDF", b"%PDF-", 0, _always),
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


# -- text about people and places -------------------------------------------------------------------------------------


def personal(data: bytes) -> Iterator[Finding]:
    """Vehicle numbers (ISO 3779 with check digit) and precise positions in text; each told once."""
    told: set[str] = set()
    for start, text in text_runs(data):
        for finding in _in_text(start, text):
            if finding.what not in told:
                told.add(finding.what)
                yield finding


def _in_text(start: int, text: bytes) -> Iterator[Finding]:
    for match in _VIN.finditer(text):
        if vin_is_valid(match.group(1).decode()):
            yield Finding(kind="vin", what="vehicle identification number", offset=start + match.start(1))
            break
    for match in _PAIR.finditer(text):
        if _is_position(float(match.group(1)), float(match.group(2))):
            yield Finding(kind="position", what="coordinate pair", offset=start + match.start())
            break
    for what, pattern in _POSITION_FORMS:
        if (form := pattern.search(text)) is not None:
            yield Finding(kind="position", what=what, offset=start + form.start())


def masked(text: str) -> str:
    """The text with vehicle numbers, plates and precise positions as [private]: for logs, which are read by anybody."""
    data = _VIN.sub(lambda m: _PRIVATE if vin_is_valid(m.group(1).decode()) else m.group(0), text.encode())
    data = _PAIR.sub(lambda m: _PRIVATE if _is_position(float(m.group(1)), float(m.group(2))) else m.group(0), data)
    for _, form in _POSITION_FORMS:
        data = form.sub(_PRIVATE, data)
    return _A_PLATE.sub(_PRIVATE, data).decode(errors="replace")


_PRIVATE = b"[private]"
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
_PLATE_REST = re.compile(
    rb"[A-Z](?:\xc2\xb7|\xe2\x80\xa2|\xe3\x83\xbb|[ .-])?[A-HJ-NP-Z0-9]{4,5}"
    rb"(?:[A-HJ-NP-Z0-9]|\xe6\x8c\x82|\xe5\xad\xa6|\xe8\xad\xa6)"
)


_A_PLATE = re.compile(b"(?:" + "|".join(_PROVINCES).encode() + b")" + _PLATE_REST.pattern)


def _plate(data: bytes, at: int) -> bool:
    """A province, a letter, five or six places of which the last may be a word (hang, xue, jing)."""
    return _PLATE_REST.match(data, at + 3) is not None


def _degrees(data: bytes, at: int) -> bool:
    return re.search(rb"\d{1,3}\xc2\xb0\s?\d{1,2}(?:\.\d+)?['\xe2]", data[max(at - 3, 0) : at + 16]) is not None


_PLATES: Table = tuple(("Chinese licence plate", province.encode(), 0, _plate) for province in _PROVINCES)
_DEGREES: Table = (("degrees and minutes", b"\xc2\xb0", 0, _degrees),)
_MARKS = [
    Mark(kind=kind, what=what, literal=literal, shift=shift, check=check)
    for kind, table in (
        ("media", _MEDIA),
        ("archive", _ARCHIVES),
        ("code", _CODE),
        ("plate", _PLATES),
        ("position", _DEGREES),
    )
    for what, literal, shift, check in table
]
_BY_START: dict[bytes, list[Mark]] = {}
for _mark in _MARKS:
    _BY_START.setdefault(_mark.literal[:2], []).append(_mark)
_STARTS = np.zeros(1 << 16, bool)
_STARTS[[int.from_bytes(start, "big") for start in _BY_START]] = True
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
