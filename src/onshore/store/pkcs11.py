"""Keys in a PKCS#11 module (an HSM, or SoftHSM in tests): they are made there and never come out.

Rule: the spec is an RFC 7512 URI with the token's label, the module's file and a file that holds the PIN:
`pkcs11:token=onshore?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/onshore/pin`. Wrapping keys are AES-256
(sensitive, not extractable), the signing key is Ed25519; objects are labelled `onshore|<region>|<center>|<name>`.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from onshore.core.errors import InputError, OnshoreError
from onshore.store.providers import not_the_key
from onshore.store.suite import NONCE_BYTES, Suite

if TYPE_CHECKING:
    import pkcs11

ED25519_OID = "1.3.101.112"
RAW_BYTES = 32
#: A token is logged into once per process, whoever opens it; its sessions are used by one thread at a time.
_SESSIONS: dict[tuple[int, str, str], pkcs11.Session] = {}
_ONE_AT_A_TIME = threading.RLock()


class Pkcs11Provider:
    """Named keys in one token. A forked child opens a session of its own."""

    def __init__(self, spec: str, *, suite: Suite, scope: str) -> None:
        if suite.name != "aes":
            advice = "the PKCS#11 standard names no SM4-GCM; keep sm keys in a folder or behind a command."
            raise InputError("bad_config", "keys pkcs11: with crypto sm", advice)
        self._spec, self._scope = spec, scope
        self._token, self._module, self._pin_file = _read(spec)

    def __repr__(self) -> str:
        return f"Pkcs11Provider({self._token}, [private])"

    def make_wrapping_key(self, name: str) -> None:
        import pkcs11

        with self._working(name) as session:
            if self._find(session, pkcs11.ObjectClass.SECRET_KEY, name) is None:
                session.generate_key(
                    pkcs11.KeyType.AES,
                    256,
                    label=self._label(name),
                    store=True,
                    capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
                    template={pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False},
                )

    def destroy_wrapping_key(self, name: str) -> None:
        import pkcs11

        with self._working(name) as session:
            found = self._find(session, pkcs11.ObjectClass.SECRET_KEY, name)
            if found is not None:
                found.destroy()

    def wrap(self, name: str, secrets_: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        import pkcs11

        sealed = []
        with self._working(name) as session:
            key = self._key(session, pkcs11.ObjectClass.SECRET_KEY, name)
            for secret, bound in secrets_:
                nonce = secrets.token_bytes(NONCE_BYTES)
                sealed.append(nonce + key.encrypt(secret, **_gcm(nonce, bound)))
        return sealed

    def unwrap(self, name: str, sealed: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        import pkcs11
        from pkcs11.exceptions import EncryptedDataInvalid, FunctionFailed, GeneralError

        with self._working(name) as session:
            key = self._key(session, pkcs11.ObjectClass.SECRET_KEY, name)
            try:
                return [key.decrypt(one[NONCE_BYTES:], **_gcm(one[:NONCE_BYTES], bound)) for one, bound in sealed]
            except (
                EncryptedDataInvalid,
                FunctionFailed,
                GeneralError,
            ) as fault:  # modules name a wrong tag differently
                raise not_the_key(name, f"token {self._token}") from fault

    def make_signing_key(self, name: str) -> None:
        import pkcs11
        from pkcs11.util.ec import encode_named_curve_parameters

        with self._working(name) as session:
            if self._find(session, pkcs11.ObjectClass.PRIVATE_KEY, name) is None:
                curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(ED25519_OID)}
                parameters = session.create_domain_parameters(pkcs11.KeyType.EC_EDWARDS, curve, local=True)
                parameters.generate_keypair(
                    mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                    label=self._label(name),
                    store=True,
                    private_template={pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False},
                )

    def public_key(self, name: str) -> bytes:
        import pkcs11

        with self._working(name) as session:
            point = self._key(session, pkcs11.ObjectClass.PUBLIC_KEY, name)[pkcs11.Attribute.EC_POINT]
        return bytes(point)[-RAW_BYTES:]  # as such, or as a DER octet string around it

    def sign(self, name: str, message: bytes) -> bytes:
        import pkcs11

        with self._working(name) as session:
            key = self._key(session, pkcs11.ObjectClass.PRIVATE_KEY, name)
            return bytes(key.sign(message, mechanism=pkcs11.Mechanism.EDDSA))

    def _label(self, name: str) -> str:
        return f"onshore|{self._scope}|{name}"

    def _find(self, session: pkcs11.Session, kind: pkcs11.ObjectClass, name: str) -> Any:
        import pkcs11

        wanted = {pkcs11.Attribute.CLASS: kind, pkcs11.Attribute.LABEL: self._label(name)}
        return next(iter(list(session.get_objects(wanted))), None)

    def _key(self, session: pkcs11.Session, kind: pkcs11.ObjectClass, name: str) -> Any:
        found = self._find(session, kind, name)
        if found is None:
            advice = f"the token has no key labelled {self._label(name)}; restore the token or name the right one."
            raise OnshoreError("key_missing", f"token {self._token}", advice)
        return found

    @contextmanager
    def _working(self, name: str) -> Iterator[pkcs11.Session]:
        """A session of this process; what the module says is wrong is said in our words."""
        from pkcs11.exceptions import PKCS11Error

        with _ONE_AT_A_TIME:
            try:
                yield self._opened()
            except PKCS11Error as fault:
                _SESSIONS.pop(self._place(), None)
                advice = (
                    f"the module says {type(fault).__name__}; check module-path, token and pin-source in center.toml."
                )
                raise OnshoreError("key_missing", f"key {name} in token {self._token}", advice) from fault

    def _place(self) -> tuple[int, str, str]:
        return os.getpid(), self._module, self._token

    def _opened(self) -> pkcs11.Session:
        import pkcs11

        if self._place() not in _SESSIONS:
            library = pkcs11.lib(self._module)
            if any(pid != os.getpid() for pid, _, _ in _SESSIONS):
                _SESSIONS.clear()  # a fork's copies of its parent's sessions are of no use
                library.reinitialize()
            token = library.get_token(token_label=self._token)
            _SESSIONS[self._place()] = token.open(rw=True, user_pin=_pin(self._pin_file))
        return _SESSIONS[self._place()]


def _read(spec: str) -> tuple[str, str, Path]:
    """Token label, module file and PIN file of an RFC 7512 URI."""
    path, _, query = spec.removeprefix("pkcs11:").partition("?")
    attributes = dict(part.partition("=")[::2] for part in path.split(";") if part)
    more = {name: values[0] for name, values in parse_qs(query).items()}
    try:
        return unquote(attributes["token"]), more["module-path"], Path(more["pin-source"].removeprefix("file:"))
    except KeyError as fault:
        advice = "write pkcs11:token=LABEL?module-path=FILE&pin-source=FILE; docs/store.md shows it."
        raise InputError("bad_config", "keys pkcs11:", f"{fault} is missing; {advice}") from fault


def _pin(path: Path) -> str:
    try:
        return path.read_text(encoding="utf8").strip()
    except OSError as fault:
        raise OnshoreError("key_missing", path, "put the token's PIN into this file, mode 0600.") from fault


def _gcm(nonce: bytes, bound: bytes) -> dict[str, Any]:
    import pkcs11

    return {"mechanism": pkcs11.Mechanism.AES_GCM, "mechanism_param": pkcs11.GCMParams(nonce, bound)}
