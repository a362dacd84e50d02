"""The report's plots: one look, SVG text out. Every plot of town-world figures says 'synthetic' in its own frame."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

INK, MUTED, GRID = "#1b2733", "#66737f", "#e3e8ec"
BLUE, ORANGE, GREEN, GREY = "#1f6fb2", "#d9772b", "#2e8b57", "#9aa5ae"
#: Rows in the order in which every score table and plot shows them.
ROW_ORDER = ("stop", "constant-speed", "base", "round-", "expert")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "onshore",
            "font.family": "sans-serif",
            "font.size": 10,
            "axes.edgecolor": GRID,
            "axes.labelcolor": MUTED,
            "text.color": INK,
            "xtick.color": MUTED,
            "ytick.color": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
        }
    )
    return pyplot.subplots(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> str:
    from matplotlib import pyplot

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _rank(model: str) -> tuple[int, str]:
    return next((i for i, name in enumerate(ROW_ORDER) if model.startswith(name)), len(ROW_ORDER)), model


def score_plot(scores: Sequence[Mapping[str, Any]], suite: str, title: str) -> str:
    """Driving scores of one suite with their 95 % intervals, lowest row first."""
    rows = sorted((row for row in scores if row["suite"] == suite), key=lambda row: _rank(str(row["model"])))
    figure, axes = _figure(6.4, 0.42 * len(rows) + 0.9)
    for place, row in enumerate(reversed(rows)):
        name = str(row["model"])
        colour = BLUE if name.startswith("round") else ORANGE if name == "base" else GREY
        axes.barh(place, row["score"], color=colour, height=0.62)
        axes.plot([row["low"], row["high"]], [place, place], color=INK, linewidth=1.4, solid_capstyle="round")
        axes.text(
            min(max(row["high"], row["score"]) + 1.5, 103), place, f"{row['score']:.0f}", va="center", fontweight="bold"
        )
    axes.set_yticks(range(len(rows)), [str(row["model"]) for row in reversed(rows)])
    axes.set_xlim(0, 108)
    axes.set_xlabel("driving score, percent (synthetic)")
    axes.xaxis.grid(True, color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.set_title(title)
    return _svg(figure)


def round_plot(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Driving score in the region against the fleet minutes so far, one point a round, with what each added."""
    figure, axes = _figure(6.4, 3.1)
    minutes = [float(row["minutes_total"]) for row in rounds]
    scores = [float(row["score"]) for row in rounds]
    axes.fill_between(
        minutes, [r["low"] for r in rounds], [r["high"] for r in rounds], color=BLUE, alpha=0.15, linewidth=0
    )
    axes.plot(minutes, scores, color=BLUE, marker="o", linewidth=2)
    for row, x, y in zip(rounds, minutes, scores, strict=True):
        label = "base" if row["round"] == 0 else f"round {row['round']}: {row['cars']} cars"
        axes.annotate(label, (x, y), textcoords="offset points", xytext=(9, -5), color=MUTED, fontsize=9)
    axes.set_xlim(-0.5, max(minutes) * 1.25 + 1)
    axes.set_ylim(0, 100)
    axes.yaxis.grid(True, color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.set_xlabel("minutes driven by the local fleet so far (synthetic)")
    axes.set_title("Driving score in cn by round")
    return _svg(figure)


def disagreement_plot(open_loop: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]) -> str:
    """Open-loop error against driving score of the same models: the two need not agree."""
    driven = {row["model"]: row["score"] for row in scores if row["suite"] == "cn"}
    rows = [row for row in open_loop if row["model"] in driven and row.get("region") == "cn"]
    figure, axes = _figure(6.4, 2.9)
    for row in rows:
        axes.scatter(row["ade_m"], driven[row["model"]], color=BLUE, s=46)
        axes.annotate(
            row["model"], (row["ade_m"], driven[row["model"]]), textcoords="offset points", xytext=(8, -3), color=MUTED
        )
    axes.set_xlabel("open-loop error (ADE over 2 s), metres")
    axes.set_ylabel("driving score, percent")
    axes.set_ylim(0, 100)
    axes.margins(x=0.25)
    axes.grid(True, color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.set_title("Error against the log, and driving, need not agree")
    return _svg(figure)


def _plain(axes: Any, title: str, x: str) -> None:
    """What every plot of the ladder shares."""
    axes.set_ylim(0, 100)
    axes.grid(True, color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.set_xlabel(x)
    axes.set_ylabel("driving score, percent")
    axes.set_title(title)


def _spread(row: Mapping[str, Any]) -> list[list[float]] | None:
    """Bars of a row's interval around its score, where it has one."""
    if row["low"] is None:
        return None
    return [[max(0.0, row["score"] - row["low"])], [max(0.0, row["high"] - row["score"])]]


def minutes_plot(found: Mapping[str, Any]) -> str:
    """Score against fleet minutes, by cars and with or without on-policy rounds, with the laws fitted below the last level."""

    rows = [row for row in found["rows"] if row["region"] == "cn" and row["score"] is not None and row["way"] == "full"]
    rows = [row for row in rows if row["kind"] in ("fleet", "fleet+on-policy") and row["name"].startswith("fleet")]
    if not rows:
        return ""
    figure, axes = _figure(6.4, 3.8)
    fleets = sorted({row["cars"] for row in rows})
    colours = dict(zip(fleets, (ORANGE, BLUE, GREEN), strict=False))
    # a little beside each other, so that intervals can be told apart
    aside = {cars: 1.06 ** (place - len(fleets) // 2) for place, cars in enumerate(fleets)}
    for cars, kind in sorted({(row["cars"], row["kind"]) for row in rows}):
        mine = sorted((r for r in rows if (r["cars"], r["kind"]) == (cars, kind)), key=lambda r: r["fleet_minutes"])
        on = kind == "fleet+on-policy"
        label = f"{cars} cars, {'logs and on-policy' if on else 'logs alone'}"
        axes.plot(
            [r["fleet_minutes"] * aside[cars] for r in mine],
            [r["score"] for r in mine],
            "-" if on else "--",
            color=colours[cars],
            label=label,
        )
        for row in mine:
            axes.errorbar(
                row["fleet_minutes"] * aside[cars],
                row["score"],
                yerr=_spread(row),
                color=colours[cars],
                marker="o" if on else "s",
            )
    for law in found["laws"]:
        learned = "logs and on-policy" if law["on_policy"] else "logs alone"
        axes.plot(*zip(*law["curve"], strict=True), ":", color=MUTED, label=f"fitted to {law['cars']} cars, {learned}")
        if law["target"] is not None:
            axes.axhline(law["target"], color=GREEN, linewidth=1, linestyle="--")
            axes.annotate("parity", (law["curve"][0][0], law["target"] + 1), color=MUTED, fontsize=9)
    for row in found["rows"]:
        if row["kind"] in ("expert", "base") and row["region"] == "cn" and row["score"] is not None:
            axes.axhline(row["score"], color=GREY, linewidth=1)
            axes.annotate(row["kind"], (rows[0]["fleet_minutes"], row["score"] + 1), color=MUTED, fontsize=9)
    axes.set_xscale("log")
    levels = found["settings"]["levels"]
    axes.set_xticks(levels, [f"{minutes:g}" for minutes in levels])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 0.16))  # between base and rows
    _plain(axes, "cn: score against the fleet's minutes", "minutes driven by the local fleet (synthetic)")
    return _svg(figure)


def home_plot(found: Mapping[str, Any]) -> str:
    """Score at home against score here: what adapting costs where the base came from."""
    both: dict[str, dict[str, float]] = {}
    for row in found["rows"]:
        if row["score"] is not None and row["kind"] not in ("expert", "stop", "constant-speed"):
            both.setdefault(row["name"], {})[row["region"]] = row["score"]
    both = {name: of_row for name, of_row in both.items() if len(of_row) == 2}
    if len(both) < 2:
        return ""
    figure, axes = _figure(6.4, 3.8)
    labels = list[tuple[float, float]]()
    for name, of_row in sorted(both.items(), key=lambda item: -item[1]["us"]):
        x, y = of_row["cn"], of_row["us"]
        axes.scatter(x, y, color=ORANGE if name == "base" else BLUE, s=40)
        while any(abs(x - other_x) < 30 and abs(y - other_y) < 5 for other_x, other_y in labels):
            y -= 0.5
        labels.append((x, y))
        axes.annotate(name, (x + 1.5, y), va="center", color=MUTED, fontsize=8)
    axes.set_xlim(0, 100)
    _plain(axes, "Gained here, lost at home", "driving score in cn (synthetic)")
    axes.set_ylabel("driving score in us")
    return _svg(figure)


def ladder_rounds_plot(found: Mapping[str, Any]) -> str:
    """Score after each on-policy round."""
    if not found["rounds"]:
        return ""
    figure, axes = _figure(6.4, 3.2)
    for name, colour in zip(dict.fromkeys(one["row"] for one in found["rounds"]), (BLUE, GREEN, ORANGE), strict=False):
        mine = [one for one in found["rounds"] if one["row"] == name]
        axes.plot([one["round"] for one in mine], [one["score"] for one in mine], color=colour, label=name)
        for one in mine:
            axes.errorbar(one["round"], one["score"], yerr=_spread(one), color=colour, marker="o")
    axes.set_xticks(sorted({one["round"] for one in found["rounds"]}))
    axes.legend(frameon=False, fontsize=8)
    _plain(axes, "cn: score after each on-policy round", "round (synthetic)")
    return _svg(figure)
