"""Traffic rules as pure predicates over a Driven record: when a rule was broken, or which column is missing to say so.

Rule: no region stands in this file; thresholds come from the region pack. A predicate gives a Finding: rows at which the
rule was broken, with figures, and the columns without which it could not be judged somewhere. A value that is not known
is never read as harmless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.rollout import ACTOR_KINDS, LANE_KINDS, LIGHT_SHAPES, LIGHTS, LINES, STOP_RULES, TURNS
from onshore.evaluation.driven import Driven, turn_names

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Limits = Mapping[str, Any]

#: A column known for less than this share of the moments that matter leaves a rule 'not measurable'.
KNOWN_SHARE = 0.9
STANDS_MPS = 0.1
MOVES_MPS = 0.5
#: Who stands this little beyond a line (m) has stopped at it: no map knows a line better.
AT_LINE_M = 0.5
#: Moments this close (s) belong to one offence.
JOIN_S = 1.0
KMH, MPH = 1 / 3.6, 0.44704
RED, GREEN = LIGHTS.index("red"), LIGHTS.index("green")


@dataclass(frozen=True, kw_only=True)
class Broken:
    """One offence: first and last row, and the figures that show it."""

    first: int
    last: int
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Offences found, and the columns (or 'actors') that were missing where the rule was in question."""

    broken: tuple[Broken, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """The front bumper passes a stop line between `row` and the next. past_m: how far beyond it got (inf: through)."""

    row: int
    past_m: float


Predicate = Callable[[Driven, Limits], Finding]


# -- what is known -------------------------------------------------------------------------------------------------


def missing(driven: Driven, *columns: str, where: Flags | None = None) -> tuple[str, ...]:
    """Columns known for less than KNOWN_SHARE of the rows that matter; with no such rows, of all rows."""
    rows = where if where is not None and where.any() else np.ones(len(driven), np.bool_)
    return tuple(name for name in columns if not float(np.isfinite(driven[name][rows]).mean()) >= KNOWN_SHARE)


def on_street(driven: Driven) -> Flags:
    """Rows that are not inside a junction, as far as known."""
    return np.asarray(~(driven["junction"] > 0.5))


def runs(driven: Driven, mask: Flags, least_s: float, join_s: float = JOIN_S) -> list[tuple[int, int]]:
    """First and last rows of stretches of `mask`, gaps below `join_s` closed, that last at least `least_s`.

    A row stands for the time up to the next one, so a single row lasts one step.
    """
    rows = np.flatnonzero(mask)
    if len(rows) == 0:
        return []
    t_s = driven["t_s"]
    step_s = float(np.median(np.diff(t_s))) if len(t_s) > 1 else 0.0
    breaks = np.flatnonzero(np.diff(t_s[rows]) > max(join_s, 1.5 * step_s))
    firsts, lasts = rows[np.r_[0, breaks + 1]], rows[np.r_[breaks, len(rows) - 1]]
    return [
        (int(first), int(last))
        for first, last in zip(firsts, lasts, strict=True)
        if t_s[last] - t_s[first] + step_s >= least_s - 1e-6
    ]


def crossings(driven: Driven) -> list[Crossing]:
    """Every time the front bumper passes a stop line, from `stop_line_m`, else from the light's distance.

    The distance turns negative, or, as the car moves, jumps to the next line or ends when it was about to reach zero.
    """
    line = _to_line(driven)
    moves = _faster(driven, STANDS_MPS)
    found = []
    for row in np.flatnonzero(line[:-1] >= 0.0):
        if line[row + 1] < 0.0:
            found.append(Crossing(row=int(row), past_m=_past(driven, line, int(row) + 1)))
        elif _lost(driven, line, int(row)) and moves[row : row + 2].any():
            found.append(Crossing(row=int(row), past_m=math.inf))
    return found


def missing_at_lines(driven: Driven) -> tuple[str, ...]:
    """What crossings need: the speed before lines, and wherever the distance to one is lost near it."""
    line = _to_line(driven)
    lost = [row for row in np.flatnonzero(line[:-1] >= 0.0) if _lost(driven, line, int(row))]
    unknown = any(not np.isfinite(driven["speed_mps"][row : row + 2]).any() for row in lost)
    return ("speed_mps",) if unknown else missing(driven, "speed_mps", where=_before_lines(driven))


def _to_line(driven: Driven) -> Floats:
    line = driven["stop_line_m"]
    return line if np.isfinite(line).any() else driven["light_distance_m"]


def _lost(driven: Driven, line: Floats, row: int) -> bool:
    """Whether the distance to a line that was about to be reached is another line's, or nothing, in the next row."""
    reach_m = max(1.5, float(np.nan_to_num(driven["speed_mps"][row])) * 0.3)
    return bool(line[row] <= reach_m and not line[row + 1] <= line[row] + 3.0)


def _faster(driven: Driven, mps: float) -> Flags:
    """Rows with a speed above this, as far as known."""
    return np.asarray(driven["speed_mps"] > mps)


def _past(driven: Driven, line: Floats, row: int) -> float:
    """How far beyond the line the bumper got before it came back, the line was left behind, or it stood until not red."""
    furthest, stood = 0.0, False
    while row < len(line) and line[row] < 0.0:
        stood = stood or bool(driven["speed_mps"][row] < STANDS_MPS)
        if stood and driven["light"][row] != RED:
            return furthest
        furthest, row = max(furthest, -float(line[row])), row + 1
    return math.inf if row < len(line) and not line[row] <= 3.0 else furthest


def conflicts(
    driven: Driven, row: int, gap_s: float, *, oncoming: bool = False, within_s: float = 5.0
) -> Iterator[Any]:
    """Road users of `row` whose way the ego then takes: they would be where it was less than `gap_s` after it.

    Each is moved on at the speed and heading it has in `row`; the ego goes where it went. Users within 30 degrees of
    the ego's heading are not crossed; `oncoming` asks for more than 120.
    """
    if driven.actors is None:
        return
    users = driven.actors.at(row)
    t_s = driven["t_s"] - driven["t_s"][row]
    ahead = (t_s >= 0) & (t_s <= within_s)
    reach_m = driven.geometry.axle_to_centre_m
    x = driven["x_m"][ahead] + np.cos(driven["yaw_rad"][ahead]) * reach_m
    y = driven["y_m"][ahead] + np.sin(driven["yaw_rad"][ahead]) * reach_m
    for index in range(len(users["id"])):
        speed, yaw = float(users["speed_mps"][index]), float(users["yaw_rad"][index])
        turned = abs(math.remainder(yaw - float(driven["yaw_rad"][row]), 2 * math.pi))
        if speed < 1.0 or turned < math.radians(120.0 if oncoming else 30.0):
            continue
        to_x, to_y = x - users["x_m"][index], y - users["y_m"][index]
        along = to_x * math.cos(yaw) + to_y * math.sin(yaw) - float(users["length_m"][index]) / 2
        aside = np.abs(-to_x * math.sin(yaw) + to_y * math.cos(yaw))
        near = aside <= (driven.geometry.width_m + float(users["width_m"][index])) / 2 + 0.3
        later_s = along / speed - t_s[ahead]
        hit = near & (along > 0) & (later_s >= 0) & (later_s < gap_s)
        if hit.any():
            yield {
                "id": int(users["id"][index]),
                "kind": ACTOR_KINDS[int(users["kind"][index])],
                "gap_s": round(float(later_s[hit].min()), 2),
            }


def movement_at(driven: Driven, row: int) -> float:
    """The TURNS bit of the movement made at the junction ahead of `row`: the route's, else by the heading behind it.

    NaN where neither is known throughout.
    """
    if math.isfinite(driven["movement"][row]):
        return float(driven["movement"][row])
    inside = driven["junction"][row + 1 :] > 0.5
    if not inside.any():
        return math.nan
    enter = int(np.argmax(inside))
    left = np.flatnonzero(~inside[enter:])
    if len(left) == 0:
        return math.nan
    after = row + 1 + enter + int(left[0])
    turned = math.degrees(float(np.sum(np.diff(np.unwrap(driven["yaw_rad"][row : after + 1])))))
    if not math.isfinite(turned):
        return math.nan
    if abs(turned) < 35.0:
        return float(TURNS["straight"])
    return float(TURNS["u_turn"] if turned > 150.0 else TURNS["left"] if turned > 0 else TURNS["right"])


# -- lanes and lines -----------------------------------------------------------------------------------------------


def closed_lane(driven: Driven, limits: Limits) -> Finding:
    """In a lane of `kinds` that a car may not use now, for `least_s`.

    `lane_open` decides; where it is not known, the pack's `hours` and `clock_h`, and lanes without hours are never open.
    Within `turn_exempt_m` of the stop line a right turn may be prepared from there. Standing is not driving there.
    """
    kinds = [LANE_KINDS.index(kind) for kind in limits["kinds"]]
    there = np.isin(driven["lane_kind"], kinds)
    lacks = missing(driven, "lane_kind", where=on_street(driven))
    closed = np.where(driven["lane_open"] > 0.5, 0.0, np.where(driven["lane_open"] <= 0.5, 1.0, np.nan))
    by_hours = _closed_by_hours(driven, limits.get("hours"))
    closed = np.where(np.isfinite(closed), closed, by_hours)
    if (there & ~np.isfinite(closed)).any():
        lacks += ("lane_open", "clock_h")
    barred = there & (closed > 0.5) & on_street(driven)
    lacks += missing(driven, "speed_mps", where=barred)
    mask = barred & _faster(driven, MOVES_MPS)
    exempt_m = float(limits.get("turn_exempt_m", 0.0))
    if exempt_m:
        mask &= ~((driven["movement"] == TURNS["right"]) & (driven["stop_line_m"] <= exempt_m))
    found = [
        Broken(first=first, last=last, figures={"metres": _metres(driven, first, last)})
        for first, last in runs(driven, mask, float(limits["least_s"]))
    ]
    return Finding(broken=tuple(found), missing=lacks)


def _closed_by_hours(driven: Driven, hours: Any) -> Floats:
    """1 within the closed hours, 0 outside, NaN without a clock; a lane without hours is closed all day."""
    if hours is None:
        return np.ones(len(driven))
    clock = driven["clock_h"]
    inside = np.zeros(len(driven), np.bool_)
    for begin, end in hours:
        inside |= (clock >= begin) & (clock < end)
    return np.where(np.isfinite(clock), inside.astype(np.float64), np.nan)


def line_crossing(driven: Driven, limits: Limits) -> Finding:
    """Over a marking of `lines` by more than `over_m` on either side, for `least_s`, outside junctions."""
    kinds = [LINES.index(line) for line in limits["lines"]]
    street = on_street(driven) & (driven["on_road"] != 0)
    lacks = missing(driven, "line_left", "line_right", where=street)
    over = np.zeros(len(driven))
    for side in ("left", "right"):
        barred = np.isin(driven[f"line_{side}"], kinds)
        if (barred & street & ~np.isfinite(driven[f"line_{side}_m"])).any():
            lacks += (f"line_{side}_m",)
        over = np.fmax(over, np.where(barred, -driven[f"line_{side}_m"], 0.0))
    crossed = street & (over > float(limits["over_m"]))
    lacks += missing(driven, "speed_mps", where=crossed)
    mask = crossed & _faster(driven, MOVES_MPS)
    found = [
        Broken(first=first, last=last, figures={"over_m": round(float(over[first : last + 1].max()), 2)})
        for first, last in runs(driven, mask, float(limits["least_s"]))
    ]
    return Finding(broken=tuple(found), missing=lacks)


def turn_lane(driven: Driven, limits: Limits) -> Finding:
    """A movement that the lane's arrows do not allow, at the stop line. `variable` asks for lanes whose arrows changed.

    What counts is what the arrows said when the front bumper passed the line. U-turns have a rule of their own.
    """
    lacks: tuple[str, ...] = missing(driven, "lane_turns", where=_before_lines(driven)) + missing_at_lines(driven)
    found = []
    for crossing in crossings(driven):
        row = crossing.row
        allowed, movement = driven["lane_turns"][row], movement_at(driven, row)
        if allowed == 0 or movement == TURNS["u_turn"] or crossing.past_m < 2.0:
            continue
        if not (math.isfinite(allowed) and math.isfinite(movement)):
            lacks += tuple(name for name, value in (("lane_turns", allowed), ("movement", movement)) if value != value)
        elif not int(allowed) & int(movement) and _variable(driven, row) == bool(limits.get("variable", False)):
            figures = {"lane": turn_names(allowed), "movement": turn_names(movement)}
            found.append(Broken(first=row, last=row + 1, figures=figures))
    return Finding(broken=tuple(found), missing=lacks)


def _before_lines(driven: Driven) -> Flags:
    """Rows within 20 m before a stop line."""
    line = np.where(np.isfinite(driven["stop_line_m"]), driven["stop_line_m"], driven["light_distance_m"])
    return np.asarray((line >= 0.0) & (line <= 20.0))


def _variable(driven: Driven, row: int) -> bool:
    """Whether the arrows of the lane at `row` changed while the ego came up to the line in it."""
    lane, first = driven["lane_index"][row], row
    while first > 0 and driven["lane_index"][first - 1] == lane and not driven["junction"][first - 1] > 0.5:
        first -= 1
    shown = driven["lane_turns"][first : row + 1]
    return len(np.unique(shown[shown > 0])) > 1


def wrong_way(driven: Driven, limits: Limits) -> Finding:
    """Against the lane's direction for `least_s`, outside junctions, on the move."""
    against = (driven["oncoming"] > 0.5) & on_street(driven)
    mask = against & _faster(driven, MOVES_MPS)
    found = [
        Broken(first=first, last=last, figures={"metres": _metres(driven, first, last)})
        for first, last in runs(driven, mask, float(limits["least_s"]))
    ]
    return Finding(
        broken=tuple(found), missing=missing(driven, "oncoming") + missing(driven, "speed_mps", where=against)
    )


def u_turn(driven: Driven, limits: Limits) -> Finding:
    """A turn of 150 degrees within 15 s and 60 m, from a lane whose arrows lack it or over a line of `lines`."""
    lacks: tuple[str, ...] = missing(driven, "yaw_rad")
    found = []
    for first, last in _u_turns(driven):
        start = first
        while start > 0 and driven["junction"][start] > 0.5:
            start -= 1
        allowed, line = driven["lane_turns"][start], driven["line_left"][start]
        at_junction = bool((driven["junction"][first : last + 1] > 0.5).any())
        figures: dict[str, Any] = {"at_junction": at_junction}
        if at_junction and allowed > 0 and not int(allowed) & TURNS["u_turn"]:
            found.append(Broken(first=first, last=last, figures={**figures, "lane": turn_names(allowed)}))
        elif not at_junction and line in [LINES.index(name) for name in limits["lines"]]:
            found.append(Broken(first=first, last=last, figures={**figures, "line": LINES[int(line)]}))
        elif not math.isfinite(allowed if at_junction else line):
            lacks += ("lane_turns" if at_junction else "line_left",)
    return Finding(broken=tuple(found), missing=lacks)


def _u_turns(driven: Driven) -> list[tuple[int, int]]:
    t_s, known = driven["t_s"], np.isfinite(driven["yaw_rad"])
    if not known.any():
        return []
    yaw = np.interp(t_s, t_s[known], np.unwrap(driven["yaw_rad"][known]))
    along = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(driven["x_m"]), np.diff(driven["y_m"])))])
    found: list[tuple[int, int]] = []
    floor = 0
    for last in range(1, len(yaw)):
        back = np.flatnonzero(np.abs(yaw[floor:last] - yaw[last]) >= math.radians(150.0))
        if len(back) == 0:
            continue
        first = floor + int(back[-1])
        if t_s[last] - t_s[first] <= 15.0 and along[last] - along[first] <= 60.0:
            found.append((first, last))
        floor = last
    return found


# -- lights, lines to stop at, giving way --------------------------------------------------------------------------


def red_light(driven: Driven, limits: Limits) -> Finding:
    """Past the stop line by `past_m` although the light was red when the front bumper reached it.

    `shapes`: which lights this rule is about. A right turn is left to the rules about turning on red unless
    `right_turns` is set, so without it the movement must be known. Where `turn_on_red` is not known, only a movement that
    may never do so can be judged.
    """
    shapes = [LIGHT_SHAPES.index(shape) for shape in limits["shapes"]]
    temporary = "temporary" in limits["shapes"]
    lacks = missing(driven, "light_shape") if temporary else ()
    lacks += missing(driven, "light") + missing_at_lines(driven)
    found = []
    for crossing in _red_crossings(driven):
        row, shape = crossing.row, driven["light_shape"][crossing.row]
        if shape not in shapes and (math.isfinite(shape) or temporary):
            continue
        if crossing.past_m < float(limits["past_m"]):
            continue
        movement, may = movement_at(driven, row), driven["turn_on_red"][row]
        right = movement == TURNS["right"]
        if may > 0.5 or (right and may <= 0.5 and not limits.get("right_turns", False)):
            continue
        if not math.isfinite(may) and (right or not math.isfinite(movement)):
            lacks += ("turn_on_red",)
            continue
        if not math.isfinite(movement) and not limits.get("right_turns", False):
            lacks += ("movement",)
            continue
        found.append(Broken(first=row, last=row + 1, figures=_at_line(driven, row)))
    return Finding(broken=tuple(found), missing=lacks)


def _red_crossings(driven: Driven) -> list[Crossing]:
    return [crossing for crossing in crossings(driven) if driven["light"][crossing.row] == RED]


def _at_line(driven: Driven, row: int) -> dict[str, Any]:
    return {"speed_mps": round(float(driven["speed_mps"][row]), 2)}


def right_on_red_forbidden(driven: Driven, limits: Limits) -> Finding:
    """A right turn past a red light where turning on red is forbidden."""
    lacks = missing(driven, "light") + missing_at_lines(driven)
    found = []
    for crossing in _red_crossings(driven):
        row = crossing.row
        movement, may = movement_at(driven, row), driven["turn_on_red"][row]
        temporary = driven["light_shape"][row] == LIGHT_SHAPES.index("temporary")
        if crossing.past_m < float(limits["past_m"]) or may > 0.5 or temporary:
            continue
        if math.isfinite(movement) and movement != TURNS["right"]:
            continue
        if not (math.isfinite(may) and math.isfinite(movement)):
            lacks += tuple(name for name, value in (("movement", movement), ("turn_on_red", may)) if value != value)
            continue
        found.append(Broken(first=row, last=row + 1, figures=_at_line(driven, row)))
    return Finding(broken=tuple(found), missing=lacks)


def turn_on_red(driven: Driven, limits: Limits) -> Finding:
    """A permitted turn on red without a stop first (`stop_first`), or into the way of somebody (`gap_s`)."""
    lacks = missing(driven, "light") + missing_at_lines(driven)
    found = []
    for crossing in _red_crossings(driven):
        row = crossing.row
        may = driven["turn_on_red"][row]
        if crossing.past_m < float(limits["past_m"]) or may <= 0.5:
            continue
        if not math.isfinite(may):
            lacks += ("turn_on_red",) if movement_at(driven, row) in (TURNS["right"],) else ()
            continue
        slowest = _slowest_before(driven, row, float(limits.get("before_m", 8.0)), float(limits["stop_mps"]))
        if limits["stop_first"] and slowest >= float(limits["stop_mps"]):
            found.append(Broken(first=row, last=row + 1, figures={"slowest_mps": round(slowest, 2)}))
        elif limits["stop_first"] and not math.isfinite(slowest):
            lacks += ("speed_mps",)
        elif driven.actors is None:
            lacks += ("actors",)
        else:
            crossed = next(conflicts(driven, row, float(limits["gap_s"])), None)
            found += [Broken(first=row, last=row + 1, figures=crossed)] if crossed else []
    return Finding(broken=tuple(found), missing=lacks)


def stop_sign(driven: Driven, limits: Limits) -> Finding:
    """A stop line with a stop sign passed without standing within `before_m` ahead of it."""
    lacks = missing(driven, "stop_rule") + missing_at_lines(driven)
    found = []
    for crossing in crossings(driven):
        if driven["stop_rule"][crossing.row] == STOP_RULES.index("stop_sign"):
            slowest = _slowest_before(driven, crossing.row, float(limits["before_m"]), float(limits["stop_mps"]))
            if not math.isfinite(slowest):
                lacks += ("speed_mps",)
            elif slowest >= float(limits["stop_mps"]):
                figures = {"slowest_mps": round(slowest, 2)}
                found.append(Broken(first=crossing.row, last=crossing.row + 1, figures=figures))
    return Finding(broken=tuple(found), missing=lacks)


def _slowest_before(driven: Driven, row: int, before_m: float, stop_mps: float) -> float:
    """The least speed while the front bumper was within `before_m` before the line it passes after `row`, or AT_LINE_M beyond.

    NaN where it is not known at every moment and was not seen below `stop_mps`: the car may have stood then.
    """
    line = np.where(np.isfinite(driven["stop_line_m"]), driven["stop_line_m"], driven["light_distance_m"])
    first = row
    while first > 0 and line[first - 1] >= line[first] - 1e-6 and line[first - 1] <= before_m:
        first -= 1
    beyond = line[row + 1 :]
    at_line = int(np.argmin(np.append((beyond < 0.0) & (beyond >= -AT_LINE_M), False)))
    speeds = driven["speed_mps"][first : row + 1 + at_line]
    slowest = float(np.fmin.reduce(speeds))
    return slowest if slowest < stop_mps or np.isfinite(speeds).all() else math.nan


def give_way(driven: Driven, limits: Limits) -> Finding:
    """A give-way line passed into the way of somebody who would have been there within `gap_s`."""
    lacks = missing(driven, "stop_rule") + missing_at_lines(driven)
    found = []
    for crossing in crossings(driven):
        if driven["stop_rule"][crossing.row] != STOP_RULES.index("give_way"):
            continue
        if driven.actors is None:
            lacks += ("actors",)
            continue
        crossed = next(conflicts(driven, crossing.row, float(limits["gap_s"])), None)
        found += [Broken(first=crossing.row, last=crossing.row + 1, figures=crossed)] if crossed else []
    return Finding(broken=tuple(found), missing=lacks)


def left_turn_yield(driven: Driven, limits: Limits) -> Finding:
    """A left or U-turn on a round green light, or without a light, in front of somebody who comes the other way."""
    lacks: tuple[str, ...] = missing(driven, "light", "junction")
    lacks += missing(driven, "speed_mps", where=driven["junction"] > 0.5)
    arrow = LIGHT_SHAPES.index("arrow")
    found = []
    for row in _entries(driven):
        movement = movement_at(driven, row)
        if not math.isfinite(movement):
            lacks += ("movement",)
            continue
        if movement not in (TURNS["left"], TURNS["u_turn"]) or driven["light"][row] == RED:
            continue
        if driven["light"][row] == GREEN and driven["light_shape"][row] == arrow:
            continue
        if driven["light"][row] == GREEN and not math.isfinite(driven["light_shape"][row]):
            lacks += ("light_shape",)
        elif driven.actors is None:
            lacks += ("actors",)
        else:
            crossed = _conflict_inside(driven, row, float(limits["gap_s"]))
            found += [Broken(first=row, last=row + 1, figures=crossed)] if crossed else []
    return Finding(broken=tuple(found), missing=lacks)


def _entries(driven: Driven) -> list[int]:
    """Last rows before the ego enters a junction."""
    inside = driven["junction"] > 0.5
    return [int(row) for row in np.flatnonzero(~inside[:-1] & inside[1:])]


def _conflict_inside(driven: Driven, row: int, gap_s: float) -> dict[str, Any] | None:
    """The first oncoming user whose way is taken, judged from each moment in the junction at which the ego goes on."""
    inside = driven["junction"] > 0.5
    heading = float(driven["yaw_rad"][row])
    at = row + 1
    while at < len(driven) and inside[at]:
        straight = abs(math.remainder(float(driven["yaw_rad"][at]) - heading, 2 * math.pi)) < math.radians(45.0)
        if not straight:
            return None
        if driven["speed_mps"][at] > MOVES_MPS:
            crossed: dict[str, Any] | None = next(conflicts(driven, at, gap_s, oncoming=True), None)
            if crossed:
                return crossed
        at += 1
    return None


def crosswalk_yield(driven: Driven, limits: Limits) -> Finding:
    """Onto a crosswalk faster than `speed_mps` while somebody uses it or is about to."""
    at, found = driven["crosswalk_m"], []
    lacks = missing(driven, "crosswalk_used") + missing(driven, "speed_mps", where=at < 0.0)
    for row in np.flatnonzero((at[:-1] >= 0.0) & (at[1:] < 0.0)) + 1:
        used = driven["crosswalk_used"][row]
        if not math.isfinite(used):
            lacks += ("crosswalk_used",)
        elif used > 0.5 and not math.isfinite(driven["speed_mps"][row]):
            lacks += ("speed_mps",)
        elif used > 0.5 and driven["speed_mps"][row] > float(limits["speed_mps"]):
            found.append(Broken(first=int(row), last=int(row), figures=_at_line(driven, int(row))))
    return Finding(broken=tuple(found), missing=lacks)


def waiting_area_closed(driven: Driven, limits: Limits) -> Finding:
    """Into a left-turn waiting area while it may not be entered."""
    lacks = missing(driven, "waiting_area")
    there, found = driven["waiting_area"], []
    for row in np.flatnonzero((there[:-1] <= 0.5) & (there[1:] > 0.5)) + 1:
        if not math.isfinite(driven["waiting_open"][row]):
            lacks += ("waiting_open",)
        elif driven["waiting_open"][row] <= 0.5:
            found.append(Broken(first=int(row), last=int(row), figures=_at_line(driven, int(row))))
    return Finding(broken=tuple(found), missing=lacks)


def waiting_area_left(driven: Driven, limits: Limits) -> Finding:
    """Out of a left-turn waiting area into the junction while the light of the movement is red."""
    lacks = missing(driven, "waiting_area", "light")
    there, found = driven["waiting_area"], []
    for row in np.flatnonzero((there[:-1] > 0.5) & (there[1:] <= 0.5)):
        if not math.isfinite(driven["light"][row]):
            lacks += ("light",)
        elif driven["light"][row] == RED and driven["junction"][row + 1] > 0.5:
            found.append(Broken(first=int(row), last=int(row) + 1, figures=_at_line(driven, int(row))))
    return Finding(broken=tuple(found), missing=lacks)


# -- speed, distance, standing -------------------------------------------------------------------------------------

UNITS = {"kmh": KMH, "mph": MPH}


def speeding(driven: Driven, limits: Limits) -> Finding:
    """Over the limit by `from` or more, and never by `below` or more, held for `least_s`.

    unit: `share` of the limit, `kmh` or `mph`. A stretch counts in the highest tier that was held.
    """
    limit, speed = driven["speed_limit_mps"], driven["speed_mps"]
    unit = limits["unit"]
    over = speed / limit - 1.0 if unit == "share" else (speed - limit) / UNITS[unit]
    least_s, below = float(limits["least_s"]), float(limits.get("below", math.inf))
    higher = runs(driven, over >= below - 1e-9, least_s)
    found = []
    for first, last in runs(driven, over >= float(limits["from"]) - 1e-9, least_s):
        if any(first <= high_last and high_first <= last for high_first, high_last in higher):
            continue
        top = first + int(np.nanargmax(over[first : last + 1]))
        figures = {"speed_mps": round(float(speed[top]), 2), "limit_mps": round(float(limit[top]), 2)}
        found.append(Broken(first=first, last=last, figures=figures))
    return Finding(broken=tuple(found), missing=missing(driven, "speed_limit_mps", "speed_mps"))


def tailgating(driven: Driven, limits: Limits) -> Finding:
    """Closer behind a road user than `gap_s` of travel for `least_s`, faster than `above_mps`."""
    if driven.actors is None:
        return Finding(missing=("actors",))
    gaps = np.array([_gap_ahead(driven, row) for row in range(len(driven))])
    speed = driven["speed_mps"]
    with np.errstate(divide="ignore", invalid="ignore"):
        time_gap = gaps / speed
    mask = (speed > float(limits["above_mps"])) & (time_gap < float(limits["gap_s"])) & on_street(driven)
    found = [
        Broken(first=first, last=last, figures={"gap_s": round(float(np.nanmin(time_gap[first : last + 1])), 2)})
        for first, last in runs(driven, mask, float(limits["least_s"]), join_s=0.3)
    ]
    lacks = missing(driven, "x_m", "yaw_rad") + missing(driven, "speed_mps", where=np.isfinite(gaps))
    return Finding(broken=tuple(found), missing=lacks)


def _gap_ahead(driven: Driven, row: int) -> float:
    """Metres from the front bumper to the nearest user ahead in the ego's own width that goes its way; inf without."""
    if driven.actors is None or not math.isfinite(driven["x_m"][row]):
        return math.inf
    users = driven.actors.at(row)
    yaw = float(driven["yaw_rad"][row])
    to_x, to_y = users["x_m"] - driven["x_m"][row], users["y_m"] - driven["y_m"][row]
    ahead = to_x * math.cos(yaw) + to_y * math.sin(yaw) - users["length_m"] / 2 - driven.geometry.axle_to_front_m
    aside = np.abs(-to_x * math.sin(yaw) + to_y * math.cos(yaw))
    same = np.cos(users["yaw_rad"] - yaw) > 0.7
    inside = same & (ahead > -1.0) & (aside < (driven.geometry.width_m + users["width_m"]) / 2 - 0.2)
    return float(ahead[inside].min()) if inside.any() else math.inf


def standing(driven: Driven, limits: Limits) -> Finding:
    """Standing for `least_s` on a `place`: crosswalk, junction, or beyond the line of a red light."""
    place = limits["place"]
    if place == "crosswalk":
        where, lacks = driven["crosswalk_m"] < 0.0, missing(driven, "crosswalk_used")
    elif place == "junction":
        where = (driven["junction"] > 0.5) & ~(driven["waiting_area"] > 0.5)
        lacks = missing(driven, "junction")
    else:
        line = driven["stop_line_m"]
        where = (line < -float(limits["over_m"])) & (line > -6.0) & ~(driven["waiting_area"] > 0.5)
        where &= _red_when_passed(driven)
        lacks = missing(driven, "light", "stop_rule") + missing_at_lines(driven)
    lacks += missing(driven, "speed_mps", where=where)
    mask = where & (driven["speed_mps"] < STANDS_MPS)
    found = [
        Broken(first=first, last=last, figures={"seconds": round(float(driven["t_s"][last] - driven["t_s"][first]), 1)})
        for first, last in runs(driven, mask, float(limits["least_s"]))
    ]
    return Finding(broken=tuple(found), missing=lacks)


def _red_when_passed(driven: Driven) -> Flags:
    """Rows after a line was passed on red, until the distance names another line."""
    flags = np.zeros(len(driven), np.bool_)
    for crossing in _red_crossings(driven):
        row = crossing.row + 1
        while row < len(driven) and driven["stop_line_m"][row] < 0.0:
            flags[row], row = True, row + 1
    return flags


def _metres(driven: Driven, first: int, last: int) -> float:
    x, y = driven["x_m"][first : last + 1], driven["y_m"][first : last + 1]
    return round(float(np.nansum(np.hypot(np.diff(x), np.diff(y)))), 1)


#: Names under which region packs ask for predicates.
PREDICATES: dict[str, Predicate] = {
    "closed_lane": closed_lane,
    "line_crossing": line_crossing,
    "turn_lane": turn_lane,
    "wrong_way": wrong_way,
    "u_turn": u_turn,
    "red_light": red_light,
    "right_on_red_forbidden": right_on_red_forbidden,
    "turn_on_red": turn_on_red,
    "stop_sign": stop_sign,
    "give_way": give_way,
    "left_turn_yield": left_turn_yield,
    "crosswalk_yield": crosswalk_yield,
    "waiting_area_closed": waiting_area_closed,
    "waiting_area_left": waiting_area_left,
    "speeding": speeding,
    "tailgating": tailgating,
    "standing": standing,
}
