"""Finds, from the source alone, every call that can put bytes into a file or onto a network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Methods and functions that write, by their last name, whatever the object is.
WRITING_NAMES = frozenset(
    "write_bytes write_text touch copyfile copyfileobj copy2 copytree move symlink_to hardlink_to link symlink mkfifo mknod "
    "imwrite savez savez_compressed tofile savetxt save_file save_model savefig write_dataset write_table write_image "
    "to_csv to_parquet to_json to_pickle to_file VideoWriter truncate sendfile NamedTemporaryFile mkstemp".split()
)
#: `module.function` pairs whose last name alone would also mean harmless things.
WRITING_PAIRS = frozenset(
    "shutil.copy os.rename os.replace np.save numpy.save torch.save onnx.save json.dump pickle.dump os.write "
    "sqlite3.connect duckdb.connect mcap.Writer os.sendfile".split()
)
NETWORK_MODULES = frozenset(
    "socket ssl urllib http requests httpx httpx2 aiohttp ftplib smtplib telnetlib xmlrpc paramiko".split()
)


@dataclass(frozen=True)
class Writer:
    """One call that writes: where, and what it is."""

    module: str
    line: int
    function: str
    call: str


def writers(source: Path) -> list[Writer]:
    """Every writing call and network import below a package folder, by module path relative to it."""
    found = []
    for path in sorted(source.rglob("*.py")):
        module = str(path.relative_to(source))
        tree = ast.parse(path.read_text(encoding="utf8"))
        found += [Writer(module, line, function, call) for line, function, call in _in_tree(tree)]
    return found


def _in_tree(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    stack: list[tuple[ast.AST, str]] = [(tree, "<module>")]
    while stack:
        node, function = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            function = node.name if function == "<module>" else f"{function}.{node.name}"
        if isinstance(node, ast.Call) and (what := _writes(node)):
            yield node.lineno, function, what
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in _network(node):
                yield node.lineno, function, f"import {name}"
        stack += [(child, function) for child in ast.iter_child_nodes(node)]


def _network(node: ast.Import | ast.ImportFrom) -> list[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return [name for name in names if name.split(".")[0] in NETWORK_MODULES and name != "urllib.parse"]


def _writes(call: ast.Call) -> str | None:
    name = _dotted(call.func)
    last = name.rpartition(".")[2]
    if last in WRITING_NAMES or name in WRITING_PAIRS:
        return name
    if last in {"open", "ZipFile", "TarFile", "fdopen", "Writer"} and _mode_writes(call, name):
        return name
    return None


def _mode_writes(call: ast.Call, name: str) -> bool:
    """Whether some argument is a mode or flag that writes; a mode that cannot be read from the source counts as writing."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if any(
        isinstance(arg, ast.Attribute) and arg.attr in {"O_WRONLY", "O_RDWR", "O_CREAT"}
        for a in arguments
        for arg in ast.walk(a)
    ):
        return True
    modes = [
        a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str) and len(a.value) <= 4
    ]
    named = [k.value for k in call.keywords if k.arg == "mode"]
    unreadable = any(not isinstance(value, ast.Constant) for value in named)
    return unreadable or any(set(mode) <= set("rwaxbt+:gz") and set(mode) & set("wax+") for mode in modes)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return "?"
