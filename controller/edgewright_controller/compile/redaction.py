"""What looks like a credential, taken out of words that are shown or kept. Pure.

Toolchains get no credentials, so this is for what somebody put into a model's own files, and for addresses.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "[hidden]"
_PATTERNS: Final = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), HIDDEN),
    # Tokens of hubs and clouds, by the form that their makers gave them.
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,})\b"), HIDDEN),
    # Signed addresses and headers.
    (
        re.compile(
            r"(?i)((?:x-amz-signature|x-amz-security-token|x-goog-signature|\bsig|authorization|api[_-]?key|secret"
            r"(?:[_-]?access)?(?:[_-]?key)?|password|token)\s*[=:]\s*(?:bearer\s+|basic\s+)?)[^\s&\"',;]{6,}"
        ),
        rf"\g<1>{HIDDEN}",
    ),
)


def redacted(text: str) -> str:
    """The text without them."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
