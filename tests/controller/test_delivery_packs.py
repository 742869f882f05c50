"""Packs hold what comes back to the very block, and a damaged one is as good as none."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_contract import block_coding
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.compile.store import Stored, StoreError
from edgewright_controller.delivery import encoding, forms, making
from edgewright_controller.delivery.forms import Ask, BadAsk, Form, Forms
from edgewright_controller.delivery.packs import Pack, Packs
from tests.controller.delivery_pair import NUMBERS, WORDS, Room, gguf, key, nudged

RAW, ZSTD = agent_pb2.ENCODING_RAW, agent_pb2.ENCODING_ZSTD
DICT, SUB = agent_pb2.ENCODING_DICT_ZSTD, agent_pb2.ENCODING_SUB_ZSTD
ALL = frozenset({RAW, ZSTD, DICT, SUB})


class Update(Room):
    """From `base` to `wanted`: a longer template, weights moved a little, a new file of words."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.base = self.add({"a.json": b"{}", "model.gguf": gguf()})
        self.wanted = self.add(
            {"a.json": b"{}", "model.gguf": gguf("a longer one", nudged(NUMBERS)), "words.json": WORDS}
        )

    def make(self, base: Stored | None) -> making.Made:
        index = base.block_index if base else ""
        return making.make(self.store, self.packs, key(self.wanted, base), index)

    def ask(self, *bases: Stored, accepted: frozenset[int] = ALL) -> Ask:
        names = tuple(base.bundle for base in bases)
        return Ask(self.wanted.bundle, self.wanted.block_index, accepted, names)

    def decoded(self, form: Form, number: int, *bases: Stored) -> bytes:
        """As a device does."""
        base = b""
        if form.kept.base is not None:
            against, said = bases[form.base], form.kept.base
            path = self.store.bundle(against.bundle).files[said.file].path
            base = self.content(against, path)[said.offset : said.offset + said.size]
        return block_coding.decode(form.kept.encoding, form.kept.data, self.blocks(self.wanted)[number].size, base)

    def lacking(self, path: str = "") -> list[int]:
        """Numbers of the blocks that a holder of `base` lacks; those of one file, or all."""
        held = {block.sha256 for block in self.blocks(self.base)}
        return [
            block.index for block in self.blocks(self.wanted) if block.sha256 not in held and path in ("", block.path)
        ]


@pytest.fixture
def update(tmp_path: Path) -> Update:
    return Update(tmp_path)


def test_every_block_comes_back_in_far_fewer_bytes(update: Update) -> None:
    made = update.make(update.base)
    update.make(None)
    found, sent, encodings = Forms(update.packs), 0, set()
    for number in update.lacking():
        block = update.blocks(update.wanted)[number]
        form = found.find(update.ask(update.base), number)
        assert form is not None
        assert update.decoded(form, number, update.base) == update.store.read_block(update.wanted.bundle, block)
        assert len(form.kept.data) <= (1 - encoding.MIN_SAVING) * block.size
        sent += len(form.kept.data)
        encodings.add(form.kept.encoding)
    assert encodings == {ZSTD, DICT, SUB}
    words = sum(b.size for b in update.blocks(update.wanted) if b.path == "words.json")
    assert made.lacking == sum(update.blocks(update.wanted)[n].size for n in update.lacking())
    assert made.sent - words < made.lacking / 3
    assert sent < made.sent


def test_a_device_gets_only_what_it_understands_and_holds(update: Update) -> None:
    update.make(update.base)
    found, number = Forms(update.packs), update.lacking("model.gguf")[-1]
    both = found.find(update.ask(update.wanted, update.base), number)
    assert both is not None
    assert both.base == 1
    assert update.decoded(both, number, update.wanted, update.base)
    assert found.find(update.ask(), number) is None
    assert found.find(update.ask(update.wanted), number) is None
    assert found.find(update.ask(update.base, accepted=frozenset({RAW})), number) is None
    assert found.find(update.ask(update.base, accepted=ALL - {both.kept.encoding}), number) is None
    assert found.lacks(update.ask(update.wanted))
    assert not found.lacks(update.ask(update.base))
    assert not found.lacks(update.ask())
    assert not found.lacks(update.ask(update.wanted, accepted=frozenset({RAW, ZSTD})))


def test_what_compresses_by_nothing_is_not_kept_and_not_tried_again(tmp_path: Path) -> None:
    room = Room(tmp_path)
    wanted = room.add({"weights.bin": NUMBERS, "few.json": WORDS[:30_000]})
    made = making.make(room.store, room.packs, key(wanted), "")
    assert (made.blocks, made.kept, made.sent) == (0, 0, made.lacking)
    pack = room.packs.get(key(wanted))
    assert pack is not None
    assert len(pack) == 0


def test_a_pack_counts_only_for_the_index_that_it_was_made_of(update: Update) -> None:
    update.make(update.base)
    ask = update.ask(update.base)
    number = update.lacking()[0]
    assert Forms(update.packs).find(ask, number) is not None
    other = Ask(ask.wanted, update.base.block_index, ask.accepted, ask.bases)
    assert Forms(update.packs).find(other, number) is None
    assert Forms(update.packs).lacks(other)
    assert len(update.files) == 1


def test_packs_are_found_again_after_a_restart_and_what_a_crash_left_is_not(update: Update) -> None:
    update.make(update.base)
    folder = update.place / "store" / "deltas"
    (folder / f".{key(update.wanted, update.base).name}.abc").write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"?")
    reopened = Packs(folder)
    assert reopened.get(key(update.wanted, update.base)) is not None
    assert update.files == [key(update.wanted, update.base).name]


def test_an_artifact_that_goes_takes_its_packs_along(update: Update) -> None:
    other = update.add({"words.json": WORDS[:9]})
    update.make(update.base)
    update.make(None)
    making.make(update.store, update.packs, key(other), "")
    assert update.packs.of(update.wanted.bundle) == 1
    update.packs.remove(update.base.bundle)
    assert update.files == sorted([key(update.wanted).name, key(other).name])
    assert update.packs.get(key(update.wanted, update.base)) is None
    update.packs.remove(update.wanted.bundle)
    assert update.files == [key(other).name]


def damage(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * place), len(data) - 1)] ^= 0x10
    path.write_bytes(data)


@pytest.mark.attack("damaged pack of differences in the store")
def test_a_damaged_pack_is_as_none_and_is_removed(update: Update) -> None:
    update.make(update.base)
    path = update.place / "store" / "deltas" / key(update.wanted, update.base).name
    whole, ask, lacking = path.read_bytes(), update.ask(update.base), update.lacking("model.gguf")
    assert all(Forms(update.packs).find(ask, number) is not None for number in lacking)
    places = [0.0, *(place / 40 for place in range(1, 40)), 1.0]
    gone = 0
    for place in places:
        path.write_bytes(whole)
        damage(path, place)
        found = Forms(Packs(path.parent))
        for number in lacking:
            form = found.find(ask, number)
            if form is not None:
                block = update.blocks(update.wanted)[number]
                assert update.decoded(form, number, update.base) == update.store.read_block(update.wanted.bundle, block)
        gone += not path.exists()
    assert gone == len(places)
    for length in (0, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert Forms(Packs(path.parent)).find(ask, lacking[0]) is None
        assert not path.exists()
    path.write_bytes(whole + b"x")
    assert Forms(Packs(path.parent)).find(ask, lacking[0]) is None


def test_a_pack_that_changes_while_it_is_open_is_let_go_of(update: Update) -> None:
    update.make(update.base)
    path = update.place / "store" / "deltas" / key(update.wanted, update.base).name
    found, ask, number = Forms(update.packs), update.ask(update.base), update.lacking()[0]
    assert found.find(ask, number) is not None
    path.write_bytes(bytes(path.stat().st_size))
    assert found.find(ask, number) is None
    assert not path.exists()
    update.make(update.base)
    assert found.find(ask, number) is not None


class Ended(Exception):
    """Made up: the controller stops."""


def test_making_that_is_ended_leaves_nothing(update: Update) -> None:
    steps = 0

    def checkpoint() -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise Ended

    with pytest.raises(Ended):
        making.make(update.store, update.packs, key(update.wanted, update.base), update.base.block_index, checkpoint)
    assert update.files == []
    assert update.make(update.base).blocks > 4


def test_nothing_is_made_against_or_of_a_damaged_artifact(update: Update) -> None:
    assert update.make(update.base).blocks
    path = update.store.path(update.base.bundle) / "model.gguf"
    path.chmod(0o644)
    damage(path, 0.5)
    with pytest.raises(StoreError, match=f"{update.base.bundle} is damaged"):
        update.make(update.base)
    (update.store.path(update.wanted.bundle) / "words.json").unlink()
    with pytest.raises((StoreError, OSError)):
        update.make(None)
    assert len(update.files) == 1


def test_a_pack_keeps_its_records_small(update: Update) -> None:
    made = update.make(update.base)
    pack = Pack.open(update.place / "store" / "deltas" / key(update.wanted, update.base).name)
    assert len(pack) == made.blocks
    assert pack.encoded_bytes == made.kept
    assert pack.path.stat().st_size == made.kept + 37 * made.blocks + 8 + 136
    with pytest.raises(KeyError):
        pack.read(1 << 20)


def request(**fields: object) -> agent_pb2.FetchBlocksRequest:
    return agent_pb2.FetchBlocksRequest(**{"bundle": "a" * 64, "block_index": "b" * 64, **fields})  # type: ignore[arg-type]


def test_what_a_request_accepts_and_holds_is_read_and_checked() -> None:
    assert forms.read(request()) == Ask("a" * 64, "b" * 64, frozenset({RAW}), ())
    assert list(forms.read(request(bases=["c" * 64])).keys) == []  # it does not say that it could read any
    full = forms.read(request(accepted=[RAW, ZSTD, SUB], bases=["c" * 64] * 8))
    assert full.accepted == {RAW, ZSTD, SUB}
    assert len(list(full.keys)) == 9
    for bad, why in (
        (request(accepted=[ZSTD, SUB]), "ENCODING_RAW"),
        (request(bundle="../x"), "sha256"),
        (request(block_index=""), "sha256"),
        (request(accepted=[RAW, SUB], bases=["c" * 64] * 9), "9 bases"),
        (request(accepted=[RAW, SUB], bases=["c" * 63]), "bases must be"),
    ):
        with pytest.raises(BadAsk, match=why):
            forms.read(bad)
