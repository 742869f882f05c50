"""What is planted on a device's disk, before, between and after: found before anything loads it, and mended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright_agent.partial_files import PartialFiles
from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_contract import bundle, plain_file
from edgewright_contract.bundle import Bundle
from tests import model_files


class Staged:
    """One artifact, taken in as a download ends; `folder` is where it stands, `elsewhere` is not the agent's."""

    def __init__(self, folder: Path, runtime: str = "mlx") -> None:
        self.slots = Slots(folder / "state")
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        source = folder / "source"
        for name, data in {**model_files.artifact(runtime), "sub/notes.txt": b"words"}.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        self.bundle: Bundle = bundle.from_folder(source)
        self.name = self.bundle.digest
        self.slots.adopt(self.name, self.bundle.encode(), source)
        self.folder = self.slots.artifact(self.name)

    def verify(self) -> None:
        self.slots.verify(self.name)


@pytest.fixture
def staged(tmp_path: Path) -> Staged:
    made = Staged(tmp_path)
    made.verify()
    return made


def same_bytes_by_a_link(staged: Staged) -> None:
    weights = staged.folder / "model.safetensors"
    shutil.move(weights, staged.elsewhere / "weights")
    weights.symlink_to(staged.elsewhere / "weights")


def folder_by_a_link(staged: Staged) -> None:
    shutil.move(staged.folder / "sub", staged.elsewhere / "sub")
    (staged.folder / "sub").symlink_to(staged.elsewhere / "sub")


def artifact_by_a_link(staged: Staged) -> None:
    shutil.move(staged.folder, staged.elsewhere / "artifact")
    staged.folder.symlink_to(staged.elsewhere / "artifact")


def pipe(staged: Staged) -> None:
    (staged.folder / "config.json").unlink()
    os.mkfifo(staged.folder / "config.json")


def dangling_link(staged: Staged) -> None:
    (staged.folder / "config.json").unlink()
    (staged.folder / "config.json").symlink_to("nowhere")


@pytest.mark.attack("symlink in place of a staged file or folder")
@pytest.mark.parametrize("plant", [same_bytes_by_a_link, folder_by_a_link, artifact_by_a_link, dangling_link])
def test_a_link_swapped_in_after_staging_is_found_although_the_bytes_agree(
    staged: Staged, plant: Callable[[Staged], None]
) -> None:
    plant(staged)
    with pytest.raises(ArtifactDamaged, match=r"neither a file nor a folder|no folder"):
        staged.verify()
    staged.slots.remove(staged.name)
    assert not os.path.lexists(staged.folder)
    assert all(path.exists() for path in staged.elsewhere.rglob("*")), "a link's target is not ours to remove"


@pytest.mark.attack("pipe or device in place of a staged file")
def test_a_pipe_among_the_files_is_found_and_nobody_waits_at_its_end(staged: Staged) -> None:
    pipe(staged)
    with pytest.raises(ArtifactDamaged, match=r"config\.json: neither a file nor a folder"):
        staged.verify()
    with pytest.raises(plain_file.NotPlain):
        plain_file.read_below(staged.folder, "config.json")
    with pytest.raises(plain_file.NotPlain):
        plain_file.read_below(Path("/dev"), "zero")


@pytest.mark.attack("hard link from outside into an artifact")
def test_a_staged_file_with_another_name_elsewhere_is_refused_although_its_bytes_agree(staged: Staged) -> None:
    weights = staged.folder / "model.safetensors"
    os.link(weights, staged.elsewhere / "mine")  # whose owner could write into the artifact later
    with pytest.raises(ArtifactDamaged, match=r"model\.safetensors: has another name outside"):
        staged.verify()
    (staged.elsewhere / "mine").unlink()
    staged.verify()
    # The artifacts' own links to one another are how equal files are shared.
    partial = staged.slots.make_partial("a" * 64)
    os.link(weights, partial / "shared")
    staged.verify()


@pytest.mark.attack("hard link to another artifact's file")
def test_a_file_that_became_another_artifacts_is_found(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    staged, other = Staged(tmp_path / "one"), Staged(tmp_path / "two", "gguf")
    staged.verify()
    config = staged.folder / "config.json"
    config.unlink()
    os.link(other.folder / "model.gguf", config)
    with pytest.raises(ArtifactDamaged, match=r"config\.json: changed since it was verified"):
        staged.verify()


@pytest.mark.attack("extra file planted in an artifact")
@pytest.mark.parametrize(
    "name", ["modeling.py", "special_tokens_map.json", "sub/chat_template.jinja", "model-2.safetensors", ".x"]
)
def test_a_file_that_no_bundle_lists_is_found(staged: Staged, name: str) -> None:
    (staged.folder / name).write_bytes(b"{}")
    with pytest.raises(ArtifactDamaged, match=r"does not belong to the artifact|not a plain file name"):
        staged.verify()


@pytest.mark.attack("staged file missing or exchanged")
def test_a_file_that_is_gone_or_of_the_same_size_but_other_bytes_is_found(staged: Staged) -> None:
    weights = staged.folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    with pytest.raises(ArtifactDamaged, match=r"model\.safetensors: changed since it was verified"):
        staged.verify()
    weights.unlink()
    with pytest.raises(ArtifactDamaged, match=r"model\.safetensors: missing"):
        staged.verify()


class Unfinished:
    """A download's folder, and what somebody put there before the files are made."""

    def __init__(self, folder: Path) -> None:
        files = [bundle.BundleFile(name, 8, "0" * 64) for name in ("model.gguf", "sub/deep/config.json")]
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        (self.elsewhere / "victim").write_bytes(b"8 bytes!")
        self.folder = folder / "files"
        self.folder.mkdir()
        self.files = PartialFiles(self.folder, bundle.make(files))

    def fill(self) -> None:
        for name in ("model.gguf", "sub/deep/config.json"):
            self.files.prepare(name, keep=False)
            self.files.write(name, 0, b"download")
        self.files.sync()
        self.files.seal()

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))


def link_for_a_file(place: Unfinished) -> None:
    (place.folder / "model.gguf").symlink_to(place.elsewhere / "victim")


def link_that_is_as_long_as_the_file(place: Unfinished) -> None:
    (place.folder / "model.gguf").symlink_to("../v1234")  # eight bytes, as lstat counts a link's


def link_for_a_folder(place: Unfinished) -> None:
    (place.folder / "sub").symlink_to(place.elsewhere)


def link_for_an_inner_folder(place: Unfinished) -> None:
    (place.folder / "sub").mkdir()
    (place.folder / "sub" / "deep").symlink_to(place.elsewhere)


def hard_link_for_a_file(place: Unfinished) -> None:
    os.link(place.elsewhere / "victim", place.folder / "model.gguf")


def pipe_for_a_file(place: Unfinished) -> None:
    os.mkfifo(place.folder / "model.gguf")


def folder_for_a_file(place: Unfinished) -> None:
    (place.folder / "model.gguf" / "inner").mkdir(parents=True)


def file_for_a_folder(place: Unfinished) -> None:
    (place.folder / "sub").write_bytes(b"x")


def extra_files(place: Unfinished) -> None:
    (place.folder / "modeling.py").write_bytes(b"import os")
    (place.folder / "more" / "deeper").mkdir(parents=True)
    (place.folder / "more" / "deeper" / "x").symlink_to("/etc")


@pytest.mark.attack("links, pipes and files planted in a download's folder")
@pytest.mark.parametrize(
    "plant",
    [
        *(link_for_a_file, link_that_is_as_long_as_the_file, link_for_a_folder, link_for_an_inner_folder),
        *(hard_link_for_a_file, pipe_for_a_file, folder_for_a_file, file_for_a_folder, extra_files),
    ],
)
def test_what_was_planted_before_a_download_is_replaced_and_its_target_is_left_alone(
    tmp_path: Path, plant: Callable[[Unfinished], None]
) -> None:
    (tmp_path / "honest").mkdir()
    honest = Unfinished(tmp_path / "honest")
    honest.fill()
    (tmp_path / "attacked").mkdir()
    place = Unfinished(tmp_path / "attacked")
    plant(place)
    place.fill()
    assert place.names() == honest.names() == ["model.gguf", "sub", "sub/deep", "sub/deep/config.json"]
    for name in ("model.gguf", "sub/deep/config.json"):
        found = (place.folder / name).lstat()
        assert (place.folder / name).read_bytes() == b"download"
        assert (found.st_nlink, found.st_mode & 0o777) == (1, 0o444)
    assert (place.elsewhere / "victim").read_bytes() == b"8 bytes!"
    assert [path.name for path in place.elsewhere.iterdir()] == ["victim"]


@pytest.mark.attack("symlink swapped in during a download")
def test_a_link_that_takes_a_files_or_folders_place_meanwhile_is_not_written_through(tmp_path: Path) -> None:
    place = Unfinished(tmp_path)
    for name in ("model.gguf", "sub/deep/config.json"):
        place.files.prepare(name, keep=False)
    place.files.write("model.gguf", 0, b"download")
    place.files.sync()
    (place.folder / "model.gguf").unlink()
    link_for_a_file(place)
    with pytest.raises(plain_file.NotPlain, match=r"model\.gguf"):
        place.files.write("model.gguf", 0, b"download")
    shutil.rmtree(place.folder / "sub" / "deep")
    shutil.copy(place.elsewhere / "victim", place.elsewhere / "config.json")
    (place.folder / "sub" / "deep").symlink_to(place.elsewhere)
    with pytest.raises(plain_file.NotPlain, match=r"config\.json"):
        place.files.write("sub/deep/config.json", 0, b"download")
    assert place.files.sha256("sub/deep/config.json", lambda: None) == "", "nor does it count as what was fetched"
    assert (place.elsewhere / "victim").read_bytes() == (place.elsewhere / "config.json").read_bytes() == b"8 bytes!"


@pytest.mark.attack("symlink in place of a download's own folder")
def test_a_downloads_folder_that_is_a_link_is_replaced(tmp_path: Path) -> None:
    slots, elsewhere = Slots(tmp_path / "state"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert slots.make_partial("a" * 64).is_dir()
    slots.partial("b" * 64).symlink_to(elsewhere)
    made = slots.make_partial("b" * 64)
    assert made.is_dir()
    assert not made.is_symlink()
    assert elsewhere.is_dir()
