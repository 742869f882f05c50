"""The search for the smallest artifact that passes and fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewright_controller.compile import recipe
from edgewright_controller.compile.search import Candidate, Outcome, Standing, search

GRANTED = 1_000


def candidate(name: str, size: int, memory: int | None = None) -> Candidate:
    return Candidate(recipe.make("gguf", name), f"key-{name}", size, size if memory is None else memory)


SMALL, MIDDLE, LARGE = candidate("Q2_K", 100), candidate("Q4_0", 200), candidate("Q8_0", 400)
HUGE = candidate("F32", 1_600)
ALL = (LARGE, SMALL, HUGE, MIDDLE)


def test_the_smallest_is_tried_first() -> None:
    found = search(ALL, {}, GRANTED)
    assert (found.chosen, found.next) == (None, SMALL)
    assert [row.standing for row in found.table] == [*[Standing.UNTRIED] * 3, Standing.TOO_LARGE]


def test_what_passed_is_chosen_and_what_is_larger_is_not_tried() -> None:
    found = search(ALL, {SMALL.key: Outcome("KL too large", 1.5), MIDDLE.key: Outcome(kl=0.05)}, GRANTED)
    assert (found.chosen, found.next) == (MIDDLE, None)
    assert [row.kl for row in found.table] == [1.5, 0.05, None, None]


def test_a_smaller_one_that_was_never_tried_goes_before_a_larger_one_that_passed() -> None:
    found = search(ALL, {LARGE.key: Outcome(kl=0.001)}, GRANTED)
    assert (found.chosen, found.next) == (None, SMALL)


def test_what_does_not_fit_is_never_tried_nor_chosen() -> None:
    refused = {one.key: Outcome("refused") for one in (SMALL, MIDDLE, LARGE)}
    found = search(ALL, refused | {HUGE.key: Outcome(kl=0.0)}, GRANTED)
    assert found.found_nothing
    assert found.table[-1].why == "serving it takes 1,600 bytes of memory, the profile grants 1,000"


_NAMES = recipe.QUANTIZATIONS["gguf"]


@given(
    sizes=st.lists(st.integers(1, 2 * GRANTED), min_size=1, max_size=len(_NAMES)),
    good=st.sets(st.integers(0, len(_NAMES) - 1)),
)
def test_whatever_passes_the_search_ends_with_the_smallest_that_fits(sizes: list[int], good: set[int]) -> None:
    candidates = [candidate(_NAMES[number], size) for number, size in enumerate(sizes)]
    passing = {one.key for number, one in enumerate(candidates) if number in good}
    outcomes: dict[str, Outcome] = {}
    while (found := search(candidates, outcomes, GRANTED)).next is not None:
        assert found.next.key not in outcomes
        outcomes[found.next.key] = Outcome("" if found.next.key in passing else "refused")
    fitting = [one.size_bytes for one in candidates if one.key in passing and one.memory_bytes <= GRANTED]
    assert (found.chosen.size_bytes if found.chosen else None) == min(fitting, default=None)
