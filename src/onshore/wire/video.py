"""Pictures to packets and back with libavcodec on one thread: every frame keeps the time it was taken at.

The encoder writes no B-frames, repeats its parameter sets before every keyframe, and leaves no encoder text in the
stream, so that the same pictures are the same bytes and any player can begin at any keyframe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onshore.core.errors import InputError
from onshore.core.recording import Packet, Video
from onshore.wire.annexb import is_keyframe, without_sei
from onshore.wire.limits import Limits

DECODERS = {"h264": "h264", "hevc": "hevc", "jpeg": "mjpeg"}
#: Frames per second told to the rate control; times are carried beside the packets, never derived from it.
NOMINAL_HZ = 10

Rgb = NDArray[np.uint8]


def decode(video: Video, *, limits: Limits | None = None) -> Iterator[tuple[int, Rgb]]:
    """Yield (t_ns, H x W x 3 uint8 RGB) in display order, every frame that went in.

    Raises InputError `damaged_video` when a packet cannot be decoded or a frame is lost, `limit_exceeded` when a picture
    is larger than `limits.frame_pixels`, `unknown_format` for a codec not known.
    """
    import av

    subject = f"camera {video.camera!r}"
    if video.codec not in DECODERS:
        raise InputError("unknown_format", f"{subject} codec {video.codec!r}", f"use one of {', '.join(DECODERS)}.")
    context: Any = av.CodecContext.create(DECODERS[video.codec], "r")
    context.thread_count = 1
    context.options = {"max_pixels": str((limits or Limits()).frame_pixels), "err_detect": "explode"}
    given = 0
    try:
        for packet in video.packets:
            for frame in context.decode(_packet(av, packet)):
                given += 1
                yield frame.pts, _rgb(frame, subject)
        for frame in context.decode(None):
            given += 1
            yield frame.pts, _rgb(frame, subject)
    except av.FFmpegError as problem:
        raise InputError(
            "damaged_video", subject, f"frame {given} of {len(video.packets)} cannot be decoded ({problem.strerror})."
        ) from problem
    if given != len(video.packets):
        raise InputError("damaged_video", subject, f"{len(video.packets)} packets gave {given} frames; copy it again.")


def _packet(av: Any, packet: Packet) -> Any:
    out = av.Packet(packet.data)
    out.pts = packet.t_ns
    return out


def _rgb(frame: Any, subject: str) -> Rgb:
    if frame.is_corrupt:
        raise InputError("damaged_video", subject, "a frame is damaged; copy the file again.")
    pixels: Rgb = frame.to_ndarray(format="rgb24")
    return pixels


def encode(
    camera: str, frames: Iterable[tuple[int, Rgb]], *, codec: str = "h264", gop: int = 10, crf: int = 23
) -> Video:
    """Encode (t_ns, H x W x 3 uint8 RGB) frames of one size to a Video with a keyframe every `gop` frames.

    Width and height must be even. Raises InputError `bad_config` for another codec or size, `clock_disorder` when times
    do not rise.
    """
    if codec not in ("h264", "jpeg"):
        raise InputError("bad_config", f"codec {codec!r}", "the encoder writes h264 or jpeg.")
    times: list[int] = []
    packets: list[Packet] = []
    context: Any = None
    for index, (t_ns, rgb) in enumerate(frames):
        if context is None:
            context = _encoder(codec, rgb, gop=gop, crf=crf)
        _check_frame(camera, context, rgb, t_ns, times)
        times.append(int(t_ns))
        packets += _encoded(context, codec, _picture(rgb, context.pix_fmt, index), times)
    if context is not None:
        packets += _encoded(context, codec, None, times)
    return Video(camera=camera, codec=codec, packets=tuple(packets))


def _encoder(codec: str, rgb: Rgb, *, gop: int, crf: int) -> Any:
    import av

    height, width = rgb.shape[:2]
    if codec == "h264" and (height % 2 or width % 2):
        raise InputError("bad_config", f"frame {width}x{height}", "H.264 4:2:0 needs even sides; crop one pixel.")
    context: Any = av.CodecContext.create("libx264" if codec == "h264" else "mjpeg", "w")
    context.width, context.height = width, height
    context.pix_fmt = "yuv420p" if codec == "h264" else "yuvj420p"
    context.framerate = NOMINAL_HZ
    context.time_base = Fraction(1, NOMINAL_HZ)
    context.thread_count = 1
    context.flags |= av.codec.context.Flags.bitexact
    if codec == "h264":
        # no look-ahead: with one, libx264 gave other bytes for small pictures whenever fresh memory held other values
        context.gop_size, context.max_b_frames = gop, 0
        context.options = {
            "crf": str(crf),
            "preset": "veryfast",
            "x264-params": f"scenecut=0:keyint={gop}:min-keyint={gop}:bframes=0:repeat-headers=1:annexb=1:threads=1"
            ":sliced-threads=0:sync-lookahead=0:rc-lookahead=0:force-cfr=1",
        }
    else:
        context.flags |= av.codec.context.Flags.qscale
        context.global_quality = 3 * 118  # FF_QP2LAMBDA: about JPEG quality 90
    return context


def _check_frame(camera: str, context: Any, rgb: Rgb, t_ns: int, times: list[int]) -> None:
    if rgb.dtype != np.uint8 or rgb.shape != (context.height, context.width, 3):
        raise InputError(
            "bad_config",
            f"camera {camera!r} frame {len(times)}",
            f"expected {context.height}x{context.width}x3 uint8, got {'x'.join(map(str, rgb.shape))} {rgb.dtype}.",
        )
    if times and t_ns <= times[-1]:
        raise InputError(
            "clock_disorder", f"camera {camera!r}", f"frame {len(times)} is not later than the one before."
        )


def _picture(rgb: Rgb, pix_fmt: str, index: int) -> Any:
    import av

    frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format=pix_fmt)
    frame.pts = index
    return frame


def _encoded(context: Any, codec: str, frame: Any, times: list[int]) -> list[Packet]:
    packets = []
    for packet in context.encode(frame):
        data = bytes(packet)
        data = without_sei(data) if codec == "h264" else data
        packets.append(Packet(t_ns=times[packet.pts], data=data, keyframe=is_keyframe(codec, data)))
    return packets
