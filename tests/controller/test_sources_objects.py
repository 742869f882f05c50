"""Models of buckets and web servers: against stand-ins on loopback, with obstore in a real child."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgewright_controller.compile.sources.sources import Resolved, SourceRefused
from tests.controller import checkpoints, far_places, source_rig
from tests.controller.source_rig import asked, looked, prepared

SECRET = "a-secret-of-the-bucket"


def _bucket_settings(endpoint: str, secret_file: Path) -> dict[str, object]:
    keys = {"access_key_id": {"env": "TEST_KEY_ID"}, "secret_access_key": {"file": str(secret_file)}}
    return {
        "open": {"for": ["s3://models/"], "endpoint": endpoint},
        "bucket": {"for": ["s3://models/"], "endpoint": endpoint, "region": "eu-central-1"} | keys,
    }


@pytest.fixture
def model(tmp_path: Path) -> dict[str, bytes]:
    index = b'{"weight_map": {"embed": "model-1.safetensors", "norm": "model-2.safetensors"}}'
    folder = checkpoints.write(tmp_path / "model")
    (folder / "model.safetensors.index.json").write_bytes(index)
    (folder / "model-1.safetensors").write_bytes(checkpoints.safetensors({"embed": [4000, 8]}))
    (folder / "model-2.safetensors").write_bytes(checkpoints.safetensors({"norm": [8]}))
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    return source_rig.files_of(folder)


async def test_a_model_of_a_bucket_is_fetched_with_named_keys_and_nothing_else(
    model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY_ID", "an-id-of-ours")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-controllers-user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-controllers-user")
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    files = {f"models/llama/{name}": data for name, data in model.items()} | {"models/other": b"x"}
    with far_places.bucket(files) as place:
        place.token = "an-id-of-ours"
        place.trouble = 2  # which the library sits out
        sources = source_rig.sources(tmp_path, _bucket_settings(f"http://{place.host}", secret))
        with pytest.raises(SourceRefused, match=r"s3://models/llama is refused: the credentials 'open'"):
            await looked(sources, asked("s3://models/llama", credentials="open"))
        assert not any("of-the-controllers" in str(request.headers) for request in place.seen)
        place.seen.clear()
        resolved = Resolved()
        look = await sources.look(asked("s3://models/llama", credentials="bucket"), resolved)
        taken = sorted(name for name in model if name != "consolidated.safetensors")
        assert look.fetch_bytes == sum(len(model[name]) for name in taken)
        source = await sources.prepare(asked("s3://models/llama", credentials="bucket"), resolved, lambda *_: None)
        assert [file.path for file in source.files] == taken
        assert source.origin == "s3://models/llama"
        assert all("eu-central-1/s3" in request.headers["authorization"] for request in place.seen)

        # What changed there is another source.
        place.files["models/llama/tokenizer.json"] = b'{"version": "2"}'
        changed = await looked(sources, asked("s3://models/llama", credentials="bucket"))
        assert changed.source is None
    written = source_rig.everything_written(tmp_path / "sources")
    assert SECRET.encode() not in written
    assert b"an-id-of-ours" not in written
    assert SECRET not in str(os.environ)


async def test_a_folder_of_a_web_server_is_asked_for_the_names_that_its_index_has(
    model: dict[str, bytes], tmp_path: Path
) -> None:
    files = {f"models/llama/{name}": data for name, data in model.items()}
    with far_places.web(files) as place:
        place.cuts["model-1.safetensors"] = [20_000]
        source = await prepared(
            source_rig.sources(tmp_path, plain_http=True), asked(f"https://{place.host}/models/llama")
        )
        assert "model-1.safetensors" in [file.path for file in source.files]
        assert (source.folder / "model-1.safetensors").read_bytes() == model["model-1.safetensors"]
        assert len(place.gets("model-1.safetensors")) == 2
        assert not place.gets("consolidated.safetensors")


async def test_a_token_of_a_web_server_does_not_follow_it_to_another(
    model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_WEB_TOKEN", "for-one-host-only")
    with far_places.web({f"models/{name}": data for name, data in model.items()}) as other, far_places.web({}) as place:
        place.token, place.elsewhere = "for-one-host-only", f"localhost:{other.port}"
        named = {"web": {"for": [f"https://{place.host}/"], "token": {"env": "TEST_WEB_TOKEN"}}}
        sources = source_rig.sources(tmp_path, named, plain_http=True)
        await looked(sources, asked(f"https://{place.host}/models", credentials="web"))
    assert {request.headers.get("authorization") for request in place.seen} == {"Bearer for-one-host-only"}
    assert other.seen
    assert not any("authorization" in request.headers for request in other.seen)


async def test_a_place_that_is_no_model_or_is_not_there_is_said(tmp_path: Path) -> None:
    with far_places.web({"models/config.json": b"{}"}) as place:
        sources = source_rig.sources(tmp_path, plain_http=True)
        with pytest.raises(SourceRefused, match="no tokenizer"):
            await looked(sources, asked(f"https://{place.host}/models"))
        with pytest.raises(SourceRefused, match=r"not a model: it has no config\.json"):
            await looked(sources, asked(f"https://{place.host}/elsewhere"))
        # Without TLS nothing is asked outside of tests.
        with pytest.raises(SourceRefused, match="cannot be fetched"):
            await looked(source_rig.sources(tmp_path), asked(f"https://{place.host}/models"))
