"""Whether a run succeeded: small conditions over a Rollout's events and columns, and nothing else.

Rule: a condition returns what went wrong, or "" if nothing did; a column that is not known is 'not measurable', which is
neither success nor failure. No condition knows who drove.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onshore.core.rollout import LIGHTS, LINES, Rollout

Condition = Callable[[Rollout], str]
Floats = NDArray[np.float64]
#: How far (m) over a line is over it: half a line's width and the grain of the map.
OVER_LINE_M = 0.25
#: An ego slower than this stands.
STANDING_MPS = 0.1
LONG_FORBIDDEN_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """passed is None where it cannot be told from this rollout; why names what went wrong first."""

    passed: bool | None
    why: str


class NotKnown(Exception):
    """A condition needs a column that this rollout does not know."""


def verdict(conditions: Sequence[Condition], rollout: Rollout) -> Verdict:
    """All conditions in order; the first that is not met says why, and fails the run whatever else is not known."""
    unknown = ""
    for condition in conditions:
        try:
            why = condition(rollout)
        except NotKnown as missing:
            unknown = unknown or f"not measurable: {missing} is not known"
            continue
        if why:
            return Verdict(passed=False, why=why)
    return Verdict(passed=None if unknown else True, why=unknown)


def column(rollout: Rollout, name: str) -> Floats:
    """A column that must be known throughout."""
    values = rollout.steps[name]
    if np.isnan(values).all():
        raise NotKnown(name)
    return values


def arrives(rollout: Rollout) -> str:
    """The route is driven to its end."""
    return "" if any(event.kind == "route_complete" for event in rollout.events) else f"ended by {rollout.ended}"


def touches_nobody(rollout: Rollout) -> str:
    """No contact with anything while the ego moves, whoever is at fault."""
    for event in rollout.events:
        if event.kind.startswith("collision") and float(event.detail.get("speed_mps", 1.0)) >= STANDING_MPS:
            return f"{event.kind} with {event.detail.get('with', 'something')}"
    return ""


def obeys_lights(rollout: Rollout) -> str:
    return "red_light" if any(event.kind == "red_light" for event in rollout.events) else ""


def stays_on_road(rollout: Rollout) -> str:
    """On the road, and never for more than half a second against the traffic outside a junction."""
    steps = rollout.steps
    if any(event.kind in ("off_road", "wrong_way", "route_deviation") for event in rollout.events):
        return rollout.ended
    against = (steps["oncoming"] > 0) & (steps["junction"] == 0)
    return "against the traffic" if against.sum() * 0.1 > LONG_FORBIDDEN_S else ""


def keeps_to_open_lanes(rollout: Rollout) -> str:
    """Never longer than half a second in a lane that is not open to cars at this time of day."""
    closed = column(rollout, "lane_open") == 0
    return "in a lane closed to cars" if closed.sum() * 0.1 > LONG_FORBIDDEN_S else ""


def crosses_no_solid_line(rollout: Rollout) -> str:
    for side in ("left", "right"):
        line, away = column(rollout, f"line_{side}"), rollout.steps[f"line_{side}_m"]
        solid = (line >= LINES.index("solid")) & (line <= LINES.index("double_solid"))
        if (solid & (away < -OVER_LINE_M)).any():
            return f"over a solid line on its {side}"
    return ""


def bends_gently(limit_mps2: float) -> Condition:
    """Sideways acceleration (yaw rate times speed, over half a second) below a limit."""

    def condition(rollout: Rollout) -> str:
        steps = rollout.steps
        if len(steps["t_s"]) < 8:
            return ""
        rate = np.abs(np.diff(np.unwrap(steps["yaw_rad"]))) / 0.1
        sideways = np.convolve(rate * steps["speed_mps"][1:], np.ones(5) / 5, mode="valid")
        return f"{sideways.max():.1f} m/s2 sideways" if sideways.max() > limit_mps2 else ""

    return condition


def turns_from_its_lane(rollout: Rollout) -> str:
    """The lane's arrows, in force at that time, allow the movement that the ego makes at the next junction."""
    arrows, movement = column(rollout, "lane_turns"), column(rollout, "movement")
    inside = rollout.steps["junction"] > 0
    for row in np.nonzero(inside[1:] & ~inside[:-1])[0]:
        allowed, made = arrows[row], movement[row]
        if np.isfinite([allowed, made]).all() and allowed > 0 and made > 0 and not int(allowed) & int(made):
            return "leaves its lane another way than its arrow points"
    return ""


def yields_at_crosswalks(rollout: Rollout) -> str:
    """Never drives onto a crosswalk while somebody is on it or about to be."""
    away, used = column(rollout, "crosswalk_m"), column(rollout, "crosswalk_used")
    speed = rollout.steps["speed_mps"]
    enters = (away[:-1] > 0) & (away[1:] <= 0) & (used[1:] == 1) & (speed[1:] > 0.5)
    return "onto a crosswalk in use" if enters.any() else ""


def waits_where_painted(rollout: Rollout) -> str:
    """Drives into the waiting area only while it is open, and stands in it until the light frees the turn."""
    inside, may = column(rollout, "waiting_area") == 1, column(rollout, "waiting_open")
    enters = inside[1:] & ~inside[:-1]
    if not inside.any():
        return "never in the waiting area"
    if (enters & (may[1:] != 1) & (rollout.steps["light"][:-1] != LIGHTS.index("green"))).any():
        return "into the waiting area while it is closed"
    stands = inside & (rollout.steps["speed_mps"] < STANDING_MPS)
    return "" if stands.any() else "did not wait in the waiting area"
