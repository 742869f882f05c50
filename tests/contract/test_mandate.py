"""The file that carries a mandate: one shape, bounded before anything is read, and refused when it is anything else."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import mandate as contract
from edgewright_contract.mandate import Mandate, MandateError, Papers, Pinned
from edgewright_contract.v1 import mandate_pb2

PAPERS = Papers(b"mandate", (b"root 1", b"root 2"), b"targets", b"builder")
ISSUED = datetime(2031, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
MANDATE = Mandate("demo", "jetson-01", None, 7, ISSUED, Pinned(2, 900, "a" * 64), Pinned(9, 1234, "b" * 64))


def test_what_is_written_is_what_is_read() -> None:
    assert contract.parse(PAPERS.encode()) == PAPERS
    assert contract.read(MANDATE.fields) == MANDATE
    for_profile = replace(MANDATE, device=None, profile="jetson")
    assert contract.read(for_profile.fields) == for_profile
    assert MANDATE.fields["issued"] == "2031-05-06T07:08:09Z"
    assert set(MANDATE.fields) == {"fleet", "device_id", "generation", "issued", "image"}


@pytest.mark.parametrize(
    "papers",
    [
        replace(PAPERS, mandate=b""),
        replace(PAPERS, mandate=b"x" * (contract.MAX_MANDATE_BYTES + 1)),
        replace(PAPERS, roots=()),
        replace(PAPERS, roots=(b"",)),
        replace(PAPERS, roots=(b"x" * (contract.MAX_ROOT_BYTES + 1),)),
        replace(PAPERS, roots=(b"x",) * (contract.MAX_ROOTS + 1)),
        replace(PAPERS, targets=b"x" * (contract.MAX_LIST_BYTES + 1)),
        replace(PAPERS, builder=b""),
    ],
)
def test_a_file_out_of_its_bounds_is_neither_written_nor_read(papers: Papers) -> None:
    with pytest.raises(MandateError):
        papers.encode()
    file = mandate_pb2.MandateFile(
        format=1, mandate=papers.mandate, roots=papers.roots, targets=papers.targets, builder=papers.builder
    )
    with pytest.raises(MandateError):
        contract.parse(file.SerializeToString())


def test_another_format_and_other_files_are_named_as_such() -> None:
    for data in (b"", b"PK\x03\x04", mandate_pb2.MandateFile(format=2).SerializeToString()):
        with pytest.raises(MandateError, match="not a mandate"):
            contract.parse(data)
    with pytest.raises(MandateError, match="at most"):
        contract.parse(b"x" * (contract.MAX_FILE_BYTES + 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device_id": None}, "for a device or for a profile"),
        ({"profile": "jetson"}, "for a device or for a profile"),
        ({"device_id": "../etc"}, "device_id"),
        ({"device_id": 7}, "device_id"),
        ({"fleet": "A B"}, "fleet"),
        ({"generation": 0}, "generation"),
        ({"generation": True}, "generation"),
        ({"generation": 7.0}, "generation"),
        ({"generation": 1 << 53}, "generation"),
        ({"issued": "2031-05-06"}, "not what a mandate says"),
        ({"issued": 5}, "not what a mandate says"),
        ({"image": None}, "not what a mandate says"),
        ({"image": {"targets": {}}}, "not what a mandate says"),
        ({"image": {"targets": {"version": 1, "length": 1, "sha256": "x"}}}, "sha256"),
        ({"image": {"targets": {"version": -1, "length": 1, "sha256": "a" * 64}}}, "version"),
        ({"image": {"targets": {"version": 1, "length": 1 << 40, "sha256": "a" * 64}}}, "length"),
    ],
)
def test_fields_that_no_mandate_has_are_refused(change: dict[str, Any], said: str) -> None:
    fields = {**MANDATE.fields, **change}
    with pytest.raises(MandateError, match=said):
        contract.read(fields)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_mandate_or_an_error(data: bytes) -> None:
    with contextlib.suppress(MandateError):
        contract.parse(data)


_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*MANDATE.fields, "profile"]), _JSON))
def test_any_fields_are_a_mandate_or_an_error(change: dict[str, Any]) -> None:
    with contextlib.suppress(MandateError):
        contract.read({**MANDATE.fields, **change})
