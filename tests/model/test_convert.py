"""A pickle is a program: opened in the jail it reaches nothing outside, and what it holds comes in by the usual gate."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onshore import border, cli
from onshore.core.errors import InputError, OnshoreError, RefusedError
from onshore.model import Nano
from onshore.model.convert import convert
from onshore.model.training import reproducible
from onshore.model.weights import load, parse
from onshore.store import Center

SMALL = Nano(channels=(8, 8, 16, 16, 16), hidden=32)


class Runs:
    """Unpickles to whatever calling `function` with `arguments` gives."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Center:
    folder = tmp_path_factory.mktemp("convert")
    return Center.init(folder / "center", "us", keys_dir=folder / "keys", seed=0, in_region_dirs=[folder / "open"])


def weights() -> dict[str, torch.Tensor]:
    with reproducible(3):
        return SMALL.build().state_dict()


def saved(path: Path, what: Any) -> Path:
    torch.save(what, path)
    return path


def test_a_plain_checkpoint_comes_out_as_the_same_tensors_and_passes_the_gate(center: Center, tmp_path: Path) -> None:
    state = weights()
    network = SMALL.build()
    forms = {
        "bare": state,
        "nested": {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
        "wrapped": {f"module.{name}": tensor for name, tensor in state.items()},
    }
    for name, form in forms.items():
        found = convert(center, saved(tmp_path / f"{name}.pt", form))
        assert found.opened == "as tensors" and found.tensors == len(state)
        assert found.left_out == (("epoch", "optimizer") if name == "nested" else ())
        loaded = load(network, found.data).state_dict()
        assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items()), name
    doubled = {"module.double": torch.zeros(2, dtype=torch.float64), "epoch": 3, **forms["wrapped"]}
    found = convert(center, saved(tmp_path / "doubled.pt", doubled))
    assert found.tensors == len(state) and found.left_out == ("epoch", "module.double")
    bad = {
        "a type": {"w": torch.zeros(2, dtype=torch.float64)},
        "wrapper": {"w": torch.ones(1), "module.w": torch.ones(1)},
    }
    for why, form in bad.items():
        with pytest.raises(InputError, match=why):
            convert(center, saved(tmp_path / "bad.pt", form))
    with pytest.raises(RefusedError, match="convert"):
        border.import_file(center, tmp_path / "bare.pt")
    out = tmp_path / "bare.safetensors"
    out.write_bytes(convert(center, tmp_path / "bare.pt").data)
    taken = border.import_file(center, out)
    assert taken.label.kind == "inbound_model"
    assert {*parse(center.read(taken.id))} == {*state}


def test_arrays_and_whole_networks_need_code_and_get_it_in_a_jail_without_gaps(center: Center, tmp_path: Path) -> None:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "note": "made in a hurry"}
    (tmp_path / "arrays.pkl").write_bytes(pickle.dumps(arrays))
    found = convert(center, tmp_path / "arrays.pkl")
    assert found.opened == "as code" and found.left_out == ("note",)
    assert np.array_equal(parse(found.data)["w"].numpy(), arrays["w"])
    network = torch.nn.Linear(3, 2)
    found = convert(center, saved(tmp_path / "network.pt", network))
    assert torch.equal(parse(found.data)["weight"], network.weight)
    lines = [entry.body for entry in center.ledger.entries() if entry.kind == "jail"]
    assert lines[-1]["work"] == "convert" and lines[-1]["missing"] == []


def _listen(server: socket.socket, met: list[Any]) -> None:
    with contextlib.suppress(OSError):  # shut down: nobody came
        met.append(server.accept())


def test_hostile_pickles_reach_nothing_outside(center: Center, tmp_path: Path) -> None:
    """Each payload works where nothing holds it, beside honest tensors, so that the file looks worth converting."""
    secret = tmp_path / "secret"
    secret.write_text("the key of somebody", encoding="utf8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        met: list[Any] = []
        listener = threading.Thread(target=_listen, args=(server, met), daemon=True)
        listener.start()
        port = server.getsockname()[1]
        payloads = {
            "shell": Runs(os.system, f"touch {tmp_path}/by-shell /tmp/onshore-by-shell"),
            "write": Runs(exec, f"open({str(tmp_path / 'by-write')!r}, 'w').write('x')"),
            "read": Runs(exec, f"print(open({str(secret)!r}).read())"),
            "call home": Runs(exec, f"import socket; socket.create_connection(('127.0.0.1', {port}), 2).send(b'x')"),
            "program": Runs(subprocess.call, [sys.executable, "-c", f"open({str(tmp_path / 'by-program')!r}, 'w')"]),
            "parent": Runs(exec, "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"),
        }
        before = {*os.listdir(tmp_path), "hostile.pt"}
        for names in (["shell", "write", "read", "call home", "program"], ["parent"]):
            tried = {name: payloads[name] for name in names}
            path = saved(tmp_path / "hostile.pt", {"state_dict": weights(), **tried})
            try:
                found = convert(center, path)
                assert found.opened == "as code" and b"somebody" not in found.data
            except OnshoreError as fault:  # it brought its own child down, and that is all
                assert fault.code in ("unknown_format", "limit_exceeded", "corrupt"), (names, fault)
            assert {*os.listdir(tmp_path)} == before and not Path("/tmp/onshore-by-shell").exists(), names
        assert met == []
        server.shutdown(socket.SHUT_RDWR)
        listener.join()
    bare = subprocess.run(
        [sys.executable, "-c", "import sys, torch; torch.load(sys.argv[1], weights_only=False)"]
        + [str(saved(tmp_path / "again.pt", {"extra": payloads["write"]}))],
        check=False,
        capture_output=True,
    )
    assert bare.returncode == 0 and (tmp_path / "by-write").exists()  # without the jail it does what it says


def test_a_pickle_that_reads_a_file_into_a_tensor_gets_no_file(center: Center, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"the key of somebody")
    steal = Runs(
        eval,
        f"__import__('torch').frombuffer(bytearray(open({str(secret)!r}, 'rb').read()), dtype=__import__('torch').uint8)",
    )
    with pytest.raises(InputError, match="finds tensors"):
        convert(center, saved(tmp_path / "steals.pt", {"w": steal}))


def test_a_pickle_that_answers_in_its_own_words_is_not_believed(center: Center, tmp_path: Path) -> None:
    """It takes over the child and returns bytes of its own: they are parsed as weights or refused."""
    words = "import onshore.model.convert as c; c.serialise = lambda tensors: b'not weights'"
    path = saved(tmp_path / "lies.pt", {"state_dict": weights(), "extra": Runs(exec, words)})
    with pytest.raises(InputError, match="import_refused"):
        convert(center, path)


def test_a_bomb_and_a_picture_end_as_errors(center: Center, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="finds tensors"):
        convert(center, tmp_path / "picture.png")
    bomb = Runs(eval, "bytearray(1 << 40)")
    with pytest.raises(OnshoreError):
        convert(center, saved(tmp_path / "bomb.pt", {"w": bomb}))


def test_the_command_writes_where_the_center_is_and_nowhere_else(
    center: Center, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "mine.pt", weights())
    (folder,) = center.config.in_region_dirs
    words = ["model", "convert", str(path), "--json", "--center", str(center.root), "--out"]
    assert cli.run([*words, str(folder / "mine.safetensors")]) == 0
    document = json.loads(capsys.readouterr().out)["converted"]
    assert Path(document["file"]).read_bytes() == convert(center, path).data and document["opened"] == "as tensors"
    assert cli.run([*words, str(tmp_path / "elsewhere" / "mine.safetensors")]) == 3
