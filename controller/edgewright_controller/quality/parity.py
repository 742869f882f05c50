"""Whether an artifact's tokenizer and chat template are the source's. Pure.

Logits on equal ids cannot show a lost template or a second BOS, so this is a check of its own: the ids of raw texts,
and whole chats as the engine renders them. They must be equal, unless the manifest states how many texts may differ;
each one that does is told either way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_AROUND: Final = 3
# Before the name of each chat, so that it is no text's.
CHAT: Final = "chat: "


@dataclass(frozen=True)
class Difference:
    """One text that became other ids, or another rendering. `what` says where they part, for a person."""

    text: str
    what: str


def of_ids(source: Mapping[str, Sequence[int]], artifact: Mapping[str, Sequence[int]]) -> tuple[Difference, ...]:
    """Texts (by name) whose ids differ, or that the artifact's tokenizer gave no ids for."""
    found = []
    for name, wanted in source.items():
        got = artifact.get(name)
        if got is None:
            found.append(Difference(name, "was not turned into ids"))
        elif list(wanted) != list(got):
            found.append(Difference(name, _parting(wanted, got)))
    return tuple(found)


def of_chats(
    source: Mapping[str, str], artifact: Mapping[str, str], same_ids: Collection[str] = ()
) -> tuple[Difference, ...]:
    """Chats (by name) that are rendered differently, or not at all.

    Those of `same_ids` reach the model as the same tokens, and are the same: a runtime may leave the token that begins
    a text to its tokenizer, where the source's template writes it.
    """
    found = []
    for name, wanted in source.items():
        got = artifact.get(name)
        if got is not None and name in same_ids:
            continue
        if got is None:
            found.append(Difference(name, "was not rendered; has the chat template been lost?"))
        elif wanted != got:
            at = next(
                (i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got))
            )
            piece = slice(max(0, at - 10), at + 20)
            found.append(Difference(name, f"at character {at}: {wanted[piece]!r} became {got[piece]!r}"))
    return tuple(found)


def _parting(wanted: Sequence[int], got: Sequence[int]) -> str:
    at = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
    piece = slice(max(0, at - _AROUND), at + _AROUND)
    return f"at token {at}: {list(wanted[piece])} became {list(got[piece])} ({len(wanted)} and {len(got)} ids)"
