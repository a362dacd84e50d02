"""How fast does the loader feed a training loop, and how far is that from what libavcodec allows?

    python benchmarks/loader_speed.py [--minutes 4] [--seconds 5]

One core, no network, synthetic pictures. Every figure is per CPU-second of this process. Prints JSON: `decode_limit` is
libavcodec alone over the same packets (no colour conversion, no windows), `load` the whole way from proxy bytes to the
array of frames, `batches` finished training samples of two 128 x 64 frames, `peer` the same samples by random access
into one mp4 per segment, the layout of a data set of video files.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from onshore.bundle.inputs import View, view_maps, warp
from onshore.core.control import VehicleGeometry
from onshore.core.recording import Camera, Signals
from onshore.dataset import Perturb, Windows, WindowSpec, batches
from onshore.dataset.proxy import CRF, GOP_FRAMES, Proxy
from onshore.dataset.windows import build_windows
from onshore.wire import encode
from row import print_row

SECONDS = 60
HZ = 10
BATCH = 64


def pictures(view: View, seed: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """A minute of a moving textured ground with noise: compresses like a road, not like a test card."""
    random = np.random.default_rng(seed)
    texture = random.integers(60, 200, (512, 512, 3)).astype(np.float32)
    wide = view.widened()
    column, row = np.meshgrid(np.arange(wide.width_px) + 0.5, np.arange(wide.height_px) + 0.5)
    left, up = (wide.width_px / 2 - column) / wide.focal_px, (wide.height_px / 2 - row) / wide.focal_px
    ahead = np.minimum(view.height_m / np.maximum(-up, 1e-3), 80.0)
    for index in range(SECONDS * HZ):
        x, y = ahead * 4 + index * 3.2, ahead * left * 4 + 20 * math.sin(index / 40)
        ground = texture[x.astype(int) % 512, y.astype(int) % 512] * np.exp(-ahead / 30)[..., None]
        sky = np.full_like(ground, 180.0)
        frame = np.where((up < 0)[..., None], ground, sky) + random.normal(0, 3, ground.shape)
        yield index * 100_000_000, frame.clip(0, 255).astype(np.uint8)


def proxy(number: int, view: View) -> Proxy:
    """A minute's drive."""
    t_ns = np.arange(SECONDS * HZ, dtype=np.int64) * 100_000_000
    signals = Signals.build(t_ns, speed_mps=np.full(len(t_ns), 8.0), yaw_rate_radps=np.zeros(len(t_ns)))
    video = encode("front", pictures(view, number), gop=GOP_FRAMES, crf=CRF)
    return Proxy(
        segment=f"segment-{number}", drive=f"drive-{number}", view=view, mount_xy_m=(1.5, 0.0), shown_share=1.0,
        camera_source="assumed", vehicle=VehicleGeometry(), signals=signals, video=video, synthetic=True,
    )  # fmt: skip


def decode_limit(made: list[Proxy]) -> float:
    """Frames a CPU-second of libavcodec alone."""
    started, count = time.process_time(), 0
    for proxy in made:
        context: Any = av.CodecContext.create("h264", "r")
        context.thread_count = 1
        for packet in (*proxy.video.packets, None):
            count += len(context.decode(None if packet is None else av.Packet(packet.data)))
    return count / (time.process_time() - started)


def as_mp4(proxy: Proxy) -> bytes:
    """The same packets in an mp4 file, as a peer would store them."""
    buffer = io.BytesIO()
    wide = proxy.view.widened()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=HZ, options={"crf": str(CRF), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = wide.width_px, wide.height_px, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = GOP_FRAMES, 0
        stream.codec_context.time_base = Fraction(1, HZ)
        context: Any = av.CodecContext.create("h264", "r")
        for packet in (*proxy.video.packets, None):
            for frame in context.decode(None if packet is None else av.Packet(packet.data)):
                frame.pts, frame.time_base, frame.pict_type = None, Fraction(1, HZ), 0
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def peer(made: list[Proxy], seconds: float) -> float:
    """Samples a CPU-second by seeking in open mp4 files: two frames, cut to the view."""
    files = [av.open(io.BytesIO(as_mp4(proxy))) for proxy in made]
    view = made[0].view
    wide = view.widened()
    maps = view_maps(
        Camera(
            name="front", width_px=wide.width_px, height_px=wide.height_px, focal_px=wide.focal_px,
            centre_x_px=wide.width_px / 2, centre_y_px=wide.height_px / 2,
        ),
        view,
    )  # fmt: skip
    to_rgb = VideoReformatter()
    random, count, started = np.random.default_rng(0), 0, time.process_time()
    while time.process_time() - started < seconds:
        container = files[int(random.integers(len(files)))]
        now = int(random.integers(4, SECONDS * HZ))
        wanted, shown = {now - 4, now}, []
        stream = container.streams.video[0]
        container.seek(int((now - 4) / HZ / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            index = round(float(frame.pts * stream.time_base) * HZ)
            if index in wanted:
                shown.append(warp(to_rgb.reformat(frame, format="rgb24").to_ndarray(), maps))
            if index >= now:
                break
        if len(shown) != 2:
            sys.exit(f"the peer's file gave {len(shown)} of 2 frames")
        count += 1
    return count / (time.process_time() - started)


def rate(windows: Windows, seconds: float, perturb: Perturb | None) -> float:
    """Finished samples a CPU-second."""
    for _ in batches(windows, batch=BATCH, steps=3, seed=1, perturb=perturb):
        pass
    started, count = time.process_time(), 0
    for batch in batches(windows, batch=BATCH, steps=10**9, seed=0, perturb=perturb):
        count += len(batch.index_B)
        if time.process_time() - started > seconds:
            break
    return count / (time.process_time() - started)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    view = View()
    made = [proxy(number, view) for number in range(asked.minutes)]
    spans = {proxy.segment: [(0, 2**62)] for proxy in made}
    limit = decode_limit(made)
    windows, load_s = timed(lambda: build_windows(made, spans, WindowSpec(stride_s=0.1)))
    frames = asked.minutes * SECONDS * HZ
    perturbed = rate(windows, asked.seconds, Perturb())
    other = peer(made, asked.seconds)
    figures = {
        "minutes": asked.minutes,
        "bytes_per_clip_hour": round(sum(len(p.to_bytes()) for p in made) / asked.minutes * 60),
        "frame_memory_bytes": int(windows.frames_NHW3.nbytes),
        "decode_limit_frames_per_s": round(limit),
        "load_frames_per_s": round(frames / load_s),
        "load_share_of_limit": round(frames / load_s / limit, 3),
        "batches_samples_per_s": round(perturbed),
        "batches_unperturbed_samples_per_s": round(rate(windows, asked.seconds, None)),
        "batches_all_perturbed_samples_per_s": round(rate(windows, asked.seconds, Perturb(share=1.0))),
        "one_pass_samples_per_s": round(len(windows) / (load_s + len(windows) / perturbed)),
        "peer_mp4_random_access_samples_per_s": round(other),
        "batches_over_peer": round(perturbed / other, 1),
        "one_pass_over_peer": round(len(windows) / (load_s + len(windows) / perturbed) / other, 1),
    }
    print_row("loader_speed", **figures)


if __name__ == "__main__":
    main()
