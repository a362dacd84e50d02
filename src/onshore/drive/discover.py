"""What lies below a path: sources that a reader can take, files that are none of its business, and what nobody can read.

Rule: every file is a source's, ignored for what it is, or reported with one reason. Recognition looks at contents
(columns, magic bytes) before names.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from onshore.core.errors import InputError, NotFoundError
from onshore.drive.columns import SPEED_WORDS, ColumnMap, recognise
from onshore.drive.table import read_header

TABLES = frozenset([".csv", ".tsv"])
VIDEOS = frozenset([".mp4", ".m4v", ".mov", ".mkv", ".avi", ".hevc", ".h264", ".h265", ".ts", ".webm"])
#: Pictures, notes and code that people keep beside their drives.
IGNORED = frozenset(
    ".jpg .jpeg .png .gif .bmp .webp .tif .tiff .svg .json .jsonl .txt .md .rst .pdf .html .htm .xml .yaml .yml .toml .ini"
    " .cfg .log .py .sh .ipynb .srt .ass .vtt .sha256 .md5 .bib .partial".split()
)
MOST_MEMBERS = 1_000_000
MCAP_MAGIC = b"\x89MCAP0\r\n"

Reader = Literal["mcap", "table", "video"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One segment as it lies on disk: the reader that takes it and its files (table before video)."""

    reader: Reader
    files: tuple[Path, ...]
    column_map: ColumnMap | None = None

    @property
    def path(self) -> Path:
        return self.files[0]


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A file or folder that did not become a source, and why."""

    path: Path
    error: InputError


@dataclass
class Found:
    sources: list[Source] = field(default_factory=list)
    unusable: list[Unusable] = field(default_factory=list)
    ignored: int = 0


def discover(paths: Iterable[Path | str], maps: Sequence[ColumnMap], *, reader: str | None = None) -> Found:
    """Everything below the paths, in the order of their names.

    `maps`: the maps to recognise tables by; one given map is taken without recognition. What is found has absolute paths:
    jailed readers and later retries work in other folders. Raises NotFoundError for a path that does not exist.
    """
    found = Found()
    folders: dict[Path, list[Path]] = {}
    for path in [Path(os.path.abspath(path)) for path in paths]:  # not resolved: links are to be seen
        if not path.exists():
            raise NotFoundError(path, "no such file or folder.")
        if path.is_dir():
            _walk(path, folders, found)
        else:
            folders.setdefault(path.parent, []).extend(_with_partner(path))
    for folder in sorted(folders):
        _group(sorted(set(folders[folder])), maps, reader, found)
    return found


def _walk(top: Path, folders: dict[Path, list[Path]], found: Found) -> None:
    """Real files below `top`; a folder that holds nothing at all, or cannot be listed, is reported."""

    def unlisted(problem: OSError) -> None:
        folder = Path(problem.filename)
        found.unusable.append(Unusable(path=folder, error=unreadable(folder, problem)))

    for name, subfolders, files in os.walk(top, onerror=unlisted):
        folder = Path(name)
        odd = [folder / one for one in (*subfolders, *files) if _is_odd(folder / one)]
        found.unusable += [
            Unusable(path=path, error=_unsafe(path.name, "a link, pipe or device")) for path in sorted(odd)
        ]
        subfolders[:] = sorted(one for one in subfolders if not one.startswith(".") and folder / one not in odd)
        if not subfolders and not files:
            error = InputError("empty_input", folder.name, "the folder is empty; name one that holds drives.")
            found.unusable.append(Unusable(path=folder, error=error))
        folders.setdefault(folder, []).extend(
            folder / file for file in files if not file.startswith(".") and folder / file not in odd
        )


def unreadable(path: Path, problem: OSError) -> InputError:
    """A file or folder that the file system does not give, as the one reason for its quarantine."""
    return InputError("unknown_format", path.name, f"it cannot be read ({problem.strerror}).")


def _is_odd(path: Path) -> bool:
    """Neither a plain file nor a folder of its own: what a link or a pipe leads to is nobody's upload."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # whoever opens it says why it cannot be read
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _unsafe(name: str, what: str) -> InputError:
    return InputError("unsafe_member", name, f"it is {what}; an upload holds plain files below its own folder only.")


def _check_archive(path: Path) -> None:
    """An archive is never unpacked here: unsafe members are named, and a harmless one is sent back to be unpacked."""
    try:
        with tarfile.open(path, "r:") as archive:
            for count, member in enumerate(archive):
                if count >= MOST_MEMBERS:
                    raise InputError("limit_exceeded", path.name, f"more than {MOST_MEMBERS} members.")
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise _unsafe(f"{path.name} member {count}", "a link, pipe, device or sparse file")
                parts = Path(member.name).parts
                if member.name.startswith("/") or ".." in parts or "\\" in member.name:
                    raise _unsafe(f"{path.name} member {count}", "outside the archive's own folder")
    except (tarfile.TarError, ValueError, EOFError) as problem:
        raise InputError("unknown_format", path.name, f"it is no whole archive ({problem}).") from problem
    raise InputError("unknown_format", path.name, "archives are not opened here; unpack it and add the folder.")


def _is_archive(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(257)
        return file.read(5) == b"ustar" or path.suffix.lower() == ".tar"


def _with_partner(path: Path) -> list[Path]:
    """A single file named: the table or video of its stem comes along."""
    partners = TABLES | VIDEOS if path.suffix.lower() in TABLES | VIDEOS else frozenset()
    beside = [other for other in path.parent.glob(f"{_glob_safe(path.stem)}.*") if other.suffix.lower() in partners]
    return sorted({path, *beside})


def _glob_safe(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _group(files: list[Path], maps: Sequence[ColumnMap], reader: str | None, found: Found) -> None:
    tables = {path.stem: path for path in files if path.suffix.lower() in TABLES}
    videos = {path.stem: path for path in files if path.suffix.lower() in VIDEOS}
    for path in files:
        suffix = path.suffix.lower()
        try:
            if suffix in TABLES:
                source = _table(path, videos.get(path.stem), maps)
                found.ignored += source is None
                found.sources += [source] if source else []
            elif suffix in VIDEOS:
                if path.stem in tables:
                    _check_taken(path, videos[path.stem])
                elif reader == "video":
                    found.sources.append(Source(reader="video", files=(path,)))
                else:
                    _lone_video(path)
            elif _is_mcap(path) and reader in (None, "mcap"):
                found.sources.append(Source(reader="mcap", files=(path,)))
            elif _is_archive(path):
                _check_archive(path)
            elif suffix in IGNORED or not suffix:
                found.ignored += 1
            else:
                _check_size(path)
                raise InputError("unknown_format", path.name, "no reader knows this kind of file; convert it to MCAP.")
        except InputError as error:
            found.unusable.append(Unusable(path=path, error=error))
        except OSError as problem:
            found.unusable.append(Unusable(path=path, error=unreadable(path, problem)))


def _table(path: Path, video: Path | None, maps: Sequence[ColumnMap]) -> Source | None:
    """A source; None for a table that is somebody's notes (nothing recognises it and no video lies beside it)."""
    if path.stat().st_size == 0:
        _check_size(path)
    header = read_header(path)
    column_map = maps[0] if len(maps) == 1 else recognise(header, maps)
    if column_map is None and video is None:
        return None
    if column_map is None:
        if not any(SPEED_WORDS.search(name) for name in header):
            raise InputError("missing_column", f"{path.name} speed", "no column looks like a speed; a drive needs one.")
        known = ", ".join(known.name for known in maps)
        raise InputError("unknown_format", path.name, f"no map ({known}) recognises its columns; give one with --map.")
    if video is None:
        raise InputError("damaged_video", path.name, "no video of the same stem lies beside the table.")
    return Source(reader="table", files=(path, video), column_map=column_map)


def _check_taken(path: Path, taken: Path) -> None:
    """A table takes one video; another of its stem is named, so that nobody believes it came in."""
    if path != taken:
        raise InputError(
            "conflict", path.name, f"{taken.name} is the video of the table beside it; rename one of them."
        )


def _lone_video(path: Path) -> None:
    _check_size(path)
    raise InputError(
        "unknown_format",
        path.name,
        "no table of the same stem lies beside the video, and a drive needs a speed; public video comes in with --reader video.",
    )


def _check_size(path: Path) -> None:
    if path.stat().st_size == 0:
        raise InputError("empty_file", path.name, "the file has no bytes; copy it again.")


def _is_mcap(path: Path) -> bool:
    """By its first bytes, or by its name when those are damaged."""
    with open(path, "rb") as file:
        return file.read(len(MCAP_MAGIC)) == MCAP_MAGIC or path.suffix.lower() == ".mcap"
