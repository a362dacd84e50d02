"""A complete training configuration: what is trained, on how many steps, at what rate. Equal recipes have equal digests.

Rule: nothing that changes the weights lives outside the recipe, the dataset and the base.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from onshore.core.digest import check_id, record_digest
from onshore.core.errors import InputError
from onshore.model.nano import Nano
from onshore.model.trainable import Trainable, from_record, record_of


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained.

    learning_rate: OneCycle's peak (10 % warm-up). speed_drop: share of samples whose speed input is hidden, so that
    speed is also read from the pictures. jitter: strength of brightness and contrast changes (0 = none).
    ema: decay of the averaged weights that are kept (0 = the last weights). perturb: whether samples are seen from
    displaced poses. stride_s: seconds between windows. bf16: bfloat16 where the processor is fast at it (`training.precision`). seed: of weights, order, drops and perturbations.
    """

    name: str
    trainable: Trainable = Nano()
    steps: int = 1800
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    clip_norm: float = 5.0
    speed_drop: float = 0.3
    jitter: float = 0.0
    ema: float = 0.0
    perturb: bool = True
    stride_s: float = 0.5
    bf16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_id(self.name, "recipe name")
        for name in ("steps", "batch", "learning_rate", "clip_norm", "stride_s"):
            if getattr(self, name) <= 0:
                raise InputError("bad_config", f"recipe {self.name}.{name}", "must be positive.")
        for name in ("speed_drop", "jitter", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError("bad_config", f"recipe {self.name}.{name}", "must be between 0 and 1.")
        if self.ema == 1 or self.weight_decay < 0 or self.steps < 4:
            raise InputError("bad_config", f"recipe {self.name}", "ema < 1, weight_decay >= 0 and steps >= 4.")

    def as_record(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "trainable"}
        return {**plain, "trainable": record_of(self.trainable)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Recipe:
        """Read a record back, the network's configuration with it."""
        return cls(**{**record, "trainable": from_record(record["trainable"])})

    @property
    def digest(self) -> str:
        return record_digest(self.as_record())
