"""center.toml: what a center is, in a file people read.

Rule: written once by `init`; its presence is what makes a folder a center.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from onshore.core.errors import InputError, NotFoundError

CONFIG_FILE = "center.toml"
#: Fields that a hand-written file may leave out.
OPTIONAL = {"keys": "", "crypto": "aes", "in_region_dirs": [], "jail_strict": False}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CenterConfig:
    """id; region; keys_dir: where the keys lie; in_region_dirs: folders outside that count as inside the region.

    keys: what holds the region and ledger keys, empty for keys_dir itself (store/providers.py). crypto: aes or sm.
    jail_strict: foreign bytes, user SQL and training are refused on a machine that lacks one of the jail's layers.
    """

    id: str
    region: str
    keys_dir: Path
    ledger_key: str
    keys: str = ""
    crypto: str = "aes"
    in_region_dirs: tuple[Path, ...] = ()
    jail_strict: bool = False
    schema_version: int = 1

    def to_toml(self) -> str:
        folders = ", ".join(json.dumps(str(path)) for path in self.in_region_dirs)
        return (
            f"schema_version = {self.schema_version}\n"
            f"id = {json.dumps(self.id)}\n"
            f"region = {json.dumps(self.region)}\n"
            "# Keys lie outside this folder; a copy of the folder decrypts nothing.\n"
            f"keys_dir = {json.dumps(str(self.keys_dir))}\n"
            "# What holds the region key and the ledger key: empty for keys_dir itself, pkcs11:… or command:…\n"
            f"keys = {json.dumps(self.keys)}\n"
            "# aes or sm; chosen once, files of the other are refused.\n"
            f"crypto = {json.dumps(self.crypto)}\n"
            "# Ed25519 public key (hex) that signs ledger/checkpoint.\n"
            f"ledger_key = {json.dumps(self.ledger_key)}\n"
            "# Folders outside the center that are inside the region: files may be written there without a permit.\n"
            f"in_region_dirs = [{folders}]\n"
            "# true: no work in a jail that lacks a layer. false: what is missing stands in the ledger.\n"
            f"jail_strict = {json.dumps(self.jail_strict)}\n"
        )


def read_config(root: Path) -> CenterConfig:
    """Errors: NotFoundError when there is no center, InputError `bad_config` with the field."""
    path = root / CONFIG_FILE
    if not path.is_file():
        raise NotFoundError(path, "no center here; make one with `onshore init CENTER --region cn`.")
    try:
        return _config(tomllib.loads(path.read_text(encoding="utf8")))
    except KeyError as fault:
        raise InputError("bad_config", path, f"{fault} is missing; see docs/store.md.") from fault
    except ValueError as fault:  # no TOML, no UTF-8, or a field of another type
        raise InputError("bad_config", path, f"{fault}; see docs/store.md.") from fault


def _config(document: dict[str, Any]) -> CenterConfig:
    """Errors: KeyError and ValueError with the field."""
    optional = {**OPTIONAL, **document}
    return CenterConfig(
        id=_of(str, document, "id"),
        region=_of(str, document, "region"),
        keys_dir=Path(_of(str, document, "keys_dir")),
        ledger_key=_of(str, document, "ledger_key"),
        keys=_of(str, optional, "keys"),
        crypto=_of(str, optional, "crypto"),
        in_region_dirs=tuple(_folder(entry) for entry in _of(list, optional, "in_region_dirs")),
        jail_strict=_of(bool, optional, "jail_strict"),
        schema_version=_of(int, document, "schema_version"),
    )


def _of(kind: type[T], document: dict[str, Any], name: str) -> T:
    value = document[name]
    if type(value) is not kind:  # true is an int to isinstance
        raise ValueError(f"{name} is {value!r}, but must be a {kind.__name__}")
    return value


def _folder(entry: Any) -> Path:
    """One absolute folder: a letter of a string taken for a list would be '/' and make every path one in the region."""
    if not isinstance(entry, str) or not Path(entry).is_absolute():
        raise ValueError(f"in_region_dirs holds {entry!r}, but each entry must be an absolute path in quotes")
    return Path(entry)
