"""A driver that knows nothing of onshore: it speaks the policy protocol (docs/policy-protocol.md) over stdin and stdout.

Standard library only. It drives straight on and brakes for a dark patch in the middle of the picture.
"""

import json
import struct
import sys

GO_MPS, SLOW_MPS, DARK = 6.0, 2.0, 60


def receive(stream):
    head = stream.read(4)
    if len(head) < 4:
        return None, b""
    header = json.loads(stream.read(struct.unpack(">I", head)[0]))
    size = 0
    for frame in header.get("frames", []):
        t, h, w, c = frame["shape"]
        size += t * h * w * c
    return header, stream.read(size)


def send(stream, message):
    text = json.dumps(message).encode()
    stream.write(struct.pack(">I", len(text)) + text)
    stream.flush()


def plan(header, pixels, arcs_m, times_s):
    speed = GO_MPS
    if header["frames"]:
        t, h, w, c = header["frames"][0]["shape"]
        newest = pixels[(t - 1) * h * w * c : t * h * w * c]
        middle = [newest[(h * 5 // 8 * w + x) * c] for x in range(w * 3 // 8, w * 5 // 8)]
        if sum(middle) / len(middle) < DARK:
            speed = SLOW_MPS
    return {"type": "plan", "path_xy_m": [[arc, 0.0] for arc in arcs_m], "speed_mps": [speed for _ in times_s]}


def main():
    arcs_m, times_s = [], []
    while True:
        header, pixels = receive(sys.stdin.buffer)
        if header is None:
            return
        if header["type"] == "hello":
            arcs_m, times_s = header["arcs_m"], header["times_s"]
        answer = {"type": "ready", "name": "straight on"}
        if header["type"] == "act":
            answer = plan(header, pixels, arcs_m, times_s)
        send(sys.stdout.buffer, answer)


if __name__ == "__main__":
    main()
