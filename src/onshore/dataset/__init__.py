"""What a model may learn from: frozen manifests, splits by drive, proxies, and a loader that keeps up with training.

Rule: the same inputs give the same digest and the same batches; no held-out drive is ever drawn for training. Verbs over
frozen datasets (add, drop, diff, show, verify, list) live in `onshore.dataset.manifest`.
"""

from onshore.dataset.batches import Batch, batches, in_order
from onshore.dataset.manifest import DatasetRow, freeze, load_windows
from onshore.dataset.perturb import Perturb
from onshore.dataset.windows import Windows, WindowSpec

__all__ = ["Batch", "DatasetRow", "Perturb", "WindowSpec", "Windows", "batches", "freeze", "in_order", "load_windows"]
