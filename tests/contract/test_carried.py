"""The head of a carried file: within bounds, or refused, whatever its bytes are."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from edgewright_contract import canonical, carried
from edgewright_contract.block_index import Block
from edgewright_contract.carried import CarriedError, Head

HEAD = Head("demo", "jetson-01", "", "a" * 64, "b" * 64, "c" * 64, "", 100, 200, 300, 11, 5_000)


def read(data: bytes) -> Head:
    length = carried.head_bytes(data[: carried.START_BYTES])
    return carried.parse_head(data[carried.START_BYTES : carried.START_BYTES + length])


def test_a_head_is_read_as_it_was_written_and_says_where_everything_lies() -> None:
    for head in (HEAD, replace(HEAD, device="", profile="jetson", base="d" * 64, mandate_bytes=0)):
        data = head.encode()
        assert read(data) == head
    place = carried.layout(HEAD, len(HEAD.encode()) - carried.START_BYTES)
    assert place.mandate == len(HEAD.encode())
    assert (place.bundle - place.mandate, place.index - place.bundle, place.bits - place.index) == (100, 200, 300)
    assert (place.blocks - place.bits, place.end - place.blocks) == (2, 5_000)


def test_bits_say_which_blocks_are_there() -> None:
    blocks = [Block(number, "model.gguf", number, 1, bytes(32)) for number in range(11)]
    bits = carried.bits_of([0, 7, 8, 10], 11)
    assert [block.index for block in carried.carried(blocks, bits)] == [0, 7, 8, 10]
    assert carried.bits_of([], 0) == b""


@pytest.mark.attack("carried file whose head lies")
@pytest.mark.parametrize(
    "changes",
    [
        {"mandate_bytes": -1},
        {"mandate_bytes": 9 << 20},
        {"bundle_bytes": 1 << 40},
        {"index_bytes": (64 << 20) + 1},
        {"index_bytes": True},
        {"blocks": 1 << 30},
        {"blocks": 1.0},
        {"content_bytes": 1 << 60},
        {"content_bytes": "5"},
        {"device": "../../etc"},
        {"device": ""},
        {"profile": "jetson"},
        {"fleet": "a/b"},
        {"artifact": "../" + "b" * 61},
        {"release": None},
        {"base": "x"},
        {"format": 2},
        {"more": 1},
    ],
)
def test_what_is_out_of_bounds_is_refused_before_anything_is_read_by_it(changes: dict[str, Any]) -> None:
    document = canonical.encode({"format": 1, **vars(HEAD)})
    assert carried.parse_head(document) == HEAD
    with pytest.raises(CarriedError):
        carried.parse_head(
            canonical.encode({"format": 1, **vars(HEAD), **changes})
            if 1.0 not in changes.values()
            else document.replace(b'"blocks":11', b'"blocks":1.0')
        )


@pytest.mark.attack("carried file with random bytes for a head")
def test_random_changes_give_a_head_within_bounds_or_a_refusal() -> None:
    random_ = random.Random(6)
    data, refused = HEAD.encode(), 0
    for _ in range(3_000):
        changed = bytearray(data)
        for _ in range(random_.randint(1, 4)):
            changed[random_.randrange(len(changed))] = random_.randrange(256)
        cut = bytes(changed[: random_.choice((len(changed), random_.randrange(len(changed))))])
        try:
            head = read(cut)
        except CarriedError:
            refused += 1
        else:
            assert head.bits_bytes <= carried.MAX_BLOCKS // 8 + 1
            assert head.index_bytes <= 64 << 20
    assert refused > 2_000
