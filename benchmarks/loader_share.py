"""How much of its time does small, learning on one core, wait for its batches?

    python benchmarks/loader_share.py [--steps 8] [--batch 16] [--ahead 0]

Prints one JSON object: the share (wanted: under 0.05) and samples a second of `training.fit`. Synthetic drives, encoded as
proxies, decoded, cut and perturbed as in training, by the thread that learns: nothing is made ahead, so nothing is hidden.
--ahead 2 makes as many batches beside, as training does: then a second core must be free.
"""

from __future__ import annotations

import argparse

from gpu_training import windows
from onshore.dataset import Perturb, batches
from onshore.model import Recipe
from onshore.model.jailed import window_spec
from onshore.model.temporal import Temporal
from onshore.model.training import fit, precision
from row import print_row

WANTED = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ahead", type=int, default=0, help="batches made while the network learns")
    asked = parser.parse_args()
    recipe = Recipe(name="share", trainable=Temporal(), steps=asked.steps, batch=asked.batch)
    seen = windows(window_spec(recipe), minutes=1, workers=1)
    given = {"batch": recipe.batch, "seed": 0, "perturb": Perturb(), "prefetch": asked.ahead}
    next(batches(seen, steps=1, **given))  # what is compiled is compiled
    result = fit(recipe, batches(seen, steps=recipe.steps, **given))
    share, rate = result.loader_share, round(result.samples_per_s, 2)
    print_row(
        "loader_share",
        network=recipe.trainable.name,
        precision=precision(recipe),
        ahead=asked.ahead,
        loader_share=share,
        of_wanted=round(share / WANTED, 3),
        samples_per_s=rate,
    )


if __name__ == "__main__":
    main()
