"""The rooms in import order, for the tests that hold the house together."""

ORDER: tuple[str, ...] = (
    "core",
    "region",
    "residency",
    "jail",
    "store",
    "wire",
    "bundle",
    "privacy",
    "drive",
    "clip",
    "dataset",
    "world",
    "model",
    "evaluation",
    "release",
    "border",
    "flywheel",
)
ROOMS: tuple[str, ...] = (*ORDER, "cli", "car")
