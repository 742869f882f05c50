"""What was built of models, over the wire and by the commands: cards, refusals, provenance, and that it is signed."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import Connection

from edgewright_contract import targets
from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import run
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.build_records import BuildRecords
from edgewright_controller.compile.builder import BuildRefused, Built, Progress
from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.source import Source, inspect
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.ledger import Ledger, artifacts, build_cards, model_builds, releases
from edgewright_controller.ledger.build_cards import BuildCardRow
from edgewright_controller.ledger.model_builds import ModelBuildRow
from edgewright_controller.plan import Build
from edgewright_controller.publish import ImageRepository
from edgewright_controller.quality import provenance, report_card
from edgewright_controller.quality.limits import NO_OVERRIDES, Overrides
from edgewright_controller.quality.report_card import Origin, ReportCard
from edgewright_controller.quality.verdict import Refusal
from edgewright_controller.service.change import BadInput, ChangeRefused
from edgewright_controller.service.compiling import Compiling
from edgewright_controller.service.job import Job
from edgewright_controller.service.model_views import Models
from tests.controller import checkpoints
from tests.controller.ledger_rows import opened
from tests.controller.ledger_rows import release as release_of
from tests.controller.service_rig import Controller, controller, manifest, result, words
from tests.controller.signed_things import NOW, look_up
from tests.controller.test_model_pages import figures
from tests.controller.test_report_card import card

Q8, Q2 = make("gguf", "Q8_0"), make("gguf", "Q2_K")


class PaperBuilder:
    """Builds files of a few bytes at once, with a card; what is in `refuses` it refuses."""

    def __init__(self, store: ArtifactStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self.refuses: set[str] = set()
        self.records = BuildRecords(folder / "builds")

    async def build(
        self,
        source: Source,
        recipe: Recipe,
        key: str,
        progress: Callable[[Progress], None],
        quality: Sequence[Overrides],
    ) -> Built:
        progress(Progress(key, "measure", 1.0, "measuring"))
        measures, log = figures(0.9), self._folder / "log"
        if recipe.quantization in self.refuses:
            refusals = (Refusal("divergence", "mean KL 0.9 nats, at most 0.6"), Refusal("parity", "differs", "chat 1"))
            raise BuildRefused(measures, refusals, "d" * 64, log)
        out = self._folder / key
        out.mkdir()
        (out / "model.gguf").write_text(recipe.quantization)
        stored = self._store.add(out)
        origin = Origin(source.digest, "hf://org/name@0123")
        made = card(artifact=stored.bundle, build_key=key, quantization=recipe.quantization, origin=origin)
        return Built(stored, log, measures, dataclasses.replace(made, recipe=recipe.to_json(), measures=measures))


class Shop:
    """A ledger, a store, and builds of one model into both."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.ledger, self.store = ledger, ArtifactStore(folder / "store")
        self.builder = PaperBuilder(self.store, folder)
        self.source = inspect(checkpoints.write(folder / "model"))
        self.models = Models(ledger, self.store)
        self.job = Job()
        ticks = iter(range(1000))
        self.compiling = Compiling(
            "plant-7",
            ledger,
            self.store,
            self.builder,  # type: ignore[arg-type]
            lambda: NOW + timedelta(seconds=next(ticks)),
        )

    async def make(self, *recipes: Recipe) -> None:
        builds = [self.build(recipe) for recipe in recipes]
        await self.enter(model_builds.put, *map(_row, builds))
        await self.compiling.make(builds, {build.key: self.source for build in builds}, self.job, NOW)

    def build(self, recipe: Recipe) -> Build:
        key = build_key(self.source.digest, recipe, {"gguf": "1"})
        return Build(key, "smollm2", ("jetson",), recipe, "model", False, "", 0, (NO_OVERRIDES,))

    async def enter(self, put: Callable[[Connection, Any], None], *rows: Any) -> None:
        def act(connection: Connection) -> None:
            for row in rows:
                put(connection, row)

        await self.ledger.write(act)

    def read(self, act: Callable[[Connection], Any]) -> Any:
        return self.ledger.read_now(act)


def _row(build: Build) -> ModelBuildRow:
    runtime, quantization = build.recipe.runtime, build.recipe.quantization
    return ModelBuildRow(build.model, build.key, runtime, quantization, json.dumps(build.recipe.to_json()), 1)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    with opened(tmp_path) as ledger:
        made = Shop(tmp_path, ledger)
        yield made
        await made.compiling.close()


async def test_a_build_leaves_its_card_and_the_statement_of_how_it_was_made(shop: Shop) -> None:
    await shop.make(Q8)
    (record,) = shop.builder.records.newest_first()
    assert (record.state, record.model, record.recipe) == ("built", "smollm2", "gguf Q8_0")
    assert [name for name, _ in record.stages] == ["measure"]
    (view,) = (await shop.models.shown("smollm2")).builds
    read = report_card.from_json(json.loads(view.card))
    assert (read.artifact, read.quantization, view.refused) == (view.artifact, "Q8_0", "")
    assert view.artifact_bytes == len("Q8_0")
    answer = await shop.models.provenance(view.artifact)
    assert answer.sha256 == view.provenance
    told = provenance.parse(answer.statement, answer.sha256)
    assert (told.artifact, told.build_key, told.source) == (view.artifact, view.build_key, shop.source.digest)
    assert told.card == read.digest, "the statement names the card by its digest"
    assert {file.name for file in told.files} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (told.fleet, told.origin) == ("plant-7", "hf://org/name@0123")
    assert told.started < told.finished
    with shop.store.open_object(told.card) as file:
        assert file.read() == view.card.encode(), "the card can be had by the digest that the statement names"
    events = [event async for event in _events(shop.job)]
    assert events[-2].build.detail == "4.50 bits, KL 0.9, 23.0 tokens/s (× 2.00)"


async def _events(job: Job) -> AsyncIterator[operator_pb2.ApplyEvent]:
    job.say(operator_pb2.ApplyEvent(result=operator_pb2.ApplyResult(succeeded=True)))
    async for event in job.follow():
        yield event


async def test_a_refused_build_stays_with_its_reason_until_it_passes(shop: Shop) -> None:
    shop.builder.refuses = {"Q2_K"}
    with pytest.raises(ChangeRefused, match="mean KL"):
        await shop.make(Q8, Q2)
    passed, refused = (await shop.models.shown("smollm2")).builds
    assert (passed.quantization, passed.refused) == ("Q8_0", "")
    assert refused.quantization == "Q2_K"
    assert "mean KL 0.9 nats, at most 0.6" in refused.refused
    assert "chat 1" in refused.refused
    assert refused.measures
    (model,) = (await shop.models.listed()).models
    assert (model.model, model.builds, model.refused, model.smallest_bytes) == ("smollm2", 1, 1, 4)
    shop.builder.refuses = set()
    await shop.make(Q2)
    assert not [view.refused for view in (await shop.models.shown("smollm2")).builds if view.refused]


async def test_the_digest_of_the_statement_is_signed_with_the_artifact(shop: Shop, tmp_path: Path) -> None:
    await shop.make(Q8)
    (view,) = (await shop.models.shown("smollm2")).builds
    release = dataclasses.replace(release_of(), artifact=view.artifact)
    await shop.ledger.write(lambda c: releases.put(c, release, 0, 1))
    target = shop.read(lambda c: releases.get(c, release.digest)).target
    assert target.provenance == view.provenance
    # By the builder's own process, which signs nothing that is not of this form.
    image = ImageRepository.open(tmp_path / "image", tmp_path / "keys", datetime.now(timezone.utc))
    image.publish([target], datetime.now(timezone.utc))
    found = look_up(image.first_root, image.files({}), target.path)
    assert found is not None
    assert found.custom is not None
    assert found.custom["provenance"] == view.provenance
    assert targets.parse(found.path, found.length, found.hashes, found.custom) == target


async def test_provenance_that_is_not_there_says_why(shop: Shop) -> None:
    await shop.make(Q8, Q2)
    views = (await shop.models.shown("smollm2")).builds
    assert (await shop.models.provenance(views[0].artifact[:12])).artifact == views[0].artifact
    for prefix, wrong in (
        ("", "by at least 4 signs"),
        ("abc", "by at least 4 signs"),
        ("zzzz", "there is no artifact and no release 'zzzz'"),
        ("%%%%", "there is no artifact"),
    ):
        with pytest.raises(BadInput, match=wrong):
            await shop.models.provenance(prefix)
    twins = [artifacts.ArtifactRow(f"{letter:a<64}", 1, 1, "b" * 64, 1) for letter in ("cafe1", "cafe2")]
    await shop.enter(artifacts.put, *twins)
    with pytest.raises(BadInput, match="begins several"):
        await shop.models.provenance("cafe")
    with pytest.raises(ChangeRefused, match="shipped prebuilt, or built by an older controller"):
        await shop.models.provenance("cafe1")
    place = shop.store._object(views[0].provenance)
    place.chmod(0o644)
    place.write_bytes(b"{}")
    with pytest.raises(ChangeRefused, match="damaged in the store"):
        await shop.models.provenance(views[0].artifact)
    place.unlink()
    with pytest.raises(ChangeRefused, match="not in the store any more"):
        await shop.models.provenance(views[0].artifact)


async def test_two_who_want_one_build_get_one_statement(shop: Shop) -> None:
    build = shop.build(Q8)
    await shop.enter(model_builds.put, _row(build))
    sources = {build.key: shop.source}
    await asyncio.gather(*(shop.compiling.make([build], sources, Job(), NOW) for _ in range(2)))
    (view,) = (await shop.models.shown("smollm2")).builds
    assert len(list((shop.store._objects).iterdir())) == 4, "bundle, block index, card and one statement"
    assert (await shop.models.provenance(view.artifact)).sha256 == view.provenance


# ── Over the wire ──


async def command(fleet: Controller, line: str) -> int:
    return await asyncio.to_thread(run, [*line.split(), "--config", str(fleet.running.client_toml)])


async def test_the_commands_say_of_a_prebuilt_model_that_nobody_measured_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with controller(tmp_path / "state") as fleet:
        assert await command(fleet, "models list") == 0
        assert "no model was compiled yet" in capsys.readouterr().out
        assert result(await fleet.apply(manifest(tmp_path, ["dev-a"]), tmp_path, build_only=True)).succeeded
        assert await command(fleet, "models list") == 0
        assert "tiny" in capsys.readouterr().out
        assert await command(fleet, "models show tiny") == 0
        assert "gguf prebuilt: no report card: shipped prebuilt" in capsys.readouterr().out
        assert await command(fleet, "models compare tiny") == 0
        assert "no build of it has a report card" in capsys.readouterr().out
        assert await command(fleet, "models show tini") == 2
        assert "there is no build of model 'tini'; did you mean" in capsys.readouterr().err
        assert await command(fleet, "models provenance tiny") == 1
        assert "none of its artifacts has provenance" in capsys.readouterr().err
        (view,) = (await fleet.operator.ListReleases(operator_pb2.ListReleasesRequest(), timeout=10)).releases
        assert await command(fleet, f"releases show {view.release[:8]}") == 0
        assert "none: it was shipped prebuilt" in capsys.readouterr().out
        with pytest.raises(grpc.aio.AioRpcError, match="has no provenance") as caught:
            await fleet.operator.FetchProvenance(operator_pb2.FetchProvenanceRequest(artifact=view.release), timeout=10)
        assert words(caught.value).startswith(f"artifact {view.artifact[:12]}")


async def test_the_commands_show_compare_and_export_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    async with controller(state) as fleet:
        assert result(await fleet.apply(manifest(tmp_path, ["dev-a"]), tmp_path, build_only=True)).succeeded
    made = _measured(state)
    async with controller(state) as fleet:
        assert await command(fleet, "models show tiny") == 0
        out = capsys.readouterr().out
        assert "gguf" in out
        assert "23.0 (× 2.00)" in out
        assert await command(fleet, "models show tiny --json") == 0
        (build,) = json.loads(capsys.readouterr().out)["builds"]
        assert report_card.from_json(json.loads(build["card"])) == made
        assert await command(fleet, f"models compare tiny --plot {tmp_path / 'tiny.html'}") == 0
        assert "size and KL, size and speed" in capsys.readouterr().out
        assert "Builds of tiny" in (tmp_path / "tiny.html").read_text()
        statement = tmp_path / "statement.json"
        assert await command(fleet, f"models provenance tiny --out {statement}") == 0
        assert f"in-toto statement of artifact {made.artifact[:12]}" in capsys.readouterr().out
        assert provenance.parse(statement.read_bytes()).card == made.digest
        assert await command(fleet, f"models provenance {made.artifact[:9]}") == 0
        assert "the controller of plant-7" in capsys.readouterr().out
        assert await command(fleet, f"models provenance tiny --out {tmp_path / 'none' / 'x'}") == 1
        assert "No such file or directory" in capsys.readouterr().err
        (view,) = (await fleet.operator.ListReleases(operator_pb2.ListReleasesRequest(), timeout=10)).releases
        assert await command(fleet, f"releases show {view.release[:8]}") == 0
        assert "by plant-7's controller 0.1.0" in capsys.readouterr().out.replace("\n", " ")


def _measured(state: Path) -> ReportCard:
    """The prebuilt artifact of a stopped controller, as if it had been compiled there."""
    store = ArtifactStore(state / "store")
    with opened(state) as ledger:
        ((key, build),) = ledger.read_now(artifacts.builds).items()
        made = card(artifact=build.bundle, build_key=key, size_bytes=build.size)
        told = provenance.Provenance(
            artifact=build.bundle,
            build_key=key,
            fleet="plant-7",
            recipe=made.recipe,
            source=made.origin.digest,
            files=(),
            toolchain=made.toolchain,
            edgewright="0.1.0",
            started=NOW,
            finished=NOW,
            card=made.digest,
        )
        sha256 = store.put_object(provenance.statement(told))
        assert made.measures is not None
        row = BuildCardRow(key, build.bundle, json.dumps(made.measures.to_json()), passed=True, made_ms=1)
        row = dataclasses.replace(row, card=made.encode().decode(), provenance=sha256)
        ledger.write_now(lambda c: build_cards.put(c, row))
    return made
