"""Passwords and tokens: taken out of every text that is printed or stored, and refused in specs, which are stored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+@")
"""User name and password before the host of an address."""
IN_QUERY = re.compile(r"(?i)([?&;](?:\w*(?:token|secret|password|passwd|signature|api_?key)\w*)=)[^&;\s'\"]+")
TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}"
    r"|xox[abpr]-[\w-]{10,}|AKIA[A-Z0-9]{16})\b"
)
"""Tokens by their published forms: Hugging Face, GitHub, GitLab, OpenAI, Slack, AWS."""
SECRET_NAMES = re.compile(r"(?i)(?:^|_)(?:token|password|passwd|secret|api_?key|access_?key|credentials?)$")
"""Names of keys and of environment variables whose values are secrets."""
SHORTEST = 6
"""Shorter values of environment variables are not looked for: they occur in other words."""
HIDDEN = "***"


def without_credentials(text: str) -> str:
    """The text without passwords in addresses, tokens, and the values of secret environment variables."""
    text = IN_QUERY.sub(rf"\1{HIDDEN}", IN_ADDRESS.sub("", text))
    text = TOKENS.sub(HIDDEN, text)
    for value in _environment_secrets():
        text = text.replace(value, HIDDEN)
    return text


def _environment_secrets() -> list[str]:
    values = (os.environ.get(name, "") for name in os.environ if _names_a_secret(name))
    return sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)


@cache
def _names_a_secret(name: str) -> bool:
    """Whether a variable of the environment holds a secret; asked for each text that is printed."""
    return SECRET_NAMES.search(name) is not None


def credentials_in(content: Mapping[str, Any]) -> str:
    """The first key of a spec with a credential in its name or value, as a dotted key; empty if there is none."""
    return next(_keys_with_credentials(content, ""), "")


def _keys_with_credentials(value: object, key: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            dotted = f"{key}.{name}" if key else str(name)
            if without_credentials(str(name)) != str(name):
                yield key or "the spec"
            if SECRET_NAMES.search(str(name).rpartition(".")[2]) and isinstance(inner, str) and inner:
                yield dotted
            yield from _keys_with_credentials(inner, dotted)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _keys_with_credentials(inner, f"{key}.{index}")
    elif isinstance(value, str) and without_credentials(value) != value:
        yield key
