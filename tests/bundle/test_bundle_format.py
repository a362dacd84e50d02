"""The unsigned payload: the same bytes everywhere, and nothing in it that does not belong together."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.networks import metadata, network
from onshore.bundle.format import METADATA, MODEL, NOTES, BundleMetadata, Payload, pack, unpack
from onshore.core.digest import canonical_json, sha256_hex
from onshore.core.errors import CorruptError, InputError

NET = network()


def test_a_payload_survives_the_round_trip_and_has_one_digest() -> None:
    payload = pack(NET, metadata(NET), notes="drives better at crossings")
    again = unpack(dict(payload.files))
    assert (
        again == payload
        and again.digest == payload.digest == pack(network(), metadata(NET), notes="drives better at crossings").digest
    )
    assert payload.release_id.startswith("release-cn-1-")


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([MODEL, METADATA, NOTES]),
    at=st.integers(0, 10_000),
    bit=st.integers(0, 7),
)
def test_any_flipped_bit_changes_the_digest(name: str, at: int, bit: int) -> None:
    payload = pack(NET, metadata(NET), notes="notes")
    data = bytearray(payload.files[name])
    data[at % len(data)] ^= 1 << bit
    changed = Payload(files={**payload.files, name: bytes(data)}, metadata=payload.metadata)
    assert changed.digest != payload.digest


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"region": "China"}, "two letters"),
        ({"onnx_sha256": "abc"}, "64 hex"),
        ({"road_use": "everywhere"}, "road_use"),
        ({"counter": -1}, "not negative"),
        ({"frame_offsets_s": (0.0, 0.4)}, "oldest frame first"),
        ({"arcs_m": (2.0, 1.0)}, "rise strictly"),
        ({"times_s": ()}, "rise strictly"),
    ],
)
def test_impossible_metadata_is_named(change: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=why) as problem:
        metadata(NET, **change)
    assert problem.value.code == "bad_config"


def test_files_that_do_not_belong_together_are_corrupt() -> None:
    payload = pack(NET, metadata(NET))
    with pytest.raises(CorruptError, match="another network"):
        pack(network(1), metadata(NET))
    with pytest.raises(CorruptError, match="another network"):
        unpack({**payload.files, MODEL: network(1)})
    with pytest.raises(CorruptError, match="lacks"):
        unpack({MODEL: NET})
    with pytest.raises(CorruptError, match="not JSON"):
        unpack({**payload.files, METADATA: b"{"})
    loose = json.dumps(json.loads(payload.files[METADATA]), indent=1).encode()
    with pytest.raises(CorruptError, match="canonical"):
        unpack({**payload.files, METADATA: loose})
    extra = {**payload.metadata.as_record(), "surprise": 1}
    with pytest.raises(InputError, match="surprise"):
        unpack({**payload.files, METADATA: canonical_json(extra)})
    assert BundleMetadata.from_record(payload.metadata.as_record()) == payload.metadata
    assert payload.metadata.onnx_sha256 == sha256_hex(NET)
