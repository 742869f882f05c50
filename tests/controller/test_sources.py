"""What may be a source, which files are taken of a far place, where secrets come from, what is kept: no network."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import pytest

from edgewright_controller.compile.source import SourceError, inspect
from edgewright_controller.compile.sources import credentials, listing, reference
from edgewright_controller.compile.sources.credentials import CredentialsError
from edgewright_controller.compile.sources.fetching import Redaction
from edgewright_controller.compile.sources.kept import Kept
from edgewright_controller.compile.sources.listing import FarFile, Listing
from edgewright_controller.compile.sources.reference import Folder, GgufFile, Hub, NoReference, Objects
from tests.controller import checkpoints

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("models/x", Folder("models/x")),
        ("x.GGUF", GgufFile("x.GGUF")),
        ("hf://acme/llama-3.2", Hub("acme/llama-3.2", "main")),
        (f"hf://acme/x@{COMMIT}", Hub("acme/x", COMMIT)),
        ("hf://acme/x@refs/pr/3", Hub("acme/x", "refs/pr/3")),
        ("s3://bucket/a/b/", Objects("s3", "bucket", "a/b")),
        ("az://box", Objects("az", "box", "")),
        ("https://models.example:8443/a", Objects("https", "models.example:8443", "a")),
    ],
)
def test_a_source_is_read_as_it_is_meant(text: str, named: reference.Reference) -> None:
    assert reference.parse(text) == named
    assert reference.parse(str(named)) == named


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("~/x", "not expanded"),
        ("a\nb", "cannot be printed"),
        ("hf://acme", "write hf://organisation/name@revision"),
        ("hf://acme/../x", "names no repository"),
        ("hf://acme/x@", "is no revision"),
        ("hf://acme/x@a..b", "is no revision"),
        ("s3://UPPER/x", "names no bucket"),
        ("s3://key:secret@bucket/x", "secrets never here"),
        ("gs://bucket/../other", "is empty, is . or .."),
        ("https://user:secret@host/x", "name secrets with `credentials`"),
        ("https://host/x?token=secret", "name secrets with `credentials`"),
        ("https://host/x.zip", "names an archive"),
        ("https:///x", "names no host"),
        ("https://host:x/y", "is no address"),
        ("http://host/x", "read by anybody on the way; there are a path, hf://"),
        ("ftp://host/x", "ftp:// is not known"),
    ],
)
def test_what_names_no_source_is_refused_without_repeating_a_secret(text: str, says: str) -> None:
    with pytest.raises(NoReference) as refused:
        reference.parse(text)
    assert says in str(refused.value)
    assert "token=secret" not in str(refused.value)
    assert "user:secret" not in str(refused.value)


def _listing(*names: str, indexed: tuple[str, ...] = (), other: tuple[str, ...] = ()) -> Listing:
    return Listing(tuple(FarFile(name, 10) for name in names), indexed=indexed, other=other)


SMALL = ("config.json", "tokenizer.json")


def test_only_the_files_that_a_build_reads_are_taken() -> None:
    plain = listing.choose(_listing(*SMALL, "model.safetensors", "consolidated.safetensors"), listing.CHECKPOINT)
    assert [file.path for file in plain.files] == [*SMALL, "model.safetensors"]
    shards = ("model-1.safetensors", "model-2.safetensors")
    index = "model.safetensors.index.json"
    split = listing.choose(_listing(*SMALL, index, *shards, "x.safetensors", indexed=shards), listing.CHECKPOINT)
    assert [file.path for file in split.weights] == [*shards]
    assert split.marks != plain.marks
    adapter = listing.choose(_listing(*listing.ADAPTER_FILES), listing.ADAPTER)
    assert [file.path for file in adapter.files] == [*listing.ADAPTER_FILES]


@pytest.mark.parametrize(
    ("found", "what", "says"),
    [
        (_listing("tokenizer.json", "model.safetensors"), listing.CHECKPOINT, "no config.json"),
        (_listing("config.json", "model.safetensors"), listing.CHECKPOINT, "no tokenizer"),
        (_listing(*SMALL, other=("pytorch_model.bin",)), listing.CHECKPOINT, "pytorch_model.bin: a pickle can run"),
        (_listing(*SMALL), listing.CHECKPOINT, "no .safetensors file"),
        (
            _listing(*SMALL, "a.safetensors", "model.safetensors.index.json", indexed=("../../etc/x.safetensors",)),
            listing.CHECKPOINT,
            "but there is no such file",
        ),
        (_listing(*SMALL, "../x.safetensors"), listing.CHECKPOINT, "a name that no checkpoint has"),
        (_listing(*SMALL, *(f"m{n}.safetensors" for n in range(2001))), listing.CHECKPOINT, "at most 2,000"),
        (Listing((*_listing("tokenizer.json", "a.safetensors").files, FarFile("config.json", 1 << 40))), "checkpoint",
         "at most 67,108,864"),
        (Listing((*_listing(*SMALL).files, FarFile("a.safetensors", 1 << 50))), listing.CHECKPOINT, "at most"),
        (_listing("adapter_config.json", other=("adapter_model.bin",)), listing.ADAPTER, "adapter_model.bin: a pickle"),
        (_listing("config.json"), listing.ADAPTER, "not an adapter of PEFT"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_a_model_is_refused_by_its_list(found: Listing, what: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        listing.choose(found, what)


def test_credentials_are_for_what_the_settings_say_and_nothing_else() -> None:
    named = credentials.parse({"hub": {"for": ["hf://acme/"], "token": {"env": "X"}}})["hub"]
    assert named.covers(Hub("acme/x"))
    assert not named.covers(Hub("acme-of-others/x"))
    web = credentials.parse({"web": {"for": ["https://models.example/"], "token": {"env": "X"}}})["web"]
    assert web.covers(Objects("https", "models.example", "a"))
    assert not web.covers(Objects("https", "models.example.evil.org", "a"))
    bucket = credentials.parse({"b": {"for": ["s3://models/"], "endpoint": "http://minio:9000"}})["b"]
    assert bucket.covers(Objects("s3", "models", ""))
    assert not bucket.covers(Objects("s3", "models-of-others", ""))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"token": {"env": "X"}}, r"credentials\.x\.for: must list"),
        ({"for": ["hf://acme"], "token": {"env": "X"}}, "up to a slash"),
        ({"for": ["https://"], "token": {"env": "X"}}, "up to a slash"),
        ({"for": ["hf://", "s3://b/"], "token": {"env": "X"}}, "names hf and s3"),
        ({"for": ["hf://"], "token": "hf_secret"}, "never stands in a file of settings"),
        ({"for": ["hf://"], "token": {"env": "X", "file": "y"}}, "says where the secret lies"),
        ({"for": ["hf://"], "token": {"keyring": "x"}}, "service/user"),
        ({"for": ["hf://"], "tokn": {"env": "X"}}, "unknown key; for hf:// there are for, token"),
        ({"for": ["s3://b/"], "access_key_id": {"env": "X"}}, "go together"),
        ({"for": ["az://b/"], "sas_token": {"env": "X"}}, "account: missing"),
        ({"for": ["hf://"]}, "has no secret"),
    ],
)
def test_settings_of_credentials_that_are_wrong_are_refused(table: dict[str, Any], says: str) -> None:
    with pytest.raises(CredentialsError, match=says) as refused:
        credentials.parse({"x": table})
    assert "hf_secret" not in str(refused.value)


def _secret(place: dict[str, str], environment: dict[str, str] | None = None) -> str:
    named = credentials.parse({"hub": {"for": ["hf://"], "token": place}})["hub"]
    secrets = credentials.read(named, environment or {})
    assert repr(secrets) == "Secrets(token)"
    return secrets.for_the_child()["token"]


def test_a_secret_is_read_from_where_it_lies(tmp_path: Path) -> None:
    assert _secret({"env": "TOKEN"}, {"TOKEN": "abc"}) == "abc"
    with pytest.raises(CredentialsError, match=r"credentials\.hub\.token: the controller's environment has no TOKEN"):
        _secret({"env": "TOKEN"})
    file = tmp_path / "token"
    file.write_text("abc\n")
    file.chmod(0o600)
    assert _secret({"file": str(file)}) == "abc"
    file.chmod(0o640)
    with pytest.raises(CredentialsError, match=f"others may read {file}; chmod 600 {file}"):
        _secret({"file": str(file)})
    file.chmod(0o600)
    file.write_bytes(b"\xff" * 10)
    with pytest.raises(CredentialsError, match="no text") as refused:
        _secret({"file": str(file)})
    assert "0xff" not in str(refused.value)
    with pytest.raises(CredentialsError, match="No such file"):
        _secret({"file": str(tmp_path / "none")})


def test_a_secret_is_read_from_a_keyring() -> None:
    class Ring(keyring.backend.KeyringBackend):
        priority = 1

        def get_password(self, service: str, user: str) -> str | None:
            return "abc" if (service, user) == ("the/hub", "edgewright") else None

        def set_password(self, service: str, user: str, password: str) -> None: ...

        def delete_password(self, service: str, user: str) -> None: ...

    before = keyring.get_keyring()
    keyring.set_keyring(Ring())  # type: ignore[no-untyped-call]
    try:
        assert _secret({"keyring": "the/hub/edgewright"}) == "abc"
        with pytest.raises(CredentialsError, match="has nothing for nobody of the/hub"):
            _secret({"keyring": "the/hub/nobody"})
    finally:
        keyring.set_keyring(before)


def test_secrets_leave_no_trace_in_text() -> None:
    key = '{"private_key": "-----BEGIN-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\\n"}'
    clean = Redaction(credentials.Secrets({"token": "hf_secret", "service_account_key": key}))
    said = clean("denied for hf_secret: MIIEvQIBADANBgkqhkiG9w0BAQEFAASC at https://cdn.example/x?Signature=abc done")
    assert said == "denied for [redacted]: [redacted] at https://cdn.example/x?[redacted] done"


def _put(kept: Kept, tmp_path: Path, digit: str) -> Any:
    key = digit * 64
    checkpoints.write(kept.half(key), {"max_position_embeddings": int(digit)})
    made = inspect(kept.half(key))
    return kept.put(key, made, origin=f"hf://acme/x@{digit * 40}", requantised=False)


def test_what_is_kept_makes_room_for_what_is_newer_and_is_remembered(tmp_path: Path) -> None:
    kept = Kept(tmp_path, budget_bytes=1100)  # two of some 530 bytes
    first, second = _put(kept, tmp_path, "1"), _put(kept, tmp_path, "2")
    os.utime(first.folder, ns=(1, 1))
    with kept.holding(["1" * 64]):
        _put(kept, tmp_path, "3")
        assert first.folder.exists(), "what a build reads is not taken away"
    os.utime(first.folder, ns=(1, 1))
    _put(kept, tmp_path, "4")
    assert not first.folder.exists()
    assert kept.source("1" * 64) is None
    known = kept.known("1" * 64)
    assert known is not None
    assert (known.digest, known.facts, known.bytes) == (first.digest, first.facts, first.bytes)
    assert second.digest != first.digest


def test_what_was_touched_is_not_taken_for_what_was_put(tmp_path: Path) -> None:
    kept = Kept(tmp_path, budget_bytes=1 << 20)
    source = _put(kept, tmp_path, "1")
    again = Kept(tmp_path, budget_bytes=1 << 20).source("1" * 64)
    assert again == source
    assert dataclasses.replace(source, origin="") != source
    weights = source.folder / "model.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1])
    assert kept.source("1" * 64) is None
    assert _put(kept, tmp_path, "1").digest == source.digest


def test_what_a_crash_left_is_swept_but_not_what_can_be_gone_on_from(tmp_path: Path) -> None:
    kept = Kept(tmp_path, budget_bytes=1)
    half = kept.half("1" * 64)
    (tmp_path / ".fetching-x").mkdir()
    Kept(tmp_path, budget_bytes=1)
    assert list(tmp_path.iterdir()) == [half]
