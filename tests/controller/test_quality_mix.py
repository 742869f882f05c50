"""The mix of texts: complete, cut fairly, and named by what is in it."""

from __future__ import annotations

from edgewright_controller.quality import mix


def test_any_first_part_of_the_mix_is_a_share_of_every_kind() -> None:
    sizes = {"chat": 6, "code": 20, "numbers": 10, "prose": 15, "structured": 13}
    kinds = list(sizes)
    chunks = {kind: [[number, kinds.index(kind)] for number in range(count)] for kind, count in sizes.items()}
    every = mix.ordered(chunks)
    assert len(every) == 64
    assert {kind for _, kind in every[: len(sizes)]} == set(range(len(kinds)))
    assert sorted(map(tuple, every)) == sorted(tuple(one) for of in chunks.values() for one in of)
    half = every[:32]
    for kind, count in sizes.items():
        assert abs(sum(one[1] == kinds.index(kind) for one in half) - count / 2) <= 1


def test_it_is_measured_in_parts_until_it_ends() -> None:
    assert mix.parts(100) == [range(8), range(8, 32), range(32, 64)]
    assert mix.parts(40) == [range(8), range(8, 32), range(32, 40)]
    assert mix.parts(8) == [range(8)]
    assert mix.parts(3) == [range(3)]


def test_every_kind_is_shipped_and_long_enough_for_a_vocabulary_of_any_size() -> None:
    texts = mix.texts()
    assert set(texts) == set(mix.KINDS)
    # At four characters a token, so many tokens as a verdict may want.
    assert sum(map(len, texts.values())) > 4 * 6000
    assert min(map(len, texts.values())) > 4 * 2 * mix.CHUNK_TOKENS
    assert len(mix.texts_digest()) == 64
