"""Compare the spans of `--spans auto` with TOFU's published spans, token by token.

python experiments/studies/tofu_span_agreement.py FOLDER [--tokenizer FOLDER_OR_HUB_ID]

FOLDER holds forget01_spans.jsonl, forget05_spans.jsonl and forget10_spans.jsonl (rows with question, answer and
sensitive_spans). Prints, for each split, the share of the published sensitive tokens that auto finds (recall) and the
share of auto's sensitive tokens that are published (precision). A token is a token of the tokenizer if one is given,
else a word of the answer; it is sensitive if it overlaps a span.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlx.unlearning.data.requests import Request, read_requests, with_spans
from rlx.unlearning.data.spans import Span

SPLITS = ("forget01", "forget05", "forget10")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Counts of sensitive tokens.

    Example:
        ``Agreement(published=120, found=190, both=110)``
    """

    published: int
    found: int
    both: int

    @property
    def recall(self) -> float:
        """Share of the published sensitive tokens that auto finds."""
        return self.both / self.published

    @property
    def precision(self) -> float:
        """Share of auto's sensitive tokens that are published."""
        return self.both / self.found


def agreement(requests: list[Request], tokenizer: Any = None) -> Agreement:
    """Published and found sensitive tokens of requests whose spans are the published ones."""
    found = with_spans([replace(request, spans=(), source="") for request in requests], "auto")
    published_total = found_total = both_total = 0
    for request, other in zip(requests, found, strict=True):
        tokens = _tokens(request.answer, tokenizer)
        published, own = _sensitive(tokens, request.spans), _sensitive(tokens, other.spans)
        published_total, found_total = published_total + len(published), found_total + len(own)
        both_total += len(published & own)
    return Agreement(published_total, found_total, both_total)


def _tokens(answer: str, tokenizer: Any) -> list[tuple[int, int]]:
    if tokenizer is None:
        return [match.span() for match in re.finditer(r"\w+", answer)]
    return list(tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"])


def _sensitive(tokens: list[tuple[int, int]], spans: tuple[Span, ...]) -> set[int]:
    return {i for i, (start, end) in enumerate(tokens) if any(start < s.end and s.start < end for s in spans)}


def main() -> None:
    """Print one line for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer")
    arguments = parser.parse_args()
    tokenizer = None
    if arguments.tokenizer:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    for split in SPLITS:
        counts = agreement(read_requests(arguments.folder / f"{split}_spans.jsonl"), tokenizer)
        print(
            f"{split}: {counts.recall:.1%} of {counts.published} published sensitive tokens found, "
            f"{counts.precision:.1%} of {counts.found} found ones published"
        )


if __name__ == "__main__":
    main()
