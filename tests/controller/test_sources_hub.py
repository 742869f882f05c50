"""Models of a hub: against a stand-in on loopback, with the hub's own library in a real child."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_controller.compile.sources.sources import Asked, Resolved, SourceRefused
from tests.controller import checkpoints, far_places, source_rig
from tests.controller.far_places import Hub
from tests.controller.source_rig import asked, looked, prepared

CREDENTIALS = {"hub": {"for": ["hf://acme/"], "token": {"env": "TEST_HUB_TOKEN"}}}


@pytest.fixture(scope="module")
def shared() -> Iterator[Hub]:
    with far_places.hub() as place:
        yield place


@pytest.fixture
def hub(shared: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_ENDPOINT", f"http://{shared.host}")
    # What the controller's own user could prove must not be sent unasked.
    monkeypatch.setenv("HF_TOKEN", "of-the-controllers-user")
    monkeypatch.setenv("TEST_HUB_TOKEN", "the-token")
    for place in (shared, shared.store):
        place.seen.clear()
        place.cuts.clear()
    shared.trouble = 0
    return shared


@pytest.fixture
def model(tmp_path: Path) -> dict[str, bytes]:
    folder = checkpoints.write(tmp_path / "model", model__safetensors=_weights(rows=4_000))
    return source_rig.files_of(folder) | {"pytorch_model.bin": b"\x80pickle", "modeling.py": b"print()"}


PIECE = 10 << 20


def _weights(rows: int) -> bytes:
    return checkpoints.safetensors({"embed": [rows, 8], "norm": [8]})


async def test_a_model_is_fetched_by_its_commit_and_then_needs_no_hub(
    hub: Hub, model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.push("acme/plain", model)
    sources, said = source_rig.sources(tmp_path), []
    resolved = Resolved()
    look = await sources.look(asked("hf://acme/plain"), resolved)
    wanted = sum(len(model[name]) for name in ("config.json", "tokenizer.json", "model.safetensors"))
    assert (look.source, look.known, look.fetch_bytes) == (None, None, wanted)
    assert look.steps == ("fetch hf://acme/plain@main",)
    assert commit in look.notes[0]

    source = await sources.prepare(
        asked("hf://acme/plain"),
        resolved,
        lambda *words: said.append(words),
    )
    assert source.origin == f"hf://acme/plain@{commit}"
    assert {file.path: file.place.read_bytes() for file in source.files} == {
        name: model[name] for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
    assert source.facts is not None
    assert said[-1][1] == 1.0
    everything = [*hub.seen, *hub.store.seen]
    assert not any(".bin" in request.path or ".py" in request.path for request in everything)
    assert not any("authorization" in {name.lower() for name in request.headers} for request in everything)

    # Named by its commit, it is taken from here: also by a controller that cannot reach the hub any more.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    again = await looked(source_rig.sources(tmp_path), asked(f"hf://acme/plain@{commit}"))
    assert again.source == source
    with pytest.raises(SourceRefused, match=rf"cannot be reached .* write @{commit}"):
        await looked(source_rig.sources(tmp_path), asked("hf://acme/plain"))


async def test_a_download_goes_on_where_it_was_cut_also_after_it_was_cancelled(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    large = _weights(rows=2_000_000)
    commit, resolved = hub.push("acme/cut", model | {"model.safetensors": large}), Resolved()
    sources, started = source_rig.sources(tmp_path), asyncio.Event()
    hub.store.stalls["model.safetensors"] = [11_000_000]

    def say(_step: str, done: float, _what: str) -> None:
        if done > 0.3:
            started.set()

    fetching = asyncio.create_task(sources.prepare(asked(f"hf://acme/cut@{commit}"), resolved, say))
    await asyncio.wait_for(started.wait(), 60)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    [half] = (tmp_path / "sources").glob(".*/model.safetensors.partial")
    assert half.stat().st_size == PIECE, "the hub's library writes in pieces of ten MiB"

    hub.store.seen.clear()
    hub.store.cuts["model.safetensors"] = [11_000_000]
    source = await source_rig.sources(tmp_path).prepare(asked(f"hf://acme/cut@{commit}"), resolved, lambda *_: None)
    ranges = [request.headers.get("Range") for request in hub.store.gets("model.safetensors")]
    assert ranges == [f"bytes={PIECE}-", f"bytes={2 * PIECE}-"]
    assert (source.folder / "model.safetensors").read_bytes() == large


async def test_a_token_goes_to_the_hub_only_and_is_written_nowhere(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    hub.push("acme/private", model)
    hub.private.add("acme/private")
    sources = source_rig.sources(tmp_path, CREDENTIALS)
    with pytest.raises(SourceRefused, match="or it is private: name `credentials`"):
        await looked(sources, asked("hf://acme/private"))
    hub.seen.clear()
    source = await prepared(sources, asked("hf://acme/private", credentials="hub"))
    assert source.facts is not None
    assert {request.headers.get("authorization") for request in hub.seen} == {"Bearer the-token"}
    assert hub.store.gets("model.safetensors")
    assert all("authorization" not in request.headers for request in hub.store.seen)
    written = source_rig.everything_written(tmp_path / "sources")
    assert b"the-token" not in written
    assert b"of-the-controllers-user" not in written
    assert far_places.SIGNATURE.encode() not in written


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (asked("hf://acme/none"), "source: the hub has no hf://acme/none"),
        (asked("hf://acme/gated"), "source: hf://acme/gated is gated: ask for access on its page; name `credentials`"),
        (asked("hf://acme/there@gone"), "source: hf://acme/there has no revision 'gone', or has it no more"),
        (asked("hf://acme/there", credentials="other"), "credentials: 'other': the controller's settings have hub"),
        (asked("hf://else/where", credentials="hub"), "credentials: 'hub' is for hf://acme/ only"),
    ],
)
async def test_what_the_hub_does_not_give_is_said_with_its_key(
    hub: Hub, model: dict[str, bytes], tmp_path: Path, wanted: Asked, says: str
) -> None:
    for name in ("acme/gated", "acme/there"):
        hub.push(name, model)
    hub.gated.add("acme/gated")
    with pytest.raises(SourceRefused) as refused:
        await looked(source_rig.sources(tmp_path, CREDENTIALS), wanted)
    assert f"{refused.value.key}: {refused.value}".startswith(says)
    assert [path for path in (tmp_path / "sources").iterdir() if path.suffix != ".log"] == []


async def test_a_wrong_token_is_refused_and_not_repeated(
    hub: Hub, model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push("acme/guarded", model)
    hub.private.add("acme/guarded")
    monkeypatch.setenv("TEST_HUB_TOKEN", "an-old-secret-of-ours")
    with pytest.raises(SourceRefused, match="the credentials 'hub' do not open it") as refused:
        await looked(source_rig.sources(tmp_path, CREDENTIALS), asked("hf://acme/guarded", credentials="hub"))
    assert "an-old-secret" not in str(refused.value)
    assert b"an-old-secret" not in source_rig.everything_written(tmp_path)
    assert os.environ["TEST_HUB_TOKEN"]  # and it is set, so the search could find it


async def test_other_bytes_than_the_hub_lists_are_not_taken(hub: Hub, model: dict[str, bytes], tmp_path: Path) -> None:
    commit = hub.push("acme/other", model)
    listed = hub.repositories["acme/other", commit]
    sources = source_rig.sources(tmp_path)
    resolved = Resolved()
    await sources.look(asked("hf://acme/other"), resolved)
    honest = listed["model.safetensors"]
    listed["model.safetensors"] = honest[:-1] + b"x"
    with pytest.raises(SourceRefused, match=r"model\.safetensors: other bytes than are listed; apply again"):
        await sources.prepare(asked("hf://acme/other"), resolved, lambda *_: None)
    listed["model.safetensors"] = honest
    source = await sources.prepare(asked("hf://acme/other"), resolved, lambda *_: None)
    assert (source.folder / "model.safetensors").read_bytes() == honest


async def test_a_model_with_code_of_its_own_is_refused_before_its_weights_come(
    hub: Hub, model: dict[str, bytes], tmp_path: Path
) -> None:
    config = b'{"auto_map": {"AutoModel": "modeling.X"}, "architectures": ["X"]}'
    hub.push("acme/code", model | {"config.json": config})
    with pytest.raises(SourceRefused, match=r"hf://acme/code.*needs its own code") as refused:
        await prepared(source_rig.sources(tmp_path), asked("hf://acme/code"))
    assert str(tmp_path) not in str(refused.value)
    assert not hub.store.gets("model.safetensors")
    assert not [path for path in (tmp_path / "sources").iterdir() if path.suffix == ".json"]
