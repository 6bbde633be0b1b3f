"""From the tokens of a response to the texts that rewards get: without the stop token, and behind the thinking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

END_OF_THINKING = ("</think>", "[/THINK]", "</seed:think>", "<|END_THINKING|>")
"""Tokens that end a thought: DeepSeek, Qwen and others; Magistral; Seed-OSS; Command A Reasoning."""
CHANNEL, MESSAGE, FINAL = "<|channel|>", "<|message|>", "final"
"""gpt-oss writes ``<|channel|>final<|message|>`` before the answer, and other names of channels before thoughts."""


@dataclass(frozen=True, slots=True)
class ResponseTexts:
    """The texts of one response.

    Example:
        with ``</think>`` as a special token: ``ResponseTexts(full="1 or 2?2", completion="2", final="2")``
    """

    full: str
    """The whole response, thoughts included, with special tokens only if they are kept."""
    completion: str
    """What a reward function gets: ``full`` if special tokens are kept, else ``final``."""
    final: str
    """The text without special tokens, from the last special token on that ends a thought; all text without one."""


@dataclass(frozen=True)
class ResponseText:
    """Decodes responses for rewards.

    Without special tokens, the text before the end of thinking is left out of the completion if a special token is that
    end, since nothing else would separate the thoughts from the answer. Ends of thinking that are ordinary text remain
    in it; graders find them by ``after_thinking``.

    Example:
        ``ResponseText(tokenizer, stops=(2,), keep_special=False).read((7, 13, 2)).completion == "7*"``
    """

    tokenizer: Any
    stops: tuple[int, ...]
    """Token ids that end a response; the last token is never part of a text if it is one of them."""
    keep_special: bool = False
    """Whether completions contain the other special tokens."""

    def read(self, tokens: Sequence[int]) -> ResponseTexts:
        """The texts of a response.

        Args:
            tokens: the response's token ids.
        """
        body = self._without_stop(tokens)
        start = max(self._after_end_token(body), self._after_final_channel(body))
        final = self._decode(body[start:], keep=False)
        unchanged = start == 0 and not self.keep_special
        full = final if unchanged else self._decode(body, self.keep_special)
        return ResponseTexts(full, full if self.keep_special else final, final)

    def _decode(self, tokens: list[int], keep: bool) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=not keep))

    def _without_stop(self, tokens: Sequence[int]) -> list[int]:
        return list(tokens[:-1] if tokens and tokens[-1] in self.stops else tokens)

    def _after_end_token(self, tokens: list[int]) -> int:
        """Index behind the last token that ends a thought; 0 without one."""
        ends = {self._special[text] for text in END_OF_THINKING if text in self._special}
        return next((index + 1 for index in range(len(tokens) - 1, -1, -1) if tokens[index] in ends), 0)

    def _after_final_channel(self, tokens: list[int]) -> int:
        """Index behind the last ``<|channel|>final<|message|>``; 0 without one."""
        if CHANNEL not in self._special or MESSAGE not in self._special:
            return 0
        channel, message = self._special[CHANNEL], self._special[MESSAGE]
        for index in range(len(tokens) - 1, -1, -1):
            if tokens[index] == channel and message in tokens[index:]:
                end = tokens.index(message, index)
                if str(self.tokenizer.decode(tokens[index + 1 : end])).strip().startswith(FINAL):
                    return end + 1
        return 0

    @cached_property
    def _special(self) -> dict[str, int]:
        """Ids of the tokenizer's special tokens, which ``skip_special_tokens`` leaves out, by their text."""
        return {str(token): index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
