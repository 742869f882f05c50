"""What a block is compared with: the same tensor, the text that was edited away, and never bytes that are not there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgewright_contract.block_index import MAX_BLOCK_BYTES
from edgewright_controller.compile.store import Stored
from edgewright_controller.delivery import pairs
from edgewright_controller.delivery.likeness import Comparison, Place, comparisons
from edgewright_controller.delivery.making import cut_of
from tests.controller.delivery_pair import NUMBERS, WORDS, Room, gguf, nudged


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def compared(room: Room, wanted: Stored, base: Stored) -> list[Comparison]:
    return list(
        comparisons(
            cut_of(room.store, wanted.bundle, wanted.block_index), cut_of(room.store, base.bundle, base.block_index)
        )
    )


def bytes_at(room: Room, stored: Stored, place: Place) -> bytes:
    return room.content(stored, place.path)[place.offset : place.offset + place.size]


def test_tensors_are_compared_by_name_wherever_they_lie(room: Room) -> None:
    base = room.add({"model.gguf": gguf()})
    wanted = room.add({"model.gguf": gguf("a template that is longer by more than the alignment", nudged(NUMBERS))})
    found = [one for one in compared(room, wanted, base) if one.block.size > 100_000]
    assert [one.block.size for one in found] == [MAX_BLOCK_BYTES, 1_200_000 - MAX_BLOCK_BYTES]
    for one, start in zip(found, (0, MAX_BLOCK_BYTES), strict=True):
        assert one.near is not None
        assert one.near == one.beside
        assert one.near.offset != one.block.offset
        assert bytes_at(room, base, one.near) == NUMBERS[start : start + one.block.size]


def test_small_tensors_in_one_block_are_compared_together(room: Room) -> None:
    base = room.add({"model.gguf": gguf()})
    changed = NUMBERS[:1_200_064] + bytes(128)
    (found,) = compared(room, room.add({"model.gguf": gguf(numbers=changed)}), base)
    assert found.block.size == 192
    assert found.near is not None
    assert bytes_at(room, base, found.near) == NUMBERS[1_200_000:1_200_192]


def test_a_header_is_compared_with_what_was_edited_away(room: Room) -> None:
    base = room.add({"model.gguf": gguf("the old template")})
    wanted = room.add({"model.gguf": gguf("the new template, which says more")})
    found = compared(room, wanted, base)
    assert 1 <= len(found) <= 2
    assert any(b"the old template" in bytes_at(room, base, one.near) for one in found if one.near)
    assert all(one.near is not None and one.near.size < len(WORDS) for one in found)


def test_what_is_the_same_is_not_compared(room: Room) -> None:
    base = room.add({"model.gguf": gguf(), "tokenizer.json": WORDS})
    wanted = room.add({"model.gguf": gguf(), "other.json": WORDS})
    assert compared(room, wanted, base) == []


def test_a_tensor_in_another_file_is_found_and_a_new_one_is_not(room: Room) -> None:
    base = room.add({"old.gguf": gguf(), "third.gguf": gguf(names=("x", "y", "z"))})
    wanted = room.add({"new.gguf": gguf(numbers=nudged(NUMBERS))})
    found = compared(room, wanted, base)
    assert {one.near.path for one in found if one.near} == {"old.gguf"}
    renamed = room.add({"old.gguf": gguf(numbers=nudged(NUMBERS, 2), names=("new", "norms", "scales"))})
    assert {one.block.size for one in compared(room, renamed, base)}.isdisjoint({MAX_BLOCK_BYTES, 192})


def test_a_tensor_of_another_size_is_not_compared_byte_by_byte(room: Room) -> None:
    base = room.add({"model.gguf": gguf()})
    shorter = gguf(numbers=nudged(NUMBERS)).replace(b"wide", b"gone").replace(b"norm", b"wide")
    found = compared(room, room.add({"model.gguf": shorter}), base)
    (one,) = [one for one in found if one.block.size == 192]
    assert one.near is not None
    assert one.beside is None


def test_opaque_files_of_one_size_are_compared_in_place_too(room: Room) -> None:
    base = room.add({"weights.bin": NUMBERS})
    wanted = room.add({"weights.bin": nudged(NUMBERS)})
    for one in compared(room, wanted, base):
        assert one.beside == Place("weights.bin", one.block.offset, one.block.size)


@pytest.mark.parametrize("seed", range(12))
def test_no_place_is_outside_its_file_or_too_large(room: Room, seed: int) -> None:
    chance = random.Random(seed)

    def edited(data: bytes) -> bytes:
        for _ in range(chance.randrange(1, 6)):
            at, gone = chance.randrange(len(data)), chance.choice((0, 5, 200_000))
            data = data[:at] + chance.randbytes(chance.choice((0, 7, 90_000))) + data[at + gone :]
        return data

    files = {"a.bin": NUMBERS, "b.json": WORDS, "model.gguf": gguf()}
    base = room.add(files)
    wanted = room.add({"a.bin": edited(NUMBERS), "b.json": edited(WORDS), "model.gguf": edited(gguf())})
    found = compared(room, wanted, base)
    assert found
    sizes = {path: len(data) for path, data in files.items()}
    for one in found:
        assert one.near is not None
        for place in (one.near, one.beside):
            if place is not None:
                assert 1 <= place.size <= MAX_BLOCK_BYTES
                assert 0 <= place.offset <= sizes[place.path] - place.size
        assert one.beside is None or one.beside.size == one.block.size


def test_pairs_are_those_that_most_devices_need_and_three_at_most() -> None:
    wanted = {f"d{n}": "new" for n in range(20)} | {"other": "newer"}
    held = {f"d{n}": f"old-{n % 5 if n % 5 < 4 or n < 10 else 0}" for n in range(20)} | {"other": "old-1", "gone": "x"}
    assert pairs.choose(wanted, held) == [("new", "old-0"), ("new", "old-1"), ("new", "old-2"), ("newer", "old-1")]
    assert pairs.choose({"a": "same", "b": "same"}, {"a": "same"}) == []
