"""One exit: every module that can write a file or open a network connection is named here with its reason.

A new writer anywhere in `src/onshore` fails this test until somebody adds it here and says why it does not lead outside.
What leads outside calls `border` and writes nothing itself.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import onshore
from border.writers import WRITING_NAMES, Writer, writers

SOURCE = Path(onshore.__file__).parent
CENTER = "writes inside the center's own folder or its key folder"
SCRATCH = "writes a temporary folder of its own that it removes"
MEMORY = "makes an archive in memory"
CAR = "writes the vehicle's own folder; no center's data passes through it but a verified release"
CALLER = "writes where its caller says; callers are doors, which ask border first (tested below)"
ALLOWED: dict[str, str] = {
    "border/outside.py": "the one exit itself",
    "bundle/format.py": MEMORY,
    "bundle/tuf.py": "writes a release repository, whose folder release checks",
    "car/install.py": CAR,
    "car/identity.py": CAR,
    "car/runner.py": CAR,
    "car/shadow.py": CAR,
    "core/rollout.py": MEMORY,
    "dataset/perturb.py": "copies compiled code into the folder that numba compiles into",
    "dataset/proxy.py": MEMORY,
    "drive/catalog.py": CALLER,
    "evaluation/closedloop.py": MEMORY,
    "evaluation/epdms.py": "its `touch` is geometry, no file",
    "flywheel/demo.py": "writes the demo's own folder, which both of its centers name in-region",
    "flywheel/ladder.py": "writes the experiment's own folder, which its centers name in-region",
    "flywheel/plots.py": "draws into memory",
    "flywheel/training.py": "live figures, into a file whose folder it has asked border for",
    "flywheel/vehicle.py": CAR,
    "jail/channel.py": "a jailed child's pipes to its parent",
    "jail/kernel.py": "raises the loopback of its own empty network namespace",
    "jail/launch.py": SCRATCH,
    "jail/probes.py": "tries to write outside, to show that it cannot",
    "model/collection.py": MEMORY,
    "model/quantise.py": SCRATCH,
    "model/ranks.py": SCRATCH,
    "store/backup.py": "copies the center where it is told; whoever calls it in a door has asked border before",
    "store/center.py": CENTER,
    "store/files.py": CENTER,
    "store/ledger.py": CENTER,
    "store/providers.py": "overwrites a key file outside the center before removing it",
    "store/tables.py": CENTER,
    "wire/writing.py": CALLER,
    "world/fleet.py": "writes synthetic recordings of a simulated fleet; no center's data is in its reach",
    "world/net.py": "caches town maps made from a seed",
    "world/pool.py": "a socket pair to its own child process",
    "world/rivals.py": "a pipe to its own child process",
    "world/traffic.py": SCRATCH,
    "world/record.py": "writes synthetic recordings of a simulated fleet; no center's data is in its reach",
}
#: Functions of other rooms that write where they are told: whoever calls them in a door has asked border before.
CALLER_CHECKED = {"make_backup", "copy_keys", "export_mcap"}
DOORS = ("cli", "flywheel", "fleet", "console")
HERE = writers(SOURCE)


def test_every_writer_is_named_with_its_reason() -> None:
    new = [writer for writer in HERE if writer.module not in ALLOWED]
    told = "\n".join(f"{w.module}:{w.line} {w.function} calls {w.call}" for w in new)
    assert not new, f"these write without passing the gate; use onshore.border, or name the module here:\n{told}"


def test_the_command_writes_nothing_itself() -> None:
    assert [writer for writer in HERE if writer.module.startswith(("cli/", "console/"))] == []


def test_the_border_writes_outside_in_one_function_only() -> None:
    mine = {(writer.module, writer.function) for writer in HERE if writer.module.startswith("border/")}
    assert mine == {("border/outside.py", "place")}


def test_only_the_gate_calls_the_exit() -> None:
    calls = [path.relative_to(SOURCE).as_posix() for path in sorted(SOURCE.rglob("*.py")) if _calls(path, "place")]
    assert [name for name in calls if name.startswith("border/")] == ["border/gate.py"]
    outside = [path for path in SOURCE.rglob("*.py") if "border.outside" in path.read_text(encoding="utf8")]
    assert {path.parent.name for path in outside} == {"border"}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_asks_before_it_hands_out_a_folder(door: str) -> None:
    for path in sorted((SOURCE / door).rglob("*.py")):
        for function in (
            n for n in ast.walk(ast.parse(path.read_text(encoding="utf8"))) if isinstance(n, ast.FunctionDef)
        ):
            lines = {name: _lines(function, name) for name in CALLER_CHECKED}
            asked = _border_lines(function)
            for name, at in lines.items():
                assert not at or (asked and min(asked) < min(at)), f"{path.name} {function.name}: {name} before border"


def test_the_gate_writes_its_line_before_its_file() -> None:
    """In every function of the gate that writes a file, the ledger line stands above the first file."""
    tree = ast.parse((SOURCE / "border" / "gate.py").read_text(encoding="utf8"))
    writing = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and _lines(n, "place")]
    assert {function.name for function in writing} == {"export", "write_out"}
    for function in writing:
        told = _lines(function, "append") + _lines(function, "_line_for_folder")
        assert told and min(told) < min(_lines(function, "place"))


@pytest.mark.parametrize(
    "source",
    [
        "open('a-file', 'w')",
        "open('a-file', mode='ab')",
        "path.open('wb')",
        "def f(m):\n    open('a-file', mode=m)",
        "path.write_bytes(b'')",
        "Path('a-file').write_text('')",
        "import shutil\nshutil.copy('a', 'b')",
        "import os\nos.open('a-file', os.O_WRONLY)",
        "os.rename('a', 'b')",
        "np.save('a-file', a)",
        "cv2.imwrite('a-file', a)",
        "zipfile.ZipFile('a-file', 'w')",
        "import socket",
        "from urllib.request import urlopen",
        "import http.client",
        "import requests",
        "torch.save(a, 'a-file')",
        "figure.savefig('a-file')",
        "av.open('a-file', 'w')",
    ],
)
def test_the_finder_finds(tmp_path: Path, source: str) -> None:
    (tmp_path / "new.py").write_text(source)
    assert writers(tmp_path)


@pytest.mark.parametrize(
    "source",
    ["open('a-file')", "open('a-file', 'rb')", "path.read_bytes()", "import os\nos.open('a-file', os.O_RDONLY)"],
)
def test_the_finder_leaves_readers_alone(tmp_path: Path, source: str) -> None:
    (tmp_path / "new.py").write_text(source)
    assert writers(tmp_path) == []


def test_a_new_writer_would_be_told(tmp_path: Path) -> None:
    room = tmp_path / "clip"
    room.mkdir()
    (room / "thumbnails.py").write_text("def f(path):\n    path.write_bytes(b'')\n")
    assert writers(tmp_path) == [Writer("clip/thumbnails.py", 2, "f", "path.write_bytes")]
    assert "clip/thumbnails.py" not in ALLOWED and "write_bytes" in WRITING_NAMES


def _calls(path: Path, name: str) -> bool:
    return bool(_lines(ast.parse(path.read_text(encoding="utf8")), name))


def _lines(tree: ast.AST, name: str) -> list[int]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        c.lineno
        for c in calls
        if (c.func.attr if isinstance(c.func, ast.Attribute) else getattr(c.func, "id", "")) == name
    ]


def _border_lines(function: ast.FunctionDef) -> list[int]:
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [call.lineno for call in calls if isinstance(call.func.value, ast.Name) and call.func.value.id == "border"]


def test_a_rivals_program_never_sees_recorded_pictures(tmp_path: Path) -> None:
    from onshore.core.errors import RefusedError
    from onshore.flywheel import judging
    from onshore.store import Center

    center = Center.init(tmp_path / "center", "us", keys_dir=tmp_path / "keys", seed=0)
    with pytest.raises(RefusedError) as caught:
        judging.replay_drive(center, "drive-1", "process:cat")
    assert caught.value.code == "not_allowed"
