"""A jailed child that cannot raise some of its fences: what a machine without them would be."""

from __future__ import annotations

from pathlib import Path

STEPS = {
    "limits": "limit",
    "network_namespace": "isolate_network",
    "private_memory": "private_folders",
    "private_root": "private_root",
    "capabilities": "drop_capabilities",
    "no_new_privileges": "no_new_privileges",
    "landlock": "restrict_files",
    "seccomp": "filter_calls",
    "fenced_network": "keep_network",
    "descriptors": "close_descriptors",
}
SOURCE = Path(__file__).resolve().parents[2] / "src/onshore/jail/child.py"


def without(folder: Path, *layers: str, before: str = "") -> str:
    """The path of a stand-in for the child whose kernel refuses these layers. before: code that runs first."""
    script = folder / f"without_{'_'.join(layers) or 'nothing'}.py"
    lines = [
        "import json, runpy, sys",
        "sys.path[:] = json.loads(sys.argv[3])",
        "from onshore.jail import kernel",
        "def refuse(*_, **__):",
        "    raise OSError(1, 'taken away by the test')",
        *(
            f"kernel.{STEPS[layer]} = {'lambda *_, **__: None' if layer == 'descriptors' else 'refuse'}"
            for layer in layers
        ),
        before,
        f"runpy.run_path({str(SOURCE)!r}, run_name='__main__')",
    ]
    script.write_text("\n".join(lines), encoding="utf8")
    return str(script)
