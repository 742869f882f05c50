"""Whether a difference is rounding: of a matrix on the nearest levels, and of one whose weights were moved."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

import numpy as np
import pytest

from edgewright_controller.compile import child
from edgewright_controller.quality.tensors import COHERENCE, ROUNDING

SHAPE: Final = (512, 256)
RUN: Final = 32
TOP: Final = 15


@pytest.fixture(scope="module")
def stage() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(child.CHILDREN))
        yield importlib.import_module("rounding")


@pytest.fixture(scope="module")
def source() -> Any:
    """Columns of different sizes, as trained weights have."""
    return _columns(0.5)


def _columns(spread: float) -> Any:
    drawn = np.random.default_rng(1)
    return (drawn.standard_normal(SHAPE) * np.exp(spread * drawn.standard_normal(SHAPE[1]))).astype(np.float32)


def _added(source: Any, share: float, rank: int = 8) -> Any:
    """The source with what another adapter adds: `share` of its norm."""
    drawn = np.random.default_rng(2)
    delta = drawn.standard_normal((SHAPE[0], rank)) @ drawn.standard_normal((rank, SHAPE[1]))
    return (source + delta * (share * np.linalg.norm(source) / np.linalg.norm(delta))).astype(np.float32)


def _grid(values: Any) -> tuple[Any, Any]:
    """The lowest level and the step of each run."""
    runs = values.reshape(len(values), -1, RUN)
    low, high = runs.min(axis=2, keepdims=True), runs.max(axis=2, keepdims=True)
    return low, (high - low) / TOP


def _quantised(stage: ModuleType, values: Any, move: Callable[[Any], Any] = lambda levels: levels) -> Any:
    low, step = _grid(values)
    runs = values.reshape(len(values), -1, RUN)
    held = stage.nearest_level(move(runs), low, step, TOP).reshape(values.shape)

    def anew(start: int, stop: int, other: Any) -> Any:
        part = other.reshape(stop - start, -1, RUN)
        return stage.nearest_level(part, low[start:stop], step[start:stop], TOP).reshape(other.shape)

    return stage.Rows(*values.shape, lambda start, stop: held[start:stop], anew)


def _dithered(runs: Any) -> Any:
    """Moved by up to half a step, as a recipe does that makes up for what other weights lost."""
    step = (runs.max(axis=2, keepdims=True) - runs.min(axis=2, keepdims=True)) / TOP
    return runs + step * np.random.default_rng(3).uniform(-0.5, 0.5, runs.shape).astype(np.float32)


def _rows(stage: ModuleType, values: Any) -> Any:
    return stage.Rows(*values.shape, lambda start, stop: values[start:stop])


def test_each_weight_on_its_nearest_level_is_rounding_and_an_adapter_more_is_not(
    stage: ModuleType, source: Any
) -> None:
    wanted = _rows(stage, source)
    honest = stage.beyond_rounding(wanted, _quantised(stage, source), moved=False)
    assert honest == {"rounding": pytest.approx(1.0, abs=1e-6)}
    stale = stage.beyond_rounding(wanted, _quantised(stage, _added(source, 0.03)), moved=False)
    assert stale["rounding"] > ROUNDING


def test_moved_weights_have_no_direction_and_an_adapter_more_has(stage: ModuleType, source: Any) -> None:
    wanted = _rows(stage, source)
    honest = stage.beyond_rounding(wanted, _quantised(stage, source, _dithered), moved=True)
    assert honest["coherence"] < 1.2
    stale = stage.beyond_rounding(wanted, _quantised(stage, _added(source, 0.1), _dithered), moved=True)
    assert stale["coherence"] > COHERENCE


def test_a_tensor_whose_levels_nobody_knows_is_judged_by_its_directions(stage: ModuleType, source: Any) -> None:
    held = _quantised(stage, source)[:]
    assert stage.beyond_rounding(_rows(stage, source), _rows(stage, held), moved=False).keys() == {"coherence"}


def test_rounding_of_columns_that_differ_much_has_a_direction_which_is_no_fault(stage: ModuleType) -> None:
    uneven = _columns(1.0)
    quantised = _quantised(stage, uneven)
    unknown = stage.Rows(*SHAPE, lambda start, stop: quantised[start:stop])
    assert stage.beyond_rounding(_rows(stage, uneven), unknown, moved=True)["coherence"] > COHERENCE
    assert stage.beyond_rounding(_rows(stage, uneven), quantised, moved=True)["coherence"] < 1.2


def test_a_type_that_shrinks_what_it_rounds_has_no_direction_for_that(stage: ModuleType, source: Any) -> None:
    leaning = source + 0.5 * np.float32(source.std())  # one direction has a fifth of it
    held = _quantised(stage, leaning)[:] * np.float32(0.95)
    assert stage.beyond_rounding(_rows(stage, leaning), _rows(stage, held), moved=True)["coherence"] < 1.2


def test_a_tensor_that_is_the_source_differs_in_nothing(stage: ModuleType, source: Any) -> None:
    wanted = _rows(stage, source)
    same = stage.Rows(*SHAPE, lambda start, stop: source[start:stop], lambda _start, _stop, values: values)
    assert stage.beyond_rounding(wanted, same, moved=False) == {"rounding": 1.0}
    assert stage.beyond_rounding(wanted, same, moved=True) == {"coherence": 1.0}
    nothing = _rows(stage, np.zeros(SHAPE, np.float32))
    assert stage.beyond_rounding(nothing, nothing, moved=True) == {"coherence": 1.0}


@pytest.mark.parametrize("moved", [False, True])
def test_a_weight_that_is_no_number_is_never_rounding(stage: ModuleType, source: Any, moved: bool) -> None:
    held = source.copy()
    held[5, 7] = np.nan
    got = stage.Rows(*SHAPE, lambda start, stop: held[start:stop], lambda _start, _stop, values: values)
    (figure,) = stage.beyond_rounding(_rows(stage, source), got, moved=moved).values()
    assert not figure <= 1e9


def test_of_a_large_tensor_rows_from_all_over_it_are_read_and_no_more(stage: ModuleType) -> None:
    read: list[tuple[int, int]] = []

    def take(start: int, stop: int) -> Any:
        read.append((start, stop))
        return np.ones((stop - start, 1024), np.float32)

    large = stage.Rows(100_000, 1024, take, lambda _start, _stop, values: values)
    stage.beyond_rounding(large, large, moved=False)
    # Of either of the two.
    assert sum(stop - start for start, stop in read) * 1024 == 2 * stage.NEAREST_WEIGHTS
    assert min(read)[0] == 0
    assert max(read)[1] == 100_000
