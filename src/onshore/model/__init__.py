"""Networks and the contract they keep, training, on-policy collection, export.

Rule: same dataset, recipe and base give the same weights to the last bit on one CPU class. Imports torch.
"""

from onshore.model.nano import Nano
from onshore.model.recipe import Recipe
from onshore.model.trainable import Trainable

__all__ = ["Nano", "Recipe", "Trainable"]
