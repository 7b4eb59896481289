"""The last check before a page is written: what looks like a secret is removed, whatever its source."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN: Final = "[hidden]"
_VALUE: Final = r"[^\s<>&\"']+"
_QUOTE: Final = r"(?:&#3[49];|&quot;|[\"'])?"  # on a page quotes are escaped
_FORMS: Final = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^<]*"),
    re.compile(r"\b(?:rsk-|hf_|ghp_|sk-)[A-Za-z0-9_-]{8,}"),
    re.compile(rf"(?i)(\bbearer\s+){_VALUE}"),
    re.compile(rf"(?i)(\b(?:password|passwd|passphrase|secret|api[_-]?key){_QUOTE}\s*[=:]\s*{_QUOTE}){_VALUE}"),
    # In prose a token is followed by a colon and a word: only what has a digit is taken for a secret.
    re.compile(rf"(?i)(\btoken{_QUOTE}\s*[=:]\s*{_QUOTE})(?=[^\s<>&\"']*\d){_VALUE}"),
    re.compile(r"(://[^/\s:@<>]+:)[^/\s@<>]+(?=@)"),
)


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without these secrets and without what looks like one.

    Args:
        text: a page, or any part of one.
        secrets: values that are known, such as the key of the client that asked.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    for form in _FORMS:
        text = form.sub(lambda found: (found.group(1) if found.re.groups else "") + HIDDEN, text)
    return text
