"""Shadow mode: the running release watches a drive and is compared with what was driven; it never actuates.

Rule: nothing here can reach an actuator: plans go in, differences come out. What differs for long enough becomes a
request for a clip, by the same trigger language as everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.car.running import PlannedDrive, run
from onshore.core.control import VehicleGeometry
from onshore.core.frames import path_at_arcs, to_frame
from onshore.core.plan import Plan
from onshore.core.progress import Progress, silent
from onshore.core.recording import Recording, Signals
from onshore.core.trigger import Trigger

#: The path is compared where the car was this far along it (or as far as it got), the speed this much later.
COMPARED_AT_M, COMPARED_AFTER_S = 14.0, 1.0
#: As in the center's triggers; a campaign may send another.
DISAGREEMENT = Trigger(
    name="shadow_disagreement", when="shadow_path_diff_m > 1.0 or shadow_speed_diff_mps > 2.5", for_s=0.4
)
#: What was driven is known this far ahead of a plan at most.
AHEAD_S = 12.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ShadowReport:
    """How a release would have driven beside how the car was driven.

    t_ns (N,): when plans were made. columns: `shadow_path_diff_m` and `shadow_speed_diff_mps` (N,), NaN where what was
    driven is not known. path_diff_m_NK, speed_diff_mps_NT: the same at every arc length and time of the plan.
    spans: where they disagreed, (start_ns, end_ns). requests: those spans as clips to ask for, when the segment is known.
    """

    release_id: str
    segment_id: str | None
    synthetic: bool
    trigger: Trigger
    t_ns: NDArray[np.int64]
    columns: dict[str, Floats]
    path_diff_m_NK: Floats
    speed_diff_mps_NT: Floats
    spans: tuple[tuple[int, int], ...]

    @property
    def requests(self) -> list[dict[str, Any]]:
        if self.segment_id is None:
            return []
        return [{"segment": self.segment_id, "start_ns": start, "end_ns": end} for start, end in self.spans]

    def as_record(self) -> dict[str, Any]:
        """Figures for people and tables; a mean that cannot be taken is None, never zero."""
        return {
            "release": self.release_id,
            "segment": self.segment_id,
            "synthetic": self.synthetic,
            "trigger": self.trigger.name,
            "trigger_version": self.trigger.version,
            "plans": len(self.t_ns),
            "mean_path_diff_m": _mean(self.columns["shadow_path_diff_m"]),
            "mean_speed_diff_mps": _mean(self.columns["shadow_speed_diff_mps"]),
            "spans": [list(span) for span in self.spans],
        }


def shadow(
    car_dir: Path | str,
    recording: Recording,
    *,
    trigger: Trigger = DISAGREEMENT,
    camera: str | None = None,
    progress: Progress = silent,
) -> ShadowReport:
    """Compare the running release with what was driven. Raises as `run` does."""
    return compare(run(car_dir, recording, camera=camera, progress=progress), recording, trigger)


def compare(planned: PlannedDrive, recording: Recording, trigger: Trigger = DISAGREEMENT) -> ShadowReport:
    """Differences between plans and what was driven, and the spans in which the trigger's condition held."""
    track = driven_track(recording.signals, recording.rig.vehicle)
    track[:, 2] = np.unwrap(np.nan_to_num(track[:, 2])) + np.where(np.isfinite(track[:, 2]), 0.0, np.nan)
    pairs = [_differences(plan, t_ns, track, recording.signals) for t_ns, plan in zip(planned.t_ns, planned.plans)]
    path_NK = np.array([path for path, _ in pairs]).reshape(len(pairs), -1)
    speed_NT = np.array([speed for _, speed in pairs]).reshape(len(pairs), -1)
    columns = {
        "shadow_path_diff_m": _column(path_NK, planned.plans[0].arcs_m if pairs else (), COMPARED_AT_M, fall_back=True),
        "shadow_speed_diff_mps": _column(speed_NT, planned.plans[0].times_s if pairs else (), COMPARED_AFTER_S),
    }
    return ShadowReport(
        release_id=planned.release_id,
        segment_id=recording.segment_id,
        synthetic=recording.synthetic or planned.synthetic,
        trigger=trigger,
        t_ns=planned.t_ns,
        columns=columns,
        path_diff_m_NK=path_NK,
        speed_diff_mps_NT=speed_NT,
        spans=tuple(trigger.spans(planned.t_ns, columns)),
    )


def driven_track(signals: Signals, vehicle: VehicleGeometry) -> Floats:
    """(N, 3) poses x, y, yaw of the rear axle: as recorded, else dead reckoning, NaN in rows where neither is known.

    Dead reckoning takes speed and yaw rate, the yaw rate from steering (single-track model) where it is not recorded.
    """
    recorded = np.stack([signals.x_m, signals.y_m, signals.yaw_rad], -1)
    if np.isfinite(recorded).any():
        return recorded
    turning = signals.speed_mps * np.tan(signals.steering_rad) / vehicle.wheelbase_m
    rate = np.where(np.isfinite(signals.yaw_rate_radps), signals.yaw_rate_radps, turning)
    known = np.isfinite(signals.speed_mps) & np.isfinite(rate)
    speed, rate = np.where(known, signals.speed_mps, 0.0), np.where(known, rate, 0.0)
    dt_s = np.diff(signals.t_ns) / 1e9
    turned = (rate[1:] + rate[:-1]) / 2 * dt_s
    along_m = (speed[1:] + speed[:-1]) / 2 * dt_s
    yaw_rad = np.concatenate([[0.0], np.cumsum(turned)])
    middle = yaw_rad[:-1] + turned / 2
    x, y = (np.concatenate([[0.0], np.cumsum(along_m * part)]) for part in (np.cos(middle), np.sin(middle)))
    return np.where(known[:, None], np.stack([x, y, yaw_rad], -1), np.nan)


def _differences(plan: Plan, t_ns: int, track: Floats, signals: Signals) -> tuple[Floats, Floats]:
    """Distances (K,) at the plan's arc lengths and speed differences (T,) at its times; NaN where nothing is known."""
    times_s = (signals.t_ns - t_ns) / 1e9
    path = np.full(len(plan.arcs_m), np.nan)
    here = [_at(times_s, track[:, axis]) for axis in range(3)]
    if np.isfinite(here).all():
        ahead = _known_ahead(times_s, track)
        driven = to_frame(np.vstack([here[:2], ahead[:, :2]]), here[0], here[1], here[2])
        points, reached = path_at_arcs(driven, plan.arcs_m)
        path = np.where(reached, np.hypot(*(plan.path_xy_m - points).T), np.nan)
    speed = np.array([_at(times_s, signals.speed_mps, after_s) for after_s in plan.times_s])
    return path, np.abs(plan.speed_mps - speed)


def _known_ahead(times_s: Floats, track: Floats) -> Floats:
    """The track from now on, up to the first row that is not known."""
    later = track[(times_s > 0) & (times_s <= AHEAD_S)]
    unknown = np.flatnonzero(~np.isfinite(later).all(1))
    return later[: unknown[0]] if len(unknown) else later


def _at(times_s: Floats, column: Floats, after_s: float = 0.0) -> float:
    """A column's value `after_s` from now, NaN outside what was recorded."""
    return float(np.interp(after_s, times_s, column, left=np.nan, right=np.nan))


def _column(values_NK: Floats, marks: tuple[float, ...], wanted: float, *, fall_back: bool = False) -> Floats:
    """The column at the mark nearest to `wanted`; with `fall_back` the last known one before it where it is unknown."""
    if not len(values_NK):
        return np.zeros(0)
    nearest = int(np.argmin(np.abs(np.asarray(marks) - wanted)))
    column = values_NK[:, nearest].copy()
    for earlier in range(nearest - 1, -1, -1) if fall_back else ():
        column = np.where(np.isnan(column), values_NK[:, earlier], column)
    return column


def _mean(column: Floats) -> float | None:
    known = column[np.isfinite(column)]
    return float(known.mean()) if len(known) else None
