"""Names and sizes in a bundle that would lead a device astray: each is refused where bundles are read and made."""

from __future__ import annotations

import unicodedata

import pytest

from edgewright_contract import bundle, canonical
from edgewright_contract.bundle import BundleError, BundleFile

SHA = "0" * 64
HONEST = ("model.gguf", "sub/config.json", "tokenizer_config.json")


def refused(*paths: str, why: str = "") -> None:
    """The honest files make a bundle; with `paths` among them they do not, on either side."""
    files = [BundleFile(path, 1, SHA) for path in HONEST]
    assert bundle.parse(bundle.make(files).encode()).files == tuple(sorted(files))
    files += [BundleFile(path, 1, SHA) for path in paths]
    with pytest.raises(BundleError, match=why):
        bundle.make(files)
    # As whoever signs would write it, past our own maker.
    listed = sorted(files, key=lambda file: file.path)
    entries = [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in listed]
    with pytest.raises(BundleError, match=why):
        bundle.parse(canonical.encode({"edgewright_bundle": 1, "files": entries}))


@pytest.mark.attack("path traversal in a bundle")
@pytest.mark.parametrize(
    "path",
    ["../model.gguf", "a/../../b", "a/..", "..", "a/./b", "./a", "a//b", "a/", "...", "a/.../b", ".. /a", "..\\a"],
)
def test_a_path_that_climbs_out_of_the_folder_is_refused(path: str) -> None:
    refused(path, why="not a plain file name")


@pytest.mark.attack("absolute path in a bundle")
@pytest.mark.parametrize(
    "path", ["/etc/cron.d/x", "//server/share/x", "C:\\x", "C:x", "\\\\?\\C:\\x", "\\x", "~/.bashrc", "/"]
)
def test_an_absolute_path_is_refused(path: str) -> None:
    refused(path, why="not a plain file name")


@pytest.mark.attack("NUL or control character in a name")
@pytest.mark.parametrize(
    "path", ["model.gguf\0.txt", "a\nb", "a\rb", "a\tb", "a\x1b[2Jb", "a\x7fb", "a\u202eb", "a\ud800"]
)
def test_a_name_with_characters_that_are_not_seen_is_refused(path: str) -> None:
    refused(path, why="not a plain file name")


@pytest.mark.attack("names that clash in case")
@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (("MODEL.gguf",), "differ only in case"),
        (("Model.GGUF",), "differ only in case"),
        (("SUB/other.json",), "differ only in case"),
        (("model.gguf",), "differ only in case, or not at all"),
        (("Sub",), "both a file and a folder"),
    ],
)
def test_names_that_are_one_name_on_some_disks_are_refused(paths: tuple[str, ...], why: str) -> None:
    refused(*paths, why=why)


@pytest.mark.attack("names that clash in Unicode")
@pytest.mark.parametrize(
    "path",
    [
        unicodedata.normalize("NFC", "mod\u00e8l.gguf"),
        unicodedata.normalize("NFD", "mod\u00e8l.gguf"),
        "\uff4dodel.gguf",  # full-width
        "stra\u00dfe.json",  # folds to two letters
        "\u212a.json",  # Kelvin's sign, whose lower case is k
        "\ufb01le.json",  # a ligature
        "\u0131.json",  # i without its dot
        "model\u200b.gguf",
        "\u043c\u043edel.gguf",  # letters of another alphabet
    ],
)
def test_a_name_beyond_ascii_is_refused_whatever_its_form(path: str) -> None:
    refused(path, why="not a plain file name")


@pytest.mark.attack("Windows device name")
@pytest.mark.parametrize(
    "path",
    ["CON", "con.gguf", "NUL.gguf", "aux.json", "sub/PRN", "COM1", "com9.txt", "LPT1.tar.gz", "nul/model.gguf", "COM0"],
)
def test_a_name_that_is_a_device_on_windows_is_refused(path: str) -> None:
    refused(path, why="names a device")


@pytest.mark.attack("Windows device name in disguise")
@pytest.mark.parametrize("path", ["COM¹", "LPT².txt", "CONIN$", "NUL:", "aux.", "nul ", "con .json:x", "CLOCK$"])
def test_a_device_name_in_another_spelling_is_refused(path: str) -> None:
    refused(path, why=r"not a plain file name|names a device")


@pytest.mark.attack("alternate data stream")
@pytest.mark.parametrize("path", ["model2.gguf:evil", "a:$DATA", "a::$INDEX_ALLOCATION", "sub/b:c"])
def test_a_hidden_stream_of_a_file_is_refused(path: str) -> None:
    refused(path, why="not a plain file name")


@pytest.mark.attack("name that Windows shortens")
@pytest.mark.parametrize("path", ["model.gguf.", "model.gguf ", "sub./x", "sub /x", "a. . ."])
def test_a_name_that_ends_in_a_dot_or_a_blank_is_refused(path: str) -> None:
    refused(path, why="not a plain file name")


@pytest.mark.attack("overlong path")
@pytest.mark.parametrize("path", ["x" * 256, "a/" * 130 + "b", "x" * 241, "/".join(["y" * 60] * 5), "ä" * 128])
def test_a_path_longer_than_a_disk_takes_is_refused(path: str) -> None:
    refused(path, why="path of more than 240 bytes")


@pytest.mark.attack("too many files")
def test_more_files_than_a_disk_should_be_filled_with_are_refused() -> None:
    files = [BundleFile(f"f{number:05}", 0, SHA) for number in range(bundle.MAX_FILES)]
    assert len(bundle.parse(bundle.make(files).encode()).files) == 10_000
    with pytest.raises(BundleError, match="10001 files"):
        bundle.make([*files, BundleFile("one-more", 0, SHA)])


@pytest.mark.attack("file that is also a folder")
@pytest.mark.parametrize("path", ["model.gguf/inner", "MODEL.gguf/a/b", "sub/config.json/x", "sub"])
def test_a_path_that_is_file_and_folder_is_refused(path: str) -> None:
    refused(path, why="both a file and a folder")


@pytest.mark.attack("sizes that overflow")
@pytest.mark.parametrize("sizes", [(1 << 42, 1), (1 << 41,) * 3, (1 << 63, 1), (1 << 64,), (-1,), ((1 << 41) + 1,) * 2])
def test_sizes_that_no_counter_or_disk_holds_are_refused(sizes: tuple[int, ...]) -> None:
    assert bundle.make([BundleFile("a", 1 << 42, SHA)]).size == 1 << 42
    with pytest.raises(BundleError, match=r"out of range|bytes in all"):
        bundle.make([BundleFile(f"f{number}", size, SHA) for number, size in enumerate(sizes)])
