"""Supervised driving: a driver takes the wheel where the candidate errs, late; and what is learned is late and inexact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onshore.core.errors import UsageError
from onshore.region import load_pack
from onshore.world import PolicySpec, RolloutJob, collect_takeovers
from onshore.world.jobs import Supervision
from onshore.world.randomised import randomised
from onshore.world.roads import Roads
from world.conftest import job

FAST = PolicySpec(kind="constant-speed", speed_mps=7.0)
EXACT = Supervision(delay_s=0.0, path_noise_m=0.0, speed_noise_mps=0.0)


def driven(cache: Path, how: Supervision, **changes: Any) -> tuple[list[Any], dict[str, Any]]:
    fields = {"policy": FAST, "town_seed": 1, "traffic_seed": 5, "max_time_s": 12.0, "collect": True, **changes}
    (rollouts,), arrays = collect_takeovers([job(**fields, supervision=how)], workers=1, cache_dir=cache)
    return rollouts, arrays


def test_only_moments_at_the_wheel_are_kept_and_a_later_driver_keeps_fewer(cache: Path) -> None:
    _, soon = driven(cache, EXACT)
    _, late = driven(cache, Supervision(delay_s=2.0, path_noise_m=0.0, speed_noise_mps=0.0))
    everything = 2 * 12.0 / 0.4
    assert 0 < len(late["side_N9"]) < len(soon["side_N9"]) < everything
    assert {"ego_N", "takeover_N"} <= set(soon)


def test_who_never_errs_is_never_taken_over(cache: Path) -> None:
    careless = Supervision(path_error_m=1e6, speed_error_mps=1e6)
    rollouts, arrays = driven(cache, careless)
    assert arrays == {} and len(rollouts) == 2


def test_the_driver_at_the_wheel_drives_otherwise_than_the_candidate(cache: Path) -> None:
    (alone, _), _ = driven(cache, Supervision(path_error_m=1e6, speed_error_mps=1e6))
    (held, _), arrays = driven(cache, Supervision(when="always"))
    ends = [float(run.steps["speed_mps"][min(len(run.steps["t_s"]), 110) - 1]) for run in (alone, held)]
    assert ends[0] == pytest.approx(7.0, abs=0.5) and abs(ends[1] - 7.0) > 0.5
    assert len(arrays["side_N9"]) > 25


def test_noise_and_late_answers_change_what_is_learned_and_nothing_else(cache: Path) -> None:
    how = {"when": "always", "hold_s": 2.0}
    _, exact = driven(cache, Supervision(**{**how, **vars_of(EXACT)}))
    _, noisy = driven(cache, Supervision(**{**how, "delay_s": 0.0, "path_noise_m": 0.5, "speed_noise_mps": 1.0}))
    _, late = driven(cache, Supervision(**{**how, "late_s": 1.0, "path_noise_m": 0.0, "speed_noise_mps": 0.0}))
    for other in (noisy, late):
        assert np.array_equal(exact["frames_NTHWC"], other["frames_NTHWC"])  # the car was driven the same way
    aside = noisy["path_NK2"][..., 1] - exact["path_NK2"][..., 1]
    assert 0.1 < np.abs(aside[:, 3:]).max() < 2.5 and np.ptp(aside[:, 3:], axis=1).max() < 1e-5
    first = (noisy["ego_N"] == 0) & (noisy["takeover_N"] == 0)
    assert np.ptp(aside[first][:, 4]) < 1e-5 < np.ptp(aside[:, 4])  # one habit for each takeover
    assert not np.array_equal(late["speed_NT"], exact["speed_NT"])
    assert np.array_equal(late["path_NK2"], exact["path_NK2"])


def vars_of(how: Supervision) -> dict[str, Any]:
    return {name: getattr(how, name) for name in ("delay_s", "path_noise_m", "speed_noise_mps")}


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Supervision(when="sometimes"),  # type: ignore[arg-type]
        lambda: Supervision(delay_s=-1.0),
        lambda: Supervision(late_s=-1.0),
        lambda: RolloutJob(region="us", suite="x", town_seed=1, traffic_seed=1, policy=FAST, supervision=Supervision()),
    ],
)
def test_supervision_without_meaning_is_refused(ask: Any) -> None:
    with pytest.raises(UsageError):
        ask()


def test_a_job_without_supervision_is_recorded_as_before() -> None:
    assert "supervision" not in job().as_record()
    assert job(policy=FAST, collect=True, supervision=Supervision()).as_record()["supervision"]["delay_s"] == 0.6


def test_random_towns_keep_what_the_law_says_and_change_the_rest() -> None:
    pack = load_pack("cn")
    one, again, other = (randomised(pack, seed) for seed in (1, 1, 2))
    assert one.roads == again.roads != other.roads
    for name in ("lanes", "paint", "signs", "sign_faces", "lights", "town", "permissions"):
        assert one.roads[name] == pack.roads[name]
    assert one.roads["looks"]["asphalt"] != pack.roads["looks"]["asphalt"]
    assert one.roads["traffic"]["vehicles"] != pack.roads["traffic"]["vehicles"]
    assert Roads.from_record("cn", one.roads).region == "cn" and pack.roads == load_pack("cn").roads
