"""One self-contained page that a newcomer understands in a minute: figures, plots, pictures, what left and who allowed it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from onshore.flywheel import plots


def render(result: Mapping[str, Any], shots: Sequence[tuple[str, str, bytes]] = ()) -> str:
    """The page for a demo result. `shots` are (caption, image type, bytes); everything is inside the page."""
    import jinja2

    template = resources.files("onshore.flywheel").joinpath("report.html").read_text(encoding="utf8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        **{name: result[name] for name in "rounds releases border stages digests seed tiny seconds".split()},
        cards=_cards(result),
        verdict=verdict(result),
        worlds=_worlds(result),
        shots=[{"caption": c, "type": t, "data": base64.b64encode(d).decode()} for c, t, d in shots],
        plots={
            "rounds": plots.round_plot(result["rounds"]),
            "cn": plots.score_plot(result["scores"], "cn", "In cn towns it has never seen"),
            "us": plots.score_plot(result["scores"], "us", "At home: the base in us towns"),
            "disagreement": plots.disagreement_plot(result["open_loop"], result["scores"]),
        },
    )


def verdict(result: Mapping[str, Any]) -> str:
    """The answer in words, from the figures and nothing else."""
    scores = {(row["model"], row["suite"]): row for row in result["scores"]}
    last = result["rounds"][-1]["round"]
    base, final = scores["base", "cn"], scores[f"round-{last}", "cn"]
    p = result["p_last_over_base"]
    home = scores["base", "us"]
    opening = (
        f"The base drives {home['score']:.0f} in us towns and {base['score']:.0f} in cn towns. After {last} rounds of local data it "
        f"drives {final['score']:.0f} in cn"
    )
    if p is None:
        return f"{opening}. Whether that is more than chance is not measurable with so few worlds."
    meaning = (
        "which chance hardly explains" if p < 0.05 and final["score"] > base["score"] else "which chance may explain"
    )
    return (
        f"{opening}, {meaning} (p = {_p(p)}, paired by world and ego over {final['routes']} routes). "
        "All of it in a synthetic box world: it shows that the loop works, not how a real car drives."
    )


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "below 0.0001"


def _cards(result: Mapping[str, Any]) -> list[dict[str, str]]:
    scores = {(row["model"], row["suite"]): row for row in result["scores"]}
    last = result["rounds"][-1]
    base, final = scores["base", "cn"], scores[f"round-{last['round']}", "cn"]
    left = [row for row in result["border"] if row["allowed"]]
    refused = [row for row in result["border"] if not row["allowed"]]
    return [
        {
            "value": f"{base['score']:.0f} → {final['score']:.0f}",
            "title": "driving score in cn",
            "note": f"base to round {last['round']}, held-out towns",
        },
        {
            "value": f"{last['minutes_total']:.0f} min",
            "title": "driven by local cars",
            "note": f"{last['cars']} cars, {last['clips']} clips",
        },
        {"value": str(len(left)), "title": "artifacts left a center", "note": "weights, by a permit of two approvers"},
        {"value": str(len(refused)), "title": "exports tried and refused", "note": "raw drives and clips never leave"},
    ]


def _worlds(result: Mapping[str, Any]) -> str:
    row = next(row for row in result["scores"] if row["suite"] == "cn")
    return f"{row['routes']} routes in {row['worlds']} worlds a suite"
