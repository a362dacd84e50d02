from __future__ import annotations

from pathlib import Path

import pytest

from onshore.store import Center


@pytest.fixture
def center(tmp_path: Path) -> Center:
    return Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", seed=1, in_region_dirs=[tmp_path / "out"])
