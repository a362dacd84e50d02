"""The signed release: what goes into it, how it is packed, signed and verified, and the ONNX runner that drives from it.

Rule: what evaluation runs, what is signed and what the car runs are the same bytes through the same code.
Every name is imported from its own module (`onshore.bundle.inputs`, …), so that a car loads only what it uses.
"""
