"""Files that are text: words, templates, vocabularies. And sentencepiece's models, which share a suffix with some."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

from edgewright_contract.model_files import FileUnsafe

MAX_TEMPLATE_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = 1 << 16
_MAX_PIECES: Final = 1 << 20
_PIECES: Final = 1
# trainer_spec, normalizer_spec, self_test_data, denormalizer_spec; extensions from 200 on.
_PARTS: Final = frozenset({2, 3, 4, 5})
_EXTENSIONS: Final = 200
_BYTES: Final = 2
_READ_BYTES: Final = 1 << 20


def check(path: Path) -> None:
    """Raise FileUnsafe unless the file begins as UTF-8 text without control characters. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not _is_text(head):
        raise FileUnsafe("it is not the text that its name promises")


def check_json(path: Path) -> None:
    """Raise FileUnsafe unless the file begins as a JSON table or list does. Raises OSError."""
    check(path)
    with open(path, "rb") as file:
        if file.read(_HEAD_BYTES).lstrip(b" \t\r\n")[:1] not in (b"{", b"["):
            raise FileUnsafe("not JSON")


def check_template(path: Path) -> None:
    """Raise FileUnsafe unless the file is a text of bounded length. Raises OSError."""
    check(path)
    size = path.stat().st_size
    if size > MAX_TEMPLATE_BYTES:
        raise FileUnsafe(f"a template of {size:,} bytes; at most {MAX_TEMPLATE_BYTES:,}")


def check_xml(path: Path) -> None:
    """Raise FileUnsafe unless the file is XML that refers to nothing outside of itself. Raises OSError."""
    check(path)
    with open(path, "rb") as file:
        kept = b""
        while piece := file.read(_READ_BYTES):
            if b"<!" in (kept + piece).replace(b"<!--", b""):
                raise FileUnsafe("a declaration in XML, which may refer to files elsewhere")
            kept = piece[-4:]


def check_vocabulary(path: Path) -> None:
    """Raise FileUnsafe unless a `.model` file is text, as tiktoken's, or sentencepiece's protobuf. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[:1] != b"\x0a" and _is_text(head):
            return
        size, at, pieces = file.seek(0, 2), 0, 0
        file.seek(0)
        for _ in range(_MAX_PIECES):
            start = file.read(12)
            if not start:
                break
            tag, used = _varint(start)
            length, more = _varint(start[used:])
            number = tag >> 3
            known = number == _PIECES or number in _PARTS or number >= _EXTENSIONS
            at += used + more + length
            if not known or tag & 7 != _BYTES or at > size:
                raise FileUnsafe("neither sentencepiece's vocabulary nor a text")
            pieces += number == _PIECES
            file.seek(at)
        else:
            raise FileUnsafe(f"a vocabulary of more than {_MAX_PIECES:,} pieces")
        if not pieces:
            raise FileUnsafe("a vocabulary without a piece")


def _is_text(head: bytes) -> bool:
    if any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in set(head)):
        return False
    try:
        # Not final: the head may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _varint(data: bytes) -> tuple[int, int]:
    """A number and how many bytes it took."""
    value = 0
    for place, byte in enumerate(data[:10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, place + 1
    raise FileUnsafe("neither sentencepiece's vocabulary nor a text")
