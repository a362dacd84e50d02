"""The nouns and their arithmetic: records, frames, digests, errors, the Policy protocol, the controller, triggers.

Rule: no I/O, no torch, no third-party import but numpy. Every other room may import this one; it imports none.
"""
