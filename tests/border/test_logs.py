"""Attempt 52: a vehicle number, a plate or a place in a log line, an exception text or a metric's label."""

from __future__ import annotations

import ast
import io
import logging
from pathlib import Path

import pytest

import onshore
from border.conftest import Shore
from border.test_bytes import vin
from border.test_red_team import export, refusal
from onshore import cli
from onshore.border.scan import masked, scan
from onshore.cli.logs import Masking
from onshore.core.digest import canonical_json

SOURCE = Path(onshore.__file__).parent
#: Made up: the vehicle number has a right check digit and no maker, the plate no province that gives out its letter.
PRIVATE = [vin("ZZZTEST0", "XT000001"), "京Z00000", "31.23041, 121.47370", "lat=31.23041", "$GPGGA,120000.00"]


@pytest.mark.parametrize("text", PRIVATE)
def test_52_the_mask_hides_it_and_keeps_the_rest(text: str) -> None:
    told = masked(f"drive refused: {text} after 12.5 s at 3.25 m/s")
    assert "[private]" in told and told.startswith("drive refused: ") and text not in told
    assert [finding for finding in scan(told.encode()) if finding.kind in ("vin", "plate", "position")] == []


@pytest.mark.parametrize("text", ["sha256 0123456789abcdef0", "ADE 0.2512 0.1893", "12.5000 s, 200.1234 m", "car-0007"])
def test_52_figures_and_digests_stay_readable(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("text", PRIVATE)
def test_52_log_lines_and_exception_texts_pass_the_mask(text: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Masking("%(message)s"))
    logger = logging.Logger("somebody")
    logger.addHandler(handler)
    logger.warning("seen near %s", text)
    try:
        raise ValueError(f"cannot read {text}")
    except ValueError:
        logger.exception("while reading")
    assert text not in stream.getvalue() and stream.getvalue().count("[private]") >= 2


def test_52_the_command_logs_through_the_mask_and_hides_what_it_did_not_expect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onshore.region import packs

    def broken(*_: object, **__: object) -> None:
        logging.getLogger("somebody").warning("vehicle %s", PRIVATE[0])
        raise RuntimeError(f"at {PRIVATE[2]}")

    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(packs, "load_pack", broken)
    monkeypatch.setattr("onshore.region.load_pack", broken)
    assert cli.run(["--json", "world", "run", "--region", "us", "--policy", "stop"]) == 1
    written = capsys.readouterr()
    assert all(text not in written.out + written.err for text in PRIVATE)
    assert written.err.count("[private]") == 2 and "[private]" in written.out


@pytest.mark.parametrize("text", PRIVATE)
def test_52_a_metrics_label_that_names_one_is_refused(shore: Shore, text: str) -> None:
    figures = canonical_json({"by": {text: 3.0}})
    kept = shore.center.put(figures, shore.metrics.label, name="leak", parents=[shore.weights.id])
    permit = shore.permit(kept)
    assert refusal(lambda: export(shore, permit, "leak"))[0] == "not_cleared"


def test_52_nothing_logs_a_field_that_names_somebody_or_a_place() -> None:
    private = {"vin", "plate", "subject", "subjects", "latitude", "longitude", "position", "actor", "vehicle"}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = ast.unparse(node.func.value).lower()
            if node.func.attr in ("debug", "info", "warning", "error", "exception") and "log" in owner:
                named = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
                    n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
                }
                assert not named & private, f"{path}:{node.lineno}"
                assert not any(isinstance(argument, ast.JoinedStr) for argument in node.args), f"{path}:{node.lineno}"
