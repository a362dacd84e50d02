"""A complete training configuration: what is trained, on how many steps, at what rate. Equal recipes have equal digests.

Rule: nothing that changes the weights lives outside the recipe, the dataset and the base.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from onshore.core.digest import check_id, record_digest
from onshore.core.errors import InputError
from onshore.model.nano import Nano
from onshore.model.trainable import Adaptation, Trainable, from_record, record_of

#: Fields that recipes of the first versions did not have.
LATER = frozenset(["accumulate", "compile", "processes", "shard", "adapt"])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained.

    learning_rate: OneCycle's peak (10 % warm-up). speed_drop: share of samples whose speed input is hidden, so that
    speed is also read from the pictures. jitter: strength of brightness and contrast changes (0 = none).
    ema: decay of the averaged weights that are kept (0 = the last weights). perturb: whether samples are seen from
    displaced poses. stride_s: seconds between windows. bf16: bfloat16 where the processor is fast at it (`training.precision`). seed: of weights, order, drops and perturbations.
    accumulate: in how many equal parts a batch is learned from, whose gradients and running statistics are averaged; a part
    is all that must fit into memory. compile: through torch.compile, which needs a compiler.
    processes: how many learn together, each its share of the parts (`ranks`). shard: each of them keeps a piece of every
    tensor (FSDP). adapt: what is different when a
    base is trained further (`Adaptation`).
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
    accumulate: int = 1
    compile: bool = False
    processes: int = 1
    shard: bool = False
    adapt: Adaptation | None = None

    def __post_init__(self) -> None:
        check_id(self.name, "recipe name")
        for name in ("steps", "batch", "learning_rate", "clip_norm", "stride_s", "accumulate", "processes"):
            if getattr(self, name) <= 0:
                raise InputError("bad_config", f"recipe {self.name}.{name}", "must be positive.")
        for name in ("speed_drop", "jitter", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError("bad_config", f"recipe {self.name}.{name}", "must be between 0 and 1.")
        if self.ema == 1 or self.weight_decay < 0 or self.steps < 4:
            raise InputError("bad_config", f"recipe {self.name}", "ema < 1, weight_decay >= 0 and steps >= 4.")
        if self.batch % self.accumulate:
            raise InputError("bad_config", f"recipe {self.name}.accumulate", f"it must divide the batch, {self.batch}.")
        if self.accumulate % self.processes:
            advice = f"{self.processes} processes need a batch in as many parts, or a multiple of them."
            raise InputError("bad_config", f"recipe {self.name}.accumulate", advice)
        if self.shard and self.adapt is not None:
            advice = "ways to adapt put parts into whole networks; train sharded without one."
            raise InputError("bad_config", f"recipe {self.name}.adapt", advice)

    def as_record(self) -> dict[str, Any]:
        """JSON that says all of it. What came later is told only where it is used, so that earlier recipes keep their digest."""
        plain = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in LATER or getattr(self, field.name) != field.default
        }
        made_of: dict[str, Any] = {name: record_of(plain[name]) for name in ("trainable", "adapt") if name in plain}
        return {**plain, **made_of}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Recipe:
        """Read a record back, the network's configuration with it."""
        made: dict[str, Any] = {name: from_record(record[name]) for name in ("trainable", "adapt") if name in record}
        return cls(**{**record, **made})

    @property
    def digest(self) -> str:
        return record_digest(self.as_record())
