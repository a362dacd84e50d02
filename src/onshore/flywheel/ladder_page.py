"""From the ladder's records to its document, page and plots. Pure: figures in, words out.

Rule: no sentence says more than its figures: every verdict is computed, a row that was not run says so, and what cannot be
measured yet is 'not measurable'. Intervals resample worlds and training seeds; p flips the signs of worlds (see
`evaluation.statistics.crossed`).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from onshore.evaluation.statistics import Crossed, RouteKey, crossed
from onshore.flywheel import plots

Record = Mapping[str, Any]
Scores = dict[RouteKey, float]
#: Share of the expert's score that the last rung is held against, and the levels of p.
PARITY, LEVEL, STRICT = 0.85, 0.05, 0.01
FAR_HOURS = 10_000.0


def document(rows: Sequence[Record], records: Sequence[Record], settings: Record) -> dict[str, Any]:
    """Everything that the page says, as data. rows: the plan's; records: what was made of them, one for each seed."""
    ladder = _Made(rows, records, settings)
    found: dict[str, Any] = {
        "synthetic": True,
        "settings": dict(settings),
        "rows": [line for row in rows for line in ladder.lines(row)],
        "not_run": [row["name"] for row in rows if row["name"] not in ladder.by_name],
        "comparisons": ladder.comparisons(),
        "rounds": ladder.rounds(),
        "home": ladder.home(),
        "laws": [law for on in (False, True) if (law := ladder.law(on))],
        "final": ladder.final(),
        "causes": ladder.causes(),
        "devices": sorted({record.get("device", "processor") for record in records}),
    }
    _adjust(found["comparisons"])
    return {**found, "findings": _findings(found)}


def files(found: Mapping[str, Any], name: str = "ladder") -> dict[str, bytes]:
    """File name -> bytes: document, page, plots, their names beginning with `name`."""
    drawn = {
        f"{name}-minutes.svg": plots.minutes_plot(found),
        f"{name}-home.svg": plots.home_plot(found),
        f"{name}-rounds.svg": plots.ladder_rounds_plot(found),
    }
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    named = {file: svg.encode() for file, svg in drawn.items() if svg}
    return {f"{name}.json": text.encode(), f"{name}.md": page(found, sorted(named), name).encode(), **named}


class _Made:
    """The records by row and seed, and what follows from them."""

    def __init__(self, rows: Sequence[Record], records: Sequence[Record], settings: Record) -> None:
        self.rows, self.settings = {row["name"]: row for row in rows}, settings
        self.by_name: dict[str, dict[int, Record]] = {}
        for record in records:
            if record["name"] in self.rows:
                self.by_name.setdefault(record["name"], {})[record["seed"]] = record

    def scores(self, name: str, region: str = "cn") -> dict[int, Scores]:
        """seed -> (world, ego) -> driving score."""
        of_row = self.by_name.get(name, {})
        return {seed: routes_of(record[region]) for seed, record in sorted(of_row.items()) if record.get(region)}

    def lines(self, row: Record) -> list[dict[str, Any]]:
        """The rows of the score table: one for each suite that was driven; one without figures where none was."""
        made = []
        for region in ("cn", "us"):
            scores = self.scores(row["name"], region)
            if scores:
                made.append(self._line(row, region, crossed(list(scores.values()))))
        return made or [self._line(row, "cn", None)]

    def _line(self, row: Record, region: str, level: Crossed | None) -> dict[str, Any]:
        records = self._records(row["name"])
        taken = [part for record in records for part in record.get("rounds", ())]
        seeds = max(1, len(records))
        return {
            "name": row["name"],
            "suite": self.settings["suites"][region],
            "region": region,
            "kind": row["kind"],
            "way": row["way"],
            "cars": row["cars"],
            "fleet_minutes": row["minutes"],
            "rounds": row["rounds"],
            "takeovers": round(sum(part["takeovers"] for part in taken) / seeds),
            "samples": round(sum(part["samples"] for part in taken) / seeds),
            "km": round(sum(part["km"] for part in taken) / seeds, 2),
            "score": level and round(level.mean, 2),
            "low": level and _number(level.low),
            "high": level and _number(level.high),
            "worlds": level.worlds if level else 0,
            "egos": level.routes // level.worlds if level else 0,
            "seeds": level.seeds if level else 0,
        }

    # -- comparisons -----------------------------------------------------------------------------------------------------

    def compared(self, question: str, a: str, b: str, region: str = "cn") -> list[dict[str, Any]]:
        """b - a over the seeds that both have, as a list of one; empty when there is none."""
        return self._between(question, {a: self.scores(a, region)}, {b: self.scores(b, region)}, region)

    def over_levels(self, question: str, a: tuple[int, bool], b: tuple[int, bool]) -> list[dict[str, Any]]:
        """The same for two (cars, with rounds), each route's score the mean over the minutes that both have, if these are several.

        A level with fewer seeds than others waits until it has them, so that it takes none away.
        """
        pairs = [tuple(self._fleet(cars, m, on) for cars, on in (a, b)) for m in self.settings["levels"]]
        common = {pair: set.intersection(*(set(self.scores(name)) for name in pair)) for pair in pairs}
        most = max(map(len, common.values()))
        pairs = [pair for pair in pairs if common[pair] and len(common[pair]) == most]
        if len(pairs) < 2:
            return []
        first, second = ({name: self.scores(name) for name in names} for names in zip(*pairs, strict=True))
        return self._between(question, first, second)

    def _between(
        self,
        question: str,
        a: Mapping[str, dict[int, Scores]],
        b: Mapping[str, dict[int, Scores]],
        region: str = "cn",
    ) -> list[dict[str, Any]]:
        """b - a, each the mean of its rows, over the seeds that all of them have."""
        seeds = sorted(set.intersection(*(set(of_row) for of_row in (*a.values(), *b.values()))))
        if not seeds:
            return []
        before, after = ([_mean([of_row[seed] for of_row in side.values()]) for seed in seeds] for side in (a, b))
        named = {"a": self._named(list(a)), "b": self._named(list(b)), "suite": self.settings["suites"][region]}
        changed = _most_changed(self.rates(*b), self.rates(*a)) if region == "cn" else ""
        return [{"question": question, **named, **_told(crossed(after, before)), "changed": changed}]

    def _named(self, names: Sequence[str]) -> str:
        """A row's name, or that of one fleet's rows: fleet-8x5+20-on."""
        minutes = "+".join(f"{self.rows[name]['minutes']:g}" for name in names)
        own = f"{self.rows[names[0]]['minutes']:g}"
        return names[0].replace(f"x{own}", f"x{minutes}") if len(names) > 1 else names[0]

    def earned(self, name: str) -> str:
        """What a row's fleet earned on-policy, in words."""
        line = self._line(self.rows[name], "cn", None)
        return f"{line['samples']} samples of {line['takeovers']} takeovers in {line['km']:g} km"

    def comparisons(self) -> list[dict[str, Any]]:
        pairs: list[tuple[str, str, str]] = [("total gain", "base", self.final()["name"])]
        pairs += [("public video", "base", "public"), ("simulation", "base", "simulation")]
        pairs += self._about_fleets()
        for row in self.rows.values():
            if row["kind"] == "fleet+teacher":
                pairs += [("errors of the model, not the teacher", row["name"], row["like"])]
                pairs += [("the teacher alone", row["like"].removesuffix("-on"), row["name"])]
            if row["kind"] == "scratch":
                pairs.append(("base against scratch", row["name"], self._fleet(row["cars"], row["minutes"], False)))
            if row["select"] and row["select"] != "random":
                other = next((r["name"] for r in self.rows.values() if r["select"] == "random"), "")
                pairs.append(("active selection", other, row["name"]))
            if row["look"]:
                shown = next(r["name"] for r in self.rows.values() if r["look"])
                pairs += [("learning with redaction", shown, row["name"])] if row["name"] != shown else []
            if row["long"] and row["way"] == "full":
                pairs += self._about_long(row)
            if row["way"] != "full":
                pairs.append((f"adapting by {row['way'].replace('_', ' ')}", row["like"], row["name"]))
        found = [one for pair in pairs for one in self.compared(*pair)]
        for one in found:
            if one["question"] in ("more cars", "errors of the model, not the teacher"):
                one["earned"] = f"{self.earned(one['b'])} against {self.earned(one['a'])}"
        return found + self._over_all_minutes()

    def _over_all_minutes(self) -> list[dict[str, Any]]:
        """What a single level of minutes, with its few networks, may not show."""
        cars = self._cars()
        found = [one for n in cars for one in self.over_levels("on-policy, all minutes", (n, False), (n, True))]
        steps = [(on, a, b) for on in (True, False) for a, b in itertools.combinations(cars, 2)]
        for on, a, b in steps:
            question = "more cars, all minutes" if on else "more cars' logs, all minutes"
            found += self.over_levels(question, (a, on), (b, on))
        return found

    def _about_fleets(self) -> list[tuple[str, str, str]]:
        levels, pairs = self.settings["levels"], []
        name, cars, some = self._fleet, self._cars(), self._some_cars()
        pairs.append(("fleet above public video", "public", name(some, levels[1], False)))
        pairs.append(("fleet above simulation", "simulation", name(some, levels[1], True)))
        for n in cars:
            pairs += [("on-policy above logs alone", name(n, m, False), name(n, m, True)) for m in levels]
            for on in (False, True):
                more = itertools.pairwise(levels)
                pairs += [("more minutes", name(n, a, on), name(n, b, on)) for a, b in more]
        steps = [*itertools.pairwise(cars), *([(cars[0], cars[-1])] if len(cars) > 2 else [])]
        return pairs + [("more cars", name(a, m, True), name(b, m, True)) for m in levels for a, b in steps]

    def _about_long(self, row: Record) -> list[tuple[str, str, str]]:
        """A long row against the one of fewer steps, and long rounds against long logs."""
        pairs = [("more steps", self._fleet(row["cars"], row["minutes"], row["rounds"] > 0), row["name"])]
        logs = row["name"].removesuffix("-on")
        return pairs + ([("on-policy above logs alone", logs, row["name"])] if row["rounds"] else [])

    def _fleet(self, cars: int, minutes: float, on_policy: bool) -> str:
        for row in self.rows.values():
            kind = "fleet+on-policy" if on_policy else "fleet"
            plain = row["kind"] == kind and row["way"] == "full" and not (row["long"] or row["select"] or row["look"])
            if plain and (row["cars"], row["minutes"]) == (cars, minutes):
                return str(row["name"])
        return ""

    # -- further tables --------------------------------------------------------------------------------------------------

    def final(self) -> dict[str, Any]:
        """The rung that counts as the end of the ladder: the longest that is there, chosen by its plan and not by its score."""
        there = [r for r in self.rows.values() if r["kind"] == "fleet+on-policy" and r["way"] == "full"]
        there = [row for row in there if row["name"] in self.by_name]
        if not there:
            return {"name": "", "share_of_expert": None}
        last = max(there, key=lambda row: (row["long"], row["minutes"], row["cars"]))
        mine, expert = self.scores(last["name"]), self.scores("expert")
        share = None
        if expert:
            share = crossed(list(mine.values())).mean / max(crossed(list(expert.values())).mean, 1e-9)
        return {"name": last["name"], "share_of_expert": None if share is None else round(share, 4)}

    def rounds(self) -> list[dict[str, Any]]:
        """Per row whose every round drove the suite: level of each round and its change over the one before (base first)."""
        found = []
        for name, of_row in self.by_name.items():
            if not self.rows[name]["each_round"]:
                continue
            before = self.scores("base")
            for number in range(1, self.rows[name]["rounds"] + 1):
                now = {seed: scores for seed, record in of_row.items() if (scores := _round_scores(record, number))}
                seeds = sorted(set(now) & set(before))
                if not seeds:
                    break
                level = crossed([now[seed] for seed in seeds])
                change = crossed([now[seed] for seed in seeds], [before[seed] for seed in seeds])
                changed = _most_changed(self.round_rates(name, number), self.round_rates(name, number - 1))
                found.append(
                    {"row": name, "round": number, **_leveled(level), "change": _told(change), "changed": changed}
                )
                before = now
        return found

    def home(self) -> list[dict[str, Any]]:
        """What a row gained here and lost at home, both over the base."""
        found = []
        for name in self.by_name:
            if name in ("base", "expert", "stop", "constant-speed"):
                continue
            here, there = self.compared("here", "base", name), self.compared("home", "base", name, "us")
            if here and there:
                way = self.rows[name]["way"]
                found.append({"name": name, "way": way, "gained": here[0], "kept": there[0]})
        return found

    def law(self, on_policy: bool) -> dict[str, Any] | None:
        """The law of score against minutes: fitted below the last level, checked by it; and where it reaches parity."""
        some = self._some_cars()
        points = []
        for minutes in self.settings["levels"]:
            scores = self.scores(self._fleet(some, minutes, on_policy))
            if scores:
                level = crossed(list(scores.values()))
                points.append({"minutes": minutes, **_leveled(level)})
        most = self.settings["levels"][-1]
        below = [point for point in points if point["minutes"] < most]
        if len(below) < 3:
            return None
        fitted = fit([p["minutes"] for p in below], [p["score"] for p in below])
        expert = self.scores("expert")
        target = PARITY * crossed(list(expert.values())).mean if expert else None
        last = next((point for point in points if point["minutes"] == most), None)
        return {
            "on_policy": on_policy,
            "cars": some,
            "points": points,
            "law": fitted,
            "curve": [[m, round(predict(fitted, m), 2)] for m in _ahead(points[0]["minutes"], most)],
            "next_minutes": most,
            "predicted": round(predict(fitted, most), 2),
            "measured": last and last["score"],
            "inside": last and last["low"] is not None and _inside(predict(fitted, most), last),
            "target": target and round(target, 2),
            "hours_to_parity": target and hours_to(fitted, target),
        }

    def _cars(self) -> list[int]:
        """Sizes of fleets, rising."""
        return sorted({row["cars"] for row in self.rows.values() if row["kind"] in ("fleet", "fleet+on-policy")})

    def _some_cars(self) -> int:
        """The fleet size in the middle."""
        cars = self._cars() or [0]
        return int(cars[len(cars) // 2])

    def causes(self) -> list[dict[str, Any]]:
        """What costs points: infractions a route of every row that was driven."""
        return [{"name": name, "rates": rates} for name in self.rows if (rates := self.rates(name))]

    def rates(self, *names: str) -> dict[str, float]:
        """Infraction -> how many a route, mean over seeds, and over the rows where several are named."""
        records = [record for name in names for record in self._records(name)]
        return _mean_rates([driven["rates"] for record in records if (driven := record.get("cn"))])

    def round_rates(self, name: str, number: int) -> dict[str, float]:
        """The same of a row's round: the base's before the first, the row's own after the last, none of records without."""
        if number in (0, self.rows[name]["rounds"]):
            return self.rates(name if number else "base")
        parts = [record["rounds"][number - 1] for record in self._records(name)]
        return _mean_rates([part["rates"] for part in parts if "rates" in part])

    def _records(self, name: str) -> list[Record]:
        return list(self.by_name.get(name, {}).values())


def _mean_rates(rates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    kinds = sorted({kind for one in rates for kind in one})
    return {kind: round(sum(one.get(kind, 0.0) for one in rates) / len(rates), 3) for kind in kinds}


def _mean(rows: Sequence[Scores]) -> Scores:
    """Route by route."""
    return {route: sum(scores[route] for scores in rows) / len(rows) for route in rows[0]}


def routes_of(driven: Record) -> Scores:
    return {(str(world), int(ego)): float(score) for world, ego, score in driven["routes"]}


def _round_scores(record: Record, number: int) -> Scores | None:
    """A round's routes; the last round's are the row's own."""
    rounds = record.get("rounds", [])
    if number == len(rounds):
        return routes_of(record["cn"])
    return routes_of(rounds[number - 1]) if number < len(rounds) and "routes" in rounds[number - 1] else None


def _most_changed(now: Mapping[str, float], before: Mapping[str, float], most: int = 2) -> str:
    """The infractions whose rate changed most, in words; empty where either side is not known."""
    if not (now and before):
        return ""
    change = {k: now.get(k, 0.0) - before.get(k, 0.0) for k in sorted({*now, *before}) if not k.endswith("_pct")}
    return _rates_words(sorted((k for k in change if change[k]), key=lambda k: -abs(change[k]))[:most], now, before)


def _rates_words(kinds: Sequence[str], now: Mapping[str, float], against: Mapping[str, float]) -> str:
    return ", ".join(
        f"{kind.replace('_', ' ')} {now.get(kind, 0.0):.2f} against {against.get(kind, 0.0):.2f} a route"
        for kind in kinds
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)


def _leveled(level: Crossed) -> dict[str, Any]:
    return {
        "score": round(level.mean, 2),
        "low": _number(level.low),
        "high": _number(level.high),
        "seeds": level.seeds,
        "worlds": level.worlds,
    }


def _told(change: Crossed) -> dict[str, Any]:
    plain = asdict(change)
    named = {
        "difference": round(plain.pop("mean"), 2),
        "low": _number(plain.pop("low")),
        "high": _number(plain.pop("high")),
    }
    rounded = {
        name: None if plain[name] is None else round(plain[name], digits)
        for name, digits in (("p", 6), ("detectable", 2))
    }
    return {**named, **plain, **rounded}


def _inside(value: float, level: Record) -> bool:
    return bool(level["low"] <= value <= level["high"])


def _adjust(comparisons: list[dict[str, Any]]) -> None:
    """Holm's step-down p over all comparisons of the table (Holm 1979); steps from round to round are not among them."""
    ordered = sorted((one for one in comparisons if one["p"] is not None), key=lambda one: one["p"])
    reached = 0.0
    for place, one in enumerate(ordered):
        reached = max(reached, min(1.0, one["p"] * (len(ordered) - place)))
        one["p_holm"] = round(reached, 6)


# -- laws --------------------------------------------------------------------------------------------------------------


def fit(minutes: Sequence[float], scores: Sequence[float]) -> dict[str, Any]:
    """The better of two laws by squared error: score = a + b ln m, and 100 - score = a m^-b."""
    m, s = np.log(np.asarray(minutes, np.float64)), np.asarray(scores, np.float64)
    slope, level = np.polyfit(m, s, 1)
    laws = [{"kind": "log", "a": float(level), "b": float(slope)}]
    if bool((s < 100).all()):
        slope, level = np.polyfit(m, np.log(100 - s), 1)
        laws.append({"kind": "power", "a": float(np.exp(level)), "b": float(-slope)})
    off = [sum((predict(law, x) - y) ** 2 for x, y in zip(minutes, scores, strict=True)) for law in laws]
    best = int(np.argmin(off))
    return {**laws[best], "error": round(math.sqrt(off[best] / len(scores)), 3)}


def predict(law: Record, minutes: float) -> float:
    """The law's score at so many minutes."""
    if law["kind"] == "log":
        return float(law["a"] + law["b"] * math.log(minutes))
    return float(100 - law["a"] * minutes ** -law["b"])


def _ahead(first: float, last: float) -> list[float]:
    """From the first level to twice the last one."""
    return [round(float(m), 3) for m in np.geomspace(first, 2 * last, 12)]


def hours_to(law: Record, target: float) -> float | None:
    """Fleet hours at which the law reaches a score; None when it never does, or not within FAR_HOURS."""
    if law["b"] <= 0 or target >= 100:
        return None
    if law["kind"] == "log":
        exponent = (target - law["a"]) / law["b"]
    else:
        exponent = math.log(law["a"] / (100 - target)) / law["b"]
    return round(math.exp(exponent) / 60, 2) if exponent < math.log(FAR_HOURS * 60) else None


# -- words -------------------------------------------------------------------------------------------------------------


def _findings(found: Mapping[str, Any]) -> list[str]:
    """What was asked of the ladder, each with its answer."""
    by_question: dict[str, list[dict[str, Any]]] = {}
    for one in found["comparisons"]:
        by_question.setdefault(one["question"], []).append(one)
    asked = [
        ("total gain", "The whole ladder over the base", STRICT),
        ("public video", "Public video over the base", LEVEL),
        ("fleet above public video", "The fleet's logs over public video", LEVEL),
        ("simulation", "Simulation over the base", LEVEL),
        ("fleet above simulation", "Fleet and on-policy rounds over simulation", LEVEL),
        ("on-policy above logs alone", "On-policy rounds over logs alone", LEVEL),
        ("on-policy, all minutes", "On-policy rounds over logs alone, over all minutes", LEVEL),
        ("more cars", "More cars at equal minutes and rounds", LEVEL),
        ("more cars, all minutes", "More cars at equal rounds, over all minutes", LEVEL),
        ("more cars' logs, all minutes", "More cars' logs at equal minutes, without rounds", LEVEL),
        ("more minutes", "More minutes of the same cars", LEVEL),
        ("more steps", "More steps, and of takeovers more rounds", LEVEL),
        (
            "errors of the model, not the teacher",
            "Takeovers at errors over as many answers of the same teacher elsewhere",
            LEVEL,
        ),
        ("active selection", "Chosen clips over random ones at equal minutes", LEVEL),
        ("learning with redaction", "Learning from boxes over plates and faces, where they are to be seen", LEVEL),
        ("base against scratch", "Starting from the base over starting from nothing", LEVEL),
    ]
    words = [answer(title, by_question.get(question, []), level) for question, title, level in asked]
    words.insert(1, _order_words(found, by_question))
    return [
        *words,
        _rounds_words(found["rounds"]),
        _final_words(found),
        *_home_words(found),
        *_law_words(found["laws"]),
    ]


def answer(title: str, comparisons: Sequence[Record], level: float) -> str:
    """One question's comparisons in a sentence, or in one line each below what came of them all."""
    if not comparisons:
        return f"{title}: not run."
    parts = [
        f"{one['b']} over {one['a']} {one['difference']:+.1f}{_span(one)}, p = {_p(one['p'])}, {_verdict(one, level)}"
        + (f"; it learned from {one['earned']}" if "earned" in one else "")
        for one in comparisons
    ]
    if len(parts) == 1:
        return f"{title}: {parts[0]}."
    sure = [one["difference"] > 0 for one in comparisons if one["p"] < level]
    worse = f", {sure.count(False)} worse" if False in sure else ""
    return "\n".join(
        [
            f"{title}: {sure.count(True)} of {len(parts)} better at p < {level:g}{worse}.",
            *(f"  * {one}" for one in parts),
        ]
    )


def _verdict(one: Record, level: float) -> str:
    seeds = f"{one['seeds_above']} of {one['seeds']} seeds above" + (f"; {one['changed']}" if one["changed"] else "")
    if one["p"] < level:
        return f"{'better' if one['difference'] > 0 else 'worse'} at p < {level:g} ({seeds})"
    could = (
        "" if one["detectable"] is None else f"; these worlds show {one['detectable']:.1f} points four times in five"
    )
    if one["difference"] <= 0:
        return f"no better ({seeds}{could})"
    return f"not shown to be better at p < {level:g} ({seeds}{could})"


def _order_words(found: Mapping[str, Any], by_question: Mapping[str, Sequence[Record]]) -> str:
    """Base below public video below the fleet: both steps, or what is missing."""
    steps = [by_question.get("public video", []), by_question.get("fleet above public video", [])]
    if not all(steps):
        return "Base below public video below the fleet: not run."
    rises = [one["difference"] > 0 for step in steps for one in step]
    sure = [one["difference"] > 0 and one["p"] < LEVEL for step in steps for one in step]
    shown = f"both steps with p < {LEVEL:g}" if all(sure) else f"{sum(sure)} of {len(sure)} steps with p < {LEVEL:g}"
    return (
        f"Base below public video below the fleet: {'in this order' if all(rises) else 'not in this order'}, {shown}."
    )


def _seeds_words(rows: Sequence[Record]) -> str:
    """Which rows say nothing yet about other training seeds."""
    few = [r["name"] for r in rows if r["seeds"] in (1, 2) and r["kind"] not in ("expert", "stop", "constant-speed")]
    names = ", ".join(dict.fromkeys(few))
    return f"Rows with fewer than three training seeds so far, which say little about other seeds: {names or 'none'}."


def _rounds_words(rounds: Sequence[Record]) -> str:
    if not rounds:
        return "Rounds, each above the last: not run."
    texts = []
    for name in dict.fromkeys(one["row"] for one in rounds):
        mine = [one for one in rounds if one["row"] == name]
        rising = all(one["change"]["difference"] > 0 for one in mine)
        sure = sum(one["change"]["difference"] > 0 and one["change"]["p"] < LEVEL for one in mine)
        levels = ", ".join(f"{one['score']:.1f}" for one in mine)
        stuck = [
            f"round {one['round']} {one['change']['difference']:+.1f}{_span(one['change'])}"
            + (f", {one['changed']}" if one["changed"] else "")
            for one in mine
            if one["change"]["difference"] <= 0
        ]
        texts.append(
            f"{name} {levels}: {'each above the last' if rising else 'not each above the last'}, "
            f"{sure} of {len(mine)} steps with p < {LEVEL:g}" + (f" ({'; '.join(stuck)})" if stuck else "")
        )
    return f"Rounds: {'; '.join(texts)}."


def _final_words(found: Mapping[str, Any]) -> str:
    final = found["final"]
    if final["share_of_expert"] is None:
        return f"Final against {PARITY:g} of the expert: not measurable yet."
    reached = "reached" if final["share_of_expert"] >= PARITY else "not reached"
    text = (
        f"Final ({final['name']}) drives {final['share_of_expert']:.4g} of the expert's score; {PARITY:g} is {reached}."
    )
    rates = {one["name"]: one["rates"] for one in found["causes"]}
    mine, expert = rates.get(final["name"], {}), rates.get("expert", {})
    worse = {
        k: v - expert.get(k, 0.0) for k, v in mine.items() if not k.endswith("_pct") and v - expert.get(k, 0.0) > 0
    }
    limits = _rates_words(sorted(worse, key=lambda kind: -worse[kind])[:3], mine, expert)
    return f"{text} What costs most over the expert: {limits}." if limits and reached != "reached" else text


def _home_words(found: Mapping[str, Any]) -> list[str]:
    if not found["home"]:
        return ["Home after adaptation: not run."]
    margin = found["settings"]["home_margin"]
    kept = [one["name"] for one in found["home"] if one["kept"]["difference"] >= -margin]
    lost = ", ".join(f"{one['name']} {one['kept']['difference']:+.1f}" for one in found["home"])
    who = f"within {margin:g} points: {', '.join(kept)}" if kept else f"none stays within {margin:g} points"
    return [f"Home after adaptation, against the base: {lost}; {who}."]


def _law_words(laws: Sequence[Record]) -> list[str]:
    if not laws:
        return ["Law of score against minutes: not enough rows."]
    texts = []
    for law in laws:
        where = "logs and on-policy rounds" if law["on_policy"] else "logs alone"
        if law["measured"] is None:
            check = "which is not run yet"
        else:
            check = f"measured {law['measured']:.1f}, {'inside' if law['inside'] else 'outside'} its interval"
        hours, falls = law["hours_to_parity"], law["law"]["b"] <= 0
        parity = f"would reach {PARITY:g} of the expert at {hours:g} h" if hours is not None else ""
        parity = parity or (f"{'never' if falls else f'not within {FAR_HOURS:,.0f} h'} at {PARITY:g} of the expert")
        texts.append(
            f"Law for {where}: {law['law']['kind']}, predicts {law['predicted']:.1f} at {law['next_minutes']:g} min, {check}; "
            f"{'no expert row yet' if law['target'] is None else parity}."
        )
    return texts


def _span(one: Record) -> str:
    return "" if one["low"] is None else f" [{one['low']:.1f}, {one['high']:.1f}]"


def _p(p: float | None) -> str:
    return "not measurable" if p is None else f"{p:.4f}" if p >= 0.0001 else "below 0.0001"


def page(found: Mapping[str, Any], drawn: Sequence[str], name: str = "ladder") -> str:
    """The page in Markdown; `make NAME` writes it."""
    scores = "name suite kind cars fleet_minutes km takeovers score low high worlds egos seeds".split()
    kinds = sorted({kind for one in found["causes"] for kind in one["rates"]})
    changes = "question a b difference low high p p_holm seeds_above seeds worlds".split()
    parts = {
        "What was asked": [f"* {text}" for text in found["findings"]] + ["", *(f"![{name}]({name})" for name in drawn)],
        "Scores": _table(found["rows"], scores),
        "Comparisons": _table(found["comparisons"], changes),
        "Gained here, lost at home (over the base)": _table(*_home_table(found["home"])),
        "Infractions a route": _table(
            [{**dict.fromkeys(kinds, 0.0), "row": one["name"], **one["rates"]} for one in found["causes"]],
            ("row", *kinds),
        ),
    }
    parts["Scores"] += ["", f"Not run: {', '.join(found['not_run']) or 'none'}. {_seeds_words(found['rows'])}"]
    lines = [
        "# The ladder: does local data make it drive better?",
        "",
        *_opening(found["settings"], name),
        *_devices(found["devices"]),
        "",
    ]
    for title, body in parts.items():
        lines += [f"## {title}", *body, ""]
    return "\n".join(lines)


def _opening(settings: Mapping[str, Any], name: str) -> list[str]:
    how = settings["supervision"]
    late = f" told {how['late_s']:g} s late," if how["late_s"] else ""
    return [
        f"**Synthetic.** Written by `make {name}` from its own records; nothing here was typed. Towns and traffic seeds of both suites are driven by these rows alone, and",
        "nothing is tuned on them; docs/LOG.md tells what was seen of them before. A box world shows that the loop works and what feeds it, not how a real car drives.",
        "",
        f"Every row starts from the base of its training seed and learns for {settings['steps']} steps (rows called long for longer); on-policy rows share those steps",
        f"among their rounds. A round is supervised driving of {settings['km_per_car']:g} km a car: the candidate drives, the driver takes the wheel {how['delay_s']:g} s after it begins to err,",
        f"and only what happens while the driver has the wheel is kept,{late} with {how['path_noise_m']:g} m and {how['speed_noise_mps']:g} m/s of noise. The row",
        "`teacher` gets as many answers of the same driver who never lets the candidate drive. Intervals (95 %) resample worlds and training seeds; p flips the signs",
        "of worlds' mean differences over seeds (paired by seed, world and ego). Holm's p counts all rows of the table Comparisons.",
        *_other(settings),
    ]


def _devices(names: Sequence[str]) -> list[str]:
    """Where anything learned on a GPU: there, equal bits are not promised."""
    if set(names) <= {"processor"}:
        return []
    return [f"Made on: {', '.join(names)}. On a GPU the same seed gives other bits each time it learns."]


def _other(settings: Mapping[str, Any]) -> list[str]:
    """In what this ladder differs from the first one."""
    told = []
    if settings.get("views", 1) > 1:
        told += [
            f"Fleet and network have {settings['views']} views of the road, so nothing here is to be compared with a page of one view."
        ]
    if settings.get("last_rate", 1.0) != 1.0:
        told += [
            f"From round to round the learning rate falls, to {settings['last_rate']:g} of the first round's in the last one."
        ]
    return told


def _home_table(home: Sequence[Record]) -> tuple[list[dict[str, Any]], Sequence[str]]:
    rows = [
        {"row": one["name"], "way": one["way"], "here": one["gained"]["difference"], "home": one["kept"]["difference"]}
        | {"home low": one["kept"]["low"], "home high": one["kept"]["high"], "seeds": one["kept"]["seeds"]}
        for one in home
    ]
    return rows, ("row", "way", "here", "home", "home low", "home high", "seeds")


def _table(rows: Sequence[Record], columns: Sequence[str]) -> list[str]:
    if not rows:
        return ["Not run."]

    def cell(value: Any) -> str:
        if value is None:
            return "not run"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    head = ["| " + " | ".join(name.replace("_", " ") for name in columns) + " |", "|" + "---|" * len(columns)]
    return [*head, *("| " + " | ".join(cell(row.get(name)) for name in columns) + " |" for row in rows)]
