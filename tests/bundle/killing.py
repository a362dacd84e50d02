"""Kill -9 at random moments, in a process of its own: nothing that was loaded for other tests has threads here.

Run as `python -m bundle.killing NAME FOLDER`; it exits with an AssertionError when something half-done shows.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def survive(name: str, folder: Path) -> None:
    """Run one of the loops below in a fresh interpreter."""
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    subprocess.run(
        [sys.executable, "-m", "bundle.killing", name, str(folder)], check=True, env={**os.environ, "PYTHONPATH": paths}
    )


def killed(work: Callable[[], object], after_s: float) -> None:
    """Do `work` in a forked child and kill it after a while."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def updating(folder: Path) -> None:
    """A car is killed during updates: it runs the old or the new release, whole, and the next update finishes."""
    from bundle.fleet import Shop, payload
    from onshore.car import provision, status, update
    from onshore.car.install import load_running

    shop, car, rng = Shop(folder / "shop"), folder / "car-0007", random.Random(3)
    before: str | None = shop.release(payload(1))
    provision(car, name="car-0007", region="cn", root=shop.root())
    assert update(shop.repo, car).running == before
    before = shop.release(payload(2))
    began = time.perf_counter()
    assert update(shop.repo, car).running == before
    longest_s = 1.5 * (
        time.perf_counter() - began
    )  # follows the machine: longer after a kill that came too early, else shorter
    outcomes = set()
    for counter in range(3, 21):
        offered = shop.release(payload(counter, seed=counter % 3))
        killed(lambda: update(shop.repo, car), rng.uniform(0.0, longest_s))
        now = status(car).running
        assert now in (before, offered)
        outcomes.add(now == offered)
        longest_s *= 0.8 if now == offered else 1.25
        assert load_running(car).release_id == now
        assert update(shop.repo, car).running == offered
        assert sum(1 for path in car.iterdir() if path.name.startswith(("trust-", ".new-"))) == 1
        before = offered
    assert outcomes == {True, False}, "every kill came too early or too late"


def publishing(folder: Path) -> None:
    """A center is killed while it publishes: cars accept what the repository offers, and the next release arrives."""
    from bundle.fleet import Shop, payload
    from onshore.car import provision, update

    shop, car, rng = Shop(folder / "shop"), folder / "car-0007", random.Random(4)
    shop.release(payload(1))
    provision(car, name="car-0007", region="cn", root=shop.root())
    for counter in range(2, 14):
        killed(lambda counter=counter: shop.release(payload(counter, seed=counter % 3)), rng.uniform(0.0, 0.03))  # type: ignore[misc]
        assert update(shop.repo, car).outcome in ("installed", "current")
    assert shop.release(payload(30)) == update(shop.repo, car).running


def signing(folder: Path) -> None:
    """A center is killed between gate, store, repository and ledger: doing it again leaves one release and one story."""
    from bundle.fleet import payload
    from onshore.bundle import tuf
    from onshore.release import CheckResult, gate, releases, sign, verify
    from onshore.store import Center

    center = Center.init(folder / "center", "cn", keys_dir=folder / "keys", seed=1)
    offered, repo, rng = payload(1), folder / "center" / "repo", random.Random(2)
    figures = {"complete": 0.0, "reproducible": 0.0, "onnx_equals_torch": 3e-6, "open_loop_measured": 0.9}
    evidence = {
        name: CheckResult(name=name, status="pass", figure=figure, evidence="ab" * 32)
        for name, figure in figures.items()
    }

    def work() -> None:
        fresh = Center.open(center.root)
        sign(fresh, offered, gate(fresh, offered, evidence), repo)

    for _ in range(10):
        killed(work, rng.uniform(0.0, 0.4))
    row = sign(center, offered, gate(center, offered, evidence), repo)
    assert isinstance(verify(center, repo), tuf.VerifiedBundle)
    assert [entry["id"] for entry in releases(center)] == [row.id]
    assert [entry.kind for entry in center.ledger.entries()].count("release") == 1
    assert center.ledger.verify().ok


if __name__ == "__main__":
    {"updating": updating, "publishing": publishing, "signing": signing}[sys.argv[1]](Path(sys.argv[2]))
