"""How a drive travels: MCAP in and out, H.264 in and out; shared by car, world and drive.

Rule: the same recording is always the same bytes, a file written here opens in Foxglove, and no input is decompressed or
decoded beyond the limits read from its headers. Knows nothing of centers, labels or anonymisation.
"""

from onshore.wire.limits import Limits
from onshore.wire.reading import read_mcap
from onshore.wire.video import decode, encode
from onshore.wire.writing import write_mcap

__all__ = ["Limits", "decode", "encode", "read_mcap", "write_mcap"]
