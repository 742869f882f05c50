"""What the device holds already: copied, or what comes is made from it. Whatever is wrong with it costs bytes only."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import grpc
import pytest
import zstandard

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.download import pull
from edgewright_agent.fetch_plan import ArtifactCorrupt, prepare
from edgewright_agent.link import Refused
from edgewright_contract import block_coding
from edgewright_contract.v1 import agent_pb2
from tests.agent.block_server import Coded
from tests.agent.test_download import MIB, given_to_child
from tests.agent.update_room import FIRST, ONE, OTHER, TWO, Room, flip, harm

DICT, SUB = agent_pb2.ENCODING_DICT_ZSTD, agent_pb2.ENCODING_SUB_ZSTD


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.server.stop()


def test_blocks_of_the_old_artifact_are_copied_wherever_they_stand(room: Room) -> None:
    device = room.device()
    room.offer(FIRST + TWO + OTHER + ONE + TWO[:-5])
    path = room.update(device)
    assert room.server.sent == 2 * MIB - 5
    assert device.reported[-1] == (2 * MIB - 5, 2 * MIB - 5)
    assert (path / "config.json").samefile(device.slots.artifact(room.old.bundle) / "config.json")
    assert not (path / "model.gguf").samefile(device.slots.artifact(room.old.bundle) / "model.gguf")


def test_a_damaged_block_is_not_copied(room: Room) -> None:
    device = room.device()
    harm(device.slots.artifact(room.old.bundle) / "model.gguf", flip(MIB + 7))
    room.offer(FIRST + TWO + ONE + OTHER)
    room.update(device)
    assert room.server.sent == 2 * MIB, "the damaged one, and the new one"
    assert device.reported[-1] == (2 * MIB, 2 * MIB)


@pytest.mark.parametrize("index", ["missing", "rubbish", "of another artifact"])
def test_without_a_sound_index_unchanged_files_are_still_linked(room: Room, index: str) -> None:
    device = room.device()
    document = device.slots.index_document(room.old.bundle)
    room.offer(FIRST + ONE)
    if index == "missing":
        document.unlink()
    else:
        document.write_bytes(b"?" if index == "rubbish" else room.server.objects[room.server.target.block_index])
    path = room.update(device)
    assert room.server.sent == 2 * MIB
    assert (path / "config.json").samefile(device.slots.artifact(room.old.bundle) / "config.json")


def test_the_index_goes_with_its_artifact(room: Room) -> None:
    device = room.device()
    index = device.slots.index(room.old.bundle)
    assert index is not None
    assert [block.size for block in index.blocks if block.path == "model.gguf"] == [MIB] * 3
    assert device.slots.collect(()) == [room.old.bundle]
    assert list(device.slots.artifact(room.old.bundle).parent.iterdir()) == []


def test_what_was_copied_counts_after_a_break_as_what_was_fetched_does(room: Room) -> None:
    device = room.device()
    room.offer(FIRST + TWO + ONE + OTHER)
    room.server.mischief.refuse = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(Refused):
        room.update(device)
    room.server.mischief.refuse = None
    device.slots.remove(room.old.bundle)
    room.update(device)
    assert room.server.sent == MIB + len(b'{"vocab_size": 49152}'), "no link is kept for an unfinished download"


def test_a_damaged_linked_file_is_mended_from_its_sound_blocks(room: Room) -> None:
    device = room.device()
    damaged = device.slots.artifact(room.old.bundle) / "model.gguf"
    harm(damaged, flip(MIB + 7))
    before = damaged.read_bytes()
    folder = room.artifact("more", FIRST + ONE + TWO)
    (folder / "tokenizer.json").write_bytes(b"{}")
    room.server.target = room.server.add(folder)
    room.update(device)
    assert room.server.sent == MIB + 2, "one block, and the new file"
    assert damaged.read_bytes() == before, "the other artifact's file is not written to"


_LITTLE_ROOM = """
from edgewright_agent.fetch_plan import DiskFull
from tests.agent.test_download import _GIVEN
exec(_GIVEN)
size, apart = sys.argv[2:]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(state)], check=True)
device = Device(state, leaf)
old, new = (ImageTarget(**one) for one in given["targets"])
def plan(target, reuse):
    return prepare(target, link, device.slots, reuse=reuse, reserve=0, cancellation=Cancellation())
def get(plan):
    pull(plan, link, device.slots, device.journal, progress=lambda *n: None, cancellation=Cancellation())
get(plan(old, ()))
if apart == "apart":  # no link leads from one mount into another, be they of one file system
    old_folder = str(device.slots.artifact(old.bundle))
    subprocess.run(["mount", "--bind", old_folder, old_folder], check=True)
try:
    found = plan(new, (old.bundle,))
except DiskFull as error:
    print(error)
else:
    print(found.total_bytes, *sorted(found.reused))
    get(found)
    device.slots.verify(new.bundle)
"""


def in_little_room(room: Room, size: str, apart: str = "together") -> str:
    given = json.loads(given_to_child(room.server, room.ca, room.state))
    given["targets"] = [asdict(room.old), asdict(room.server.target)]
    room.state.mkdir()
    unshared = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    done = subprocess.run(
        [*unshared, sys.executable, "-c", _LITTLE_ROOM, json.dumps(given), size, apart],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_what_is_copied_is_not_fetched_and_no_more_room_is_taken_than_planned(room: Room) -> None:
    room.offer(FIRST + TWO + ONE)  # nothing of it is to be fetched
    assert in_little_room(room, "16m") == "0 config.json"


def test_what_is_copied_needs_its_room_too(room: Room) -> None:
    room.offer(FIRST + TWO + ONE)
    assert "are missing" in in_little_room(room, "9m"), "3 MiB, 3 MiB, and what else is written"


def test_where_files_cannot_be_linked_they_are_planned_as_copies(room: Room) -> None:
    room.offer(FIRST + ONE + TWO + OTHER)
    assert in_little_room(room, "16m", "apart") == f"{MIB}", "no file is taken over, and only one block fetched"


def packed(data: bytes, dictionary: bytes = b"") -> bytes:
    known = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdCompressor(level=3, dict_data=known).compress(data)


def at(block: int, size: int = MIB, file: int = 1) -> agent_pb2.BlockBase:
    """Bytes of the old artifact, whose files are config.json and model.gguf."""
    return agent_pb2.BlockBase(file=file, offset=block * MIB, size=size)


# Block 0 is config.json, which is linked to; 1 to 3 are the weights.
CHANGED = bytes(TWO[:-9]) + b"different"
AGAINST_TWO = packed(CHANGED, TWO)
LESS_TWO = packed(block_coding.subtracted(CHANGED, TWO))


@pytest.mark.parametrize(
    ("encoding", "data", "base"),
    [(DICT, AGAINST_TWO, at(2)), (SUB, LESS_TWO, at(2)), (DICT, packed(CHANGED, TWO[:4096]), at(2, 4096))],
    ids=["as dictionary", "as what is taken away", "as a short dictionary"],
)
def test_a_block_comes_as_what_it_differs_in(
    room: Room, encoding: agent_pb2.Encoding, data: bytes, base: agent_pb2.BlockBase
) -> None:
    device = room.device()
    room.offer(FIRST + ONE + CHANGED)
    room.server.coded[3] = Coded(encoding, data, room.old.bundle, base)
    room.update(device)
    assert room.server.sent == len(data)
    (asked,) = room.server.requests_for_blocks
    assert list(asked.bases) == [room.old.bundle]
    assert set(asked.accepted) == {agent_pb2.ENCODING_RAW, agent_pb2.ENCODING_ZSTD, DICT, SUB}
    assert device.reported[-1] == (MIB, MIB), "progress is in bytes of the model"


def test_a_block_comes_compressed(room: Room) -> None:
    text = b"the same again and again. " * (MIB // 26)
    device = room.device()
    room.offer(FIRST + ONE + text)
    room.server.coded[3] = Coded(agent_pb2.ENCODING_ZSTD, packed(text))
    room.update(device)
    assert room.server.sent < MIB // 100


BAD = {
    "rubbish": Coded(DICT, b"rubbish", base=at(2)),
    "rubbish against nothing": Coded(agent_pb2.ENCODING_ZSTD, b"rubbish"),
    "against another base": Coded(SUB, LESS_TWO, base=at(1)),
    "dictionary of another base": Coded(DICT, AGAINST_TWO, base=at(1)),
    "too large when decoded": Coded(DICT, packed(CHANGED * 4, TWO), base=at(2)),
    "too small when decoded": Coded(SUB, packed(bytes(8)), base=at(2)),
    "base behind the file's end": Coded(DICT, AGAINST_TWO, base=at(3)),
    "base over the file's end": Coded(DICT, AGAINST_TWO, base=at(2, MIB + 1)),
    "base of no bytes": Coded(DICT, AGAINST_TWO, base=at(2, 0)),
    "base too small to be added to": Coded(SUB, LESS_TWO, base=at(2, MIB - 1)),
    "base in no artifact": Coded(DICT, AGAINST_TWO, base=agent_pb2.BlockBase(bundle=8, file=1, size=MIB)),
    "base in no file": Coded(DICT, AGAINST_TWO, base=at(0, file=2)),
    "no base": Coded(SUB, LESS_TWO),
    "a size that is none": Coded(DICT, AGAINST_TWO, base=at(2), encoded_size=0),
    "a size as large as the block": Coded(DICT, AGAINST_TWO, base=at(2), encoded_size=MIB),
    "a size that is too small": Coded(DICT, AGAINST_TWO, base=at(2), encoded_size=10),
}


@pytest.mark.attack("differences that are wrong")
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_difference_is_refused_and_the_block_asked_for_as_it_is(
    room: Room, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgewright_agent.backoff.Backoff.pause", lambda self: 0.001)
    device = room.device()
    room.offer(FIRST + ONE + CHANGED)
    bad = BAD[kind]
    room.server.coded[3] = replace(bad, against=room.old.bundle if bad.base is not None else "")
    with caplog.at_level(logging.INFO):
        room.update(device)
    first, again = room.server.requests_for_blocks
    assert list(first.bases) == [room.old.bundle]
    assert (list(again.bases), list(again.accepted)) == ([], [agent_pb2.ENCODING_RAW])
    assert f"controller {room.server.address}" in caplog.text
    assert "block 3" in caplog.text
    assert "1 blocks had to be asked for again" in caplog.text


def test_a_difference_against_what_is_damaged_here_is_made_up_for(room: Room) -> None:
    device = room.device()
    harm(device.slots.artifact(room.old.bundle) / "model.gguf", flip(2 * MIB + 7))
    room.offer(FIRST + ONE + CHANGED)
    room.server.coded[3] = Coded(SUB, LESS_TWO, room.old.bundle, at(2))
    room.update(device)
    assert room.server.sent == len(LESS_TWO) + MIB


@pytest.mark.parametrize("cut", [lambda data: data.__delitem__(slice(2 * MIB, None)), lambda data: data.clear()])
def test_a_difference_against_what_is_lost_here_is_made_up_for(room: Room, cut: Callable[[bytearray], object]) -> None:
    device = room.device()
    harm(device.slots.artifact(room.old.bundle) / "model.gguf", cut)
    room.offer(FIRST + ONE + CHANGED)
    room.server.coded[3] = Coded(DICT, AGAINST_TWO, room.old.bundle, at(2))
    room.update(device)


@pytest.mark.attack("a source that is wrong in every way")
def test_a_block_that_is_wrong_in_every_form_refuses_the_artifact_by_file_block_and_source(room: Room) -> None:
    device = room.device()
    room.offer(FIRST + ONE + CHANGED)
    room.server.coded[3] = BAD["rubbish against nothing"]
    room.server.mischief.flips[3] = 3
    with pytest.raises(ArtifactCorrupt, match=r"model\.gguf: block 3 from controller 127\.0\.0\.1:\d+ is not"):
        room.update(device)
    assert not device.slots.has(room.server.target.bundle)


def test_only_what_is_here_whole_is_named_as_a_base(room: Room) -> None:
    device = room.device()
    room.offer(FIRST + ONE + CHANGED)
    link = device.link(room.server)
    names = ["a" * 64, room.server.target.bundle, room.old.bundle, room.old.bundle]
    plan = prepare(room.server.target, link, device.slots, reuse=names, reserve=0, cancellation=Cancellation())
    link.close()
    assert list(plan.bases) == [room.old.bundle]


def test_what_is_wrong_is_told_while_it_is(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright_agent.backoff.Backoff.pause", lambda self: 0.001)
    device = room.device()
    target = room.offer(FIRST + ONE + CHANGED)
    room.server.coded[3] = BAD["rubbish against nothing"]
    room.server.mischief.unavailable = 1
    link, told = device.link(room.server), list[str]()
    cancellation = Cancellation()
    plan = prepare(target, link, device.slots, reuse=(room.old.bundle,), reserve=0, cancellation=cancellation)
    pull(
        plan,
        link,
        device.slots,
        device.journal,
        progress=lambda *_: None,
        trouble=told.append,
        cancellation=cancellation,
    )
    link.close()
    assert "unavailable" in told[0]
    assert told[-1] == "1 blocks had to be asked for again as they are"
