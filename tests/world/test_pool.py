"""Children of a pool that die at an awkward moment; the worlds of real ones are driven in test_worlds."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from onshore.world.pool import Task, Workers, _Process

#: Answers tasks with how many it had before; without the mark it makes it, answers the second with half a message, and dies.
CHILD = """
import itertools, os, pathlib, sys
from multiprocessing.connection import Connection
end, mark = Connection(int(sys.argv[1])), pathlib.Path(sys.argv[2])
for number in itertools.count():
    end.recv_bytes()
    if number and not mark.exists():
        mark.touch()
        os.write(end.fileno(), (100).to_bytes(4, "big") + b"half")
        os._exit(9)
    end.send(number)
"""


@dataclass
class Dying(Workers):
    """One child at a time; the first dies with its second result half sent."""

    mark: Path = field(default_factory=Path)

    def _start(self) -> _Process:
        mine, theirs = socket.socketpair()
        words = [sys.executable, "-c", CHILD, str(theirs.fileno()), str(self.mark)]
        process = subprocess.Popen(words, pass_fds=[theirs.fileno()])
        theirs.close()
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        return _Process(process=process, connection=Connection(mine.detach()), complaints=complaints, origin=())


def test_a_child_that_dies_with_its_result_half_sent_costs_that_result_alone(tmp_path: Path) -> None:
    tasks = [Task(name="any", argument=None, foreign=True) for _ in range(3)]
    with Dying(count=1, cache_dir=tmp_path, mark=tmp_path / "mark") as pool:
        assert pool.map(tasks, what="tests") == [0, 0, 1]
        assert len(pool.crashes) == 1 and "ended with 9" in pool.crashes[0]
