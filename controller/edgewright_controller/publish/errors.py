"""The one error of publishing: the operator repairs what the text names, then tries again."""

from __future__ import annotations


class PublishError(Exception):
    """Keys or metadata are not usable as they stand, or the signer refused; the text says which and what to do."""
