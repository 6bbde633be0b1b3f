"""Sensitive text without its content: first letter, length and keyed hash."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from rlx.errors import UserError, reason
from rlx.runs.folder import write_atomically
from rlx.unlearning.data.requests import Request

SHORTEST_WITH_LETTER = 4
"""Of shorter texts, such as a blood group, the first letter is not shown: it would be half of the content."""
SHORTEST_SECRET = 2
"""Shorter texts are not searched for in other texts."""
HASH_DIGITS = 16
LONGEST = 64
"""Words of a secret text that are compared."""
MASK = "[masked]"
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class MaskedText:
    """What is shown of a sensitive text.

    Example:
        ``MaskedText(first="5", length=8, hash="hmac:0d1f35c2a9b3377e")``
    """

    first: str
    """First letter; empty for a text of fewer than four."""
    length: int
    """Characters."""
    hash: str
    """HMAC-SHA256 under the run's key, 16 digits: equal texts of a run have equal hashes."""

    @property
    def short(self) -> str:
        """The masked text on one line."""
        return f"{self.first}… ({self.length} characters, {self.hash.removeprefix('hmac:')[:8]})"


@dataclass(frozen=True, slots=True)
class Masker:
    """Masks texts with the key of one run.

    Example:
        ``Masker(key, secret_texts(requests)).mask("555-0199")``
    """

    key: bytes
    secret_texts: Sequence[str] = ()
    """Texts that are replaced inside of others."""
    texts: dict[str, str] = field(default_factory=dict)
    """Every text that was masked, by its hash; written only with ``--show-secrets``."""

    def mask(self, text: str) -> MaskedText:
        """The masked text, which is remembered in ``texts``."""
        masked = MaskedText(text[:1] if len(text) >= SHORTEST_WITH_LETTER else "", len(text), self.digest(text))
        self.texts[masked.hash] = text
        return masked

    def digest(self, text: str) -> str:
        """The keyed hash of a text. Without the key nobody can confirm a guess of it."""
        return "hmac:" + hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()[:HASH_DIGITS]

    def scrub(self, text: str) -> str:
        """A text in which every secret text is replaced by ``[masked]``, whatever its case and punctuation."""
        by_first_word, without_words = _indexed(tuple(self.secret_texts))
        for secret in without_words:
            text = text.replace(secret, MASK)
        words = [(match.group().casefold(), match.start(), match.end()) for match in WORD.finditer(text)]
        pieces, shown_to, index = [], 0, 0
        while index < len(words):
            length = _matching_words([word for word, *_ in words[index : index + LONGEST]], by_first_word)
            if length:
                pieces += [text[shown_to : words[index][1]], MASK]
                shown_to = words[index + length - 1][2]
            index += length or 1
        return "".join([*pieces, text[shown_to:]])

    def label(self, request: Request) -> str:
        """A request's id, masked if it contains a secret text; a line number never is."""
        scrubbed = request.id if request.id == str(request.line) else self.scrub(request.id)
        return request.id if scrubbed == request.id else self.mask(request.id).short


def secret_texts(requests: Iterable[Request]) -> tuple[str, ...]:
    """The texts of requests that other texts must not contain: subjects, sensitive parts and complete answers."""
    texts: dict[str, None] = {}
    for request in requests:
        parts = [request.answer, *(request.answer[span.start : span.end] for span in request.spans)]
        parts += [request.subject or "", *request.aliases]
        texts |= dict.fromkeys(part.strip() for part in parts if len(part.strip()) >= SHORTEST_SECRET)
    return tuple(texts)


def hide_quoted(text: str) -> str:
    """A sentence about a span (see ``data.spans.repair``) without the words that it quotes."""
    return re.sub(r"'.*?'(?= at \d|$)", MASK, text)


def create_key(path: Path) -> None:
    """Write a random key that only its owner can read, unless there is one.

    Raises:
        UserError: when it cannot be written.
    """
    try:
        if not path.exists():
            write_atomically(path, secrets.token_hex(32), private=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({reason(error)})",
            fix="free some space or choose another --runs-dir",
            exit_code=1,
        ) from None


def read_key(path: Path) -> bytes:
    """The run's key.

    Raises:
        UserError: when it is missing or damaged.
    """
    try:
        return bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error})", fix="start the run again with --fresh", exit_code=1
        ) from None


@lru_cache(maxsize=4)
def _indexed(texts: tuple[str, ...]) -> tuple[dict[str, list[list[str]]], list[str]]:
    """Texts as words by their first word, longest first; and those of scripts that do not separate words."""
    by_first_word: dict[str, list[list[str]]] = {}
    without_words = []
    for text in sorted(texts, key=len, reverse=True):
        words = [word.casefold() for word in WORD.findall(text)][:LONGEST]
        if text.upper() == text.lower() and not any(letter.isascii() and letter.isalnum() for letter in text):
            without_words.append(text)
        elif words:
            by_first_word.setdefault(words[0], []).append(words)
    return by_first_word, without_words


def _matching_words(words: Sequence[str], by_first_word: Mapping[str, Sequence[Sequence[str]]]) -> int:
    """Number of words at the start that are a secret text; 0 for none."""
    matches = [secret for secret in by_first_word.get(words[0], ()) if list(words[: len(secret)]) == list(secret)]
    return max((len(secret) for secret in matches), default=0)
