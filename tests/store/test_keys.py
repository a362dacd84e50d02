"""Keys outside the center: three providers keep the same promises, and shredding reaches every copy of the slots."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from onshore.core.errors import CorruptError, InputError, NotFoundError, OnshoreError, UsageError
from onshore.core.label import Label
from onshore.store import Center
from onshore.store.keys import SLOTS_FILE, Keys
from onshore.store.kms import CommandProvider
from onshore.store.suite import suite_of

SEGMENT = Label(region="cn", kind="segment")
RAW = Label(region="cn", kind="raw_drive", sensitivity=frozenset(["face", "plate"]), retention="raw")
SOFTHSM = next(
    (path for path in ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so") if Path(path).exists()),
    None,
)
SERVICE = Path(__file__).parents[2] / "examples" / "key_service" / "service.py"


@pytest.fixture(scope="session")
def token_spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One token for all tests, as the module reads its configuration once per process; centers share it by label."""
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: pip install 'onshore[pkcs11]'")
    if SOFTHSM is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM is not installed and scripts/system-libraries.sh could not install it")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(config)
    words = "softhsm2-util --init-token --free --label onshore --pin 4711 --so-pin 0815".split()
    subprocess.run(words, check=True, capture_output=True)
    pin = folder / "pin"
    pin.write_text("4711\n")
    pin.chmod(0o600)
    return f"pkcs11:token=onshore?module-path={SOFTHSM}&pin-source={pin}"


@pytest.fixture(params=["folder", "pkcs11", "command"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "pkcs11":
        return str(request.getfixturevalue("token_spec"))
    if request.param == "command":
        return f"command:{sys.executable} {SERVICE} {tmp_path / 'service'}"
    return ""


@pytest.fixture
def center(tmp_path: Path, spec: str) -> Center:
    return Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", keys=spec)


def test_a_center_lives_with_each_provider(center: Center, spec: str) -> None:
    artifact = center.put(b"bytes" * 1000, SEGMENT, key="drive-1")
    center.raw.seal(b"raw", key="drive-2", label=RAW)
    again = Center.open(center.root)
    assert again.read(artifact.id) == b"bytes" * 1000 and again.config.keys == spec
    assert again.ledger.verify().ok and again.subject("vehicle", "car-0007") == center.subject("vehicle", "car-0007")
    assert center.keys.salt.hex() not in repr(center.keys) and "[private]" in repr(center.keys.provider)


def test_a_region_key_behind_a_provider_lies_in_no_folder_here(center: Center, spec: str) -> None:
    files = {path.name for path in center.keys.folder.iterdir()}
    assert {"region-1.key", "ledger.key"} <= files if not spec else not any(name.endswith(".key") for name in files)


def test_copied_slots_without_the_provider_open_nothing(center: Center, tmp_path: Path, spec: str) -> None:
    artifact = center.put(b"bytes", SEGMENT)
    center.close()
    copy = Path(shutil.copytree(center.root, tmp_path / "copy"))
    slots = tmp_path / "stolen"
    slots.mkdir()
    shutil.copy(center.keys.folder / SLOTS_FILE, slots)
    mine = str(center.keys.folder)
    config = (copy / "center.toml").read_text().replace(mine, str(slots))
    (copy / "center.toml").write_text(config.replace(f'keys = "{spec}"', 'keys = ""'))
    with pytest.raises(OnshoreError, match="key_missing"):
        Center.open(copy).read(artifact.id)


def test_shredding_spares_the_others_and_is_for_good(center: Center) -> None:
    gone, stays = (center.put(name.encode(), SEGMENT, key=name) for name in ("drive-1", "drive-2"))
    sealed = center.raw.seal(b"raw", key="drive-3", label=RAW)
    center.shred(["drive-1", "drive-3"])
    for ask in (center, Center.open(center.root)):
        with pytest.raises(NotFoundError, match="destroyed"):
            ask.read(gone.id)
        with pytest.raises(NotFoundError, match="destroyed"):
            ask.raw.unseal(sealed.id)
        assert ask.read(stays.id) == b"drive-2"
    with pytest.raises(InputError, match="Leave this file out"):
        center.put(b"more of it", SEGMENT, key="drive-1")
    assert center.keys.shredded() == ["drive-1", "drive-3"]
    assert [e.body for e in center.ledger.entries() if e.kind == "key_destroyed"] == [
        {"key": "drive-1"},
        {"key": "drive-3"},
    ]


def test_stale_slots_open_nothing_after_shredding(center: Center, tmp_path: Path) -> None:
    """A copy of the slots from before, put back under the provider of today: the region key they need is gone."""
    artifact = center.put(b"bytes", SEGMENT, key="drive-1")
    center.put(b"other", SEGMENT, key="drive-2")
    center.close()
    shutil.copy(center.keys.folder / SLOTS_FILE, tmp_path / "stale")
    center.shred(["drive-1"])
    center.close()
    shutil.copy(tmp_path / "stale", center.keys.folder / SLOTS_FILE)
    with pytest.raises(OnshoreError, match="key_missing"):
        Center.open(center.root).read(artifact.id)


def test_shredding_is_all_or_nothing(center: Center) -> None:
    artifact = center.put(b"bytes", SEGMENT, key="drive-1")
    for wrong in (["drive-1", "drive-9"], ["drive-1", "center"]):
        with pytest.raises((NotFoundError, UsageError)):
            center.shred(wrong)
    assert center.read(artifact.id) == b"bytes" and center.keys.shredded() == []


def test_a_killed_shredding_ends_when_the_keys_are_opened_again(
    center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = center.put(b"bytes", SEGMENT, key="drive-1")

    class Cut(Exception):
        pass

    def cut(name: str) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(center.keys.provider, "destroy_wrapping_key", cut)
        with pytest.raises(Cut):
            center.shred(["drive-1"])
    assert center.keys.provider.unwrap("region-1", []) == []  # the old key is still there
    again = Center.open(center.root)
    with pytest.raises(NotFoundError, match="destroyed"):
        again.read(artifact.id)
    again.shred([])
    again.put(b"new", SEGMENT, key="drive-2")
    with pytest.raises(OnshoreError, match="key_missing"):
        Center.open(center.root).keys.provider.wrap("region-1", [(b"k" * 32, b"")])


FORKED = """
import multiprocessing, sys
from onshore.store import Center
root, identity = sys.argv[1:]
center = Center.open(root)
here = center.read(identity)
def reads(answers):
    answers.put(center.read(identity))
answers = multiprocessing.get_context("fork").Queue()
child = multiprocessing.get_context("fork").Process(target=reads, args=(answers,))
child.start()
print(here, answers.get(timeout=30))
child.join()
"""


def test_forked_and_other_processes_use_the_same_keys(center: Center) -> None:
    artifact = center.put(b"bytes", SEGMENT, key="drive-1")
    # an interpreter of its own: the test's own has threads of libraries that do not survive a fork
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(center.root), artifact.id], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.strip() == b"b'bytes' b'bytes'"
    assert center.put(b"more", SEGMENT, key="drive-2")
    code = "import sys; from onshore.store import Center; print(Center.open(sys.argv[1]).read(sys.argv[2]))"
    done = subprocess.run([sys.executable, "-c", code, str(center.root), artifact.id], capture_output=True, check=True)
    assert done.stdout.strip() == b"b'bytes'"


def test_a_writer_that_opened_before_a_shredding_seals_under_the_new_key(center: Center) -> None:
    other = Center.open(center.root)
    center.put(b"bytes", SEGMENT, key="drive-1")
    center.shred(["drive-1"])
    artifact = other.put(b"later", SEGMENT, key="drive-2")
    assert Center.open(center.root).read(artifact.id) == b"later"


@pytest.mark.parametrize(
    "wrong",
    [
        "kms:somewhere",
        "pkcs11:token=x",
        "pkcs11:token=x?module-path=/no/such/module.so&pin-source=/no/pin",
        "command:/no/such/program",
        f"command:{sys.executable} -c pass",
        "command:",
        "command:''",
        "command:'unbalanced",
    ],
)
def test_a_provider_that_is_not_there_is_named(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(OnshoreError) as caught:
        Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", keys=wrong)
    assert caught.value.code in {"bad_config", "key_missing", "missing_dependency"}
    assert not (tmp_path / "center" / "center.toml").exists()


def test_a_service_that_lies_or_dies_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, sys
            for line in sys.stdin:
                print(json.dumps({"error": "locked by its officer"}), flush=True)
            """
        )
    )
    with pytest.raises(OnshoreError, match="locked by its officer"):
        Keys.create(tmp_path / "k", region="cn", center_id="center-1", spec=f"command:{sys.executable} {script}")


@pytest.mark.parametrize(
    "answer",
    ["{}", '{"value": 5, "items": 5}', '{"value": "zz", "items": ["zz"]}', '{"value": "00", "items": [5]}', "[]"],
)
def test_a_service_whose_answers_have_no_sense_is_refused(tmp_path: Path, answer: str) -> None:
    script = tmp_path / "service.py"
    script.write_text(f"import sys\nfor line in sys.stdin:\n    print({answer!r}, flush=True)\n")
    service = CommandProvider(f"command:{sys.executable} {script}", suite=suite_of("aes"), scope="cn|center-1")
    for asked in (
        lambda: service.public_key("ledger"),
        lambda: service.sign("ledger", b"m"),
        lambda: service.wrap("region-1", [(b"s", b"b")]),
        lambda: service.unwrap("region-1", [(b"s", b"b")]),
    ):
        with pytest.raises(OnshoreError) as caught:
            asked()
        assert caught.value.code == "key_missing" and "key service" in caught.value.advice


# -- suites -------------------------------------------------------------------------------------------------------------


def test_a_center_under_sm_reads_and_names_with_sm(tmp_path: Path) -> None:
    sm, aes = (
        Center.init(tmp_path / name, "cn", keys_dir=tmp_path / f"{name}-keys", crypto=name, seed=1)
        for name in ("sm", "aes")
    )
    data = os.urandom((2 << 20) + 17)
    artifact = sm.put(data, SEGMENT, key="drive-1")
    assert Center.open(sm.root).read(artifact.id) == data and sm.scrub() == []
    assert artifact.id == aes.put(data, SEGMENT, key="drive-1").id  # ids are SHA-256 in both
    assert sm.subject("vehicle", "car-0007") != aes.subject("vehicle", "car-0007")
    headers = [
        next(path for path in (c.root / "blobs").rglob("*") if path.is_file()).read_bytes()[:8] for c in (sm, aes)
    ]
    assert headers == [b"ONSHORS1", b"ONSHORE1"]
    sm.shred(["drive-1"])


def test_suites_do_not_mix(tmp_path: Path) -> None:
    """The file of one center in the place of the other's, even with a header that lies about its suite."""
    sm, aes = (
        Center.init(tmp_path / name, "cn", keys_dir=tmp_path / f"{name}-keys", crypto=name, seed=1)
        for name in ("sm", "aes")
    )
    one, two = (center.put(b"the same bytes", SEGMENT) for center in (sm, aes))
    here, there = (next(path for path in (c.root / "blobs").rglob("*") if path.is_file()) for c in (sm, aes))
    shutil.copy(here, there)
    with pytest.raises(CorruptError) as caught:
        aes.read(two.id)
    assert caught.value.code == "wrong_suite"
    there.write_bytes(b"ONSHORE1" + there.read_bytes()[8:])
    with pytest.raises(CorruptError, match="does not authenticate"):
        aes.read(two.id)
    config = (sm.root / "center.toml").read_text().replace('crypto = "sm"', 'crypto = "aes"')
    (sm.root / "center.toml").write_text(config)
    with pytest.raises(OnshoreError, match="key_missing"):
        Center.open(sm.root).read(one.id)


def test_a_flipped_bit_under_sm_is_seen(tmp_path: Path) -> None:
    center = Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", crypto="sm")
    artifact = center.put(bytes(range(256)) * 3, SEGMENT)
    path = next(path for path in (center.root / "blobs").rglob("*") if path.is_file())
    sealed = path.read_bytes()
    for at in (0, 9, 30, len(sealed) // 2, len(sealed) - 1):
        path.write_bytes(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        with pytest.raises(CorruptError):
            center.read(artifact.id)


def test_an_unknown_suite_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="aes, sm"):
        Center.init(tmp_path / "center", "cn", keys_dir=tmp_path / "keys", crypto="des")
    with pytest.raises(InputError, match="SM4-GCM"):
        Center.init(
            tmp_path / "c", "cn", keys_dir=tmp_path / "k", crypto="sm", keys="pkcs11:token=x?module-path=m&pin-source=p"
        )


def test_sm4_and_sm3_are_the_standard_ones() -> None:
    """GB/T 32907-2016 example 1 (one block) through counter mode; GB/T 32905-2016 example 1."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = bytes.fromhex("0123456789abcdeffedcba9876543210")
    block = Cipher(algorithms.SM4(key), modes.ECB()).encryptor()
    assert block.update(key) == bytes.fromhex("681edf34d206965e86b3e94f536e4246")
    digest = hashes.Hash(hashes.SM3())
    digest.update(b"abc")
    assert digest.finalize().hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"


def test_sm4_gcm_as_rfc_8998() -> None:
    """RFC 8998, appendix A.1."""
    from onshore.store.suite import suite_of

    key, nonce = bytes.fromhex("0123456789abcdeffedcba9876543210"), bytes.fromhex("00001234567800000000abcd")
    aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    plain = b"".join(bytes([value]) * 8 for value in (0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF, 0xEE, 0xAA))
    sealed = suite_of("sm").aead(key).encrypt(nonce, plain, aad)
    assert sealed.hex() == (
        "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735"
        "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d"
        "83de3541e4c2b58177e065a9bf7b62ec"
    )
    assert suite_of("sm").aead(key).decrypt(nonce, sealed, aad) == plain
