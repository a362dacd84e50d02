"""One error tree and one refusal record for the whole center.

    OnshoreError               something broke                              exit 1
    ├── InputError             a file or field is not what was expected      exit 1 (the rest of a batch goes on)
    ├── NotFoundError          no such id, file or table                     exit 1
    ├── CorruptError           stored bytes are not what their digest says   exit 1
    ├── UsageError             the caller asked for something meaningless    exit 2
    └── RefusedError           carries a Refusal: a rule said no             exit 3

A refusal is a value (`Refusal`), a failure is an exception. `RefusedError` only carries a refusal through a call that
must return something else. Codes are stable: tests and users rely on them; `ERROR_CODES` lists every one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

ERROR_CODES: dict[str, str] = {
    "bad_config": "a configuration value is missing or impossible",
    "bad_id": "an id does not match [a-z0-9-]{1,80}",
    "bad_signature": "a signature does not verify",
    "bad_signer": "a segment is signed by a key that does not count for this car and region",
    "bad_trigger": "a trigger's expression cannot be read",
    "clock_disorder": "timestamps are missing, repeat, run backwards or lie where no drive can be",
    "clock_jump": "the wall clock and the ledger's time do not agree",
    "conflict": "an id is already taken by other bytes",
    "content_mismatch": "pictures are not what their topic or rig says they are",
    "corrupt": "stored bytes do not match their digest",
    "damaged_video": "a video cannot be decoded",
    "drifted": "a set-up is no longer what was attested",
    "empty_file": "a file has no bytes",
    "empty_input": "nothing usable was found below a path",
    "erased": "the bytes were destroyed, on request or because their time had passed",
    "expired": "a document's time has passed",
    "gate_failed": "a gate's check failed or could not be measured",
    "geofenced": "a recording touches an area that the operator fenced off",
    "implausible": "a signal is outside what a car can do",
    "import_refused": "an artifact from outside may not come in",
    "incomplete": "a document lacks a field that the law asks for",
    "jail_unavailable": "isolation was demanded and this machine cannot give it",
    "key_missing": "the center's keys are not where they should be",
    "laundered": "fleet data came back under another name",
    "ledger_broken": "the ledger does not verify",
    "limit_exceeded": "an input is larger than the limit set for it",
    "missing_column": "a table lacks a column that its map names",
    "missing_dependency": "an optional part is not installed",
    "no_decision": "no policy gave a clean answer, so the answer is no",
    "not_allowed": "the region's policy forbids it",
    "not_cleared": "an artifact of this kind needs clearing before anybody outside may have it",
    "not_found": "no such thing",
    "not_measurable": "the figure cannot be measured with what is here",
    "not_in_region": "the target folder is not named as in-region and no permit was given",
    "out_of_region": "bytes of one region met a store of another",
    "permit_invalid": "a permit does not cover this export",
    "policy_failed": "a driver from elsewhere died, stayed silent or answered no plan",
    "raw_ban": "raw recordings never leave",
    "rollback": "an older version was offered",
    "still_held": "an erasure cannot be closed while a store still holds bytes",
    "tampered": "a file does not match its signed description",
    "unexpected": "something broke that nobody foresaw",
    "unknown_format": "no reader recognises this file",
    "unlabelled": "an artifact without a label does not exist",
    "unsafe_member": "an upload holds something that is no plain file in its own folder",
    "unsafe_path": "a path leads out of its folder",
    "usage": "the command cannot be understood",
    "world_crashed": "a world's child process died",
    "wrong_suite": "bytes were sealed under another suite of ciphers",
    "wrong_region": "a signed thing was made for another region",
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a rule said no: a stable code, the rule and the clause behind it, and what to do."""

    code: str
    subject: str
    rule: str
    clause: str
    remedy: str

    def __post_init__(self) -> None:
        if self.code not in ERROR_CODES:
            raise ValueError(f"unknown refusal code {self.code!r}")

    def __str__(self) -> str:
        return f"refused [{self.code}] {self.subject}: rule {self.rule} ({self.clause}). {self.remedy}"

    def as_record(self) -> dict[str, str]:
        return asdict(self)


class OnshoreError(Exception):
    """Something broke: a stable code, the file or field it is about, and one sentence of advice."""

    exit_code = 1

    def __init__(self, code: str, subject: object, advice: str) -> None:
        if code not in ERROR_CODES:
            raise ValueError(f"unknown error code {code!r}")
        self.code, self.subject, self.advice = code, str(subject), advice
        super().__init__(f"[{code}] {self.subject}: {advice}")

    def as_record(self) -> dict[str, str]:
        return {"code": self.code, "subject": self.subject, "advice": self.advice}


class InputError(OnshoreError):
    """A file or field is not what was expected; the rest of a batch goes on."""


class NotFoundError(OnshoreError):
    """No such id, file, table or key."""

    def __init__(self, subject: object, advice: str) -> None:
        super().__init__("not_found", subject, advice)


class CorruptError(OnshoreError):
    """Stored bytes are not what their digest or signature says."""


class UsageError(OnshoreError):
    """The caller asked for something that has no meaning."""

    exit_code = 2

    def __init__(self, subject: object, advice: str) -> None:
        super().__init__("usage", subject, advice)


class RefusedError(OnshoreError):
    """Carries a Refusal through a call that cannot return it."""

    exit_code = 3

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code, refusal.subject, f"rule {refusal.rule} ({refusal.clause}). {refusal.remedy}")
        self.refusal = refusal

    def as_record(self) -> dict[str, str]:
        return self.refusal.as_record()
