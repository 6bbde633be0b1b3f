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


@dataclass(frozen=True)
class ResponseText:
    """Decodes responses for rewards.

    Example:
        ``ResponseText(tokenizer, stops=(2,), keep_special=False).completion((7, 13, 2)) == "7*"``
    """

    tokenizer: Any
    stops: tuple[int, ...]
    """Token ids that end a response; they are never part of the text."""
    keep_special: bool = False
    """Whether the text contains the other special tokens."""

    def completion(self, tokens: Sequence[int]) -> str:
        """The text of a response as a reward function gets it.

        Without special tokens, the text before the end of thinking is left out if a special token marks that end,
        since nothing else would separate the thoughts from the answer.

        Args:
            tokens: the response's token ids.
        """
        return self.full(tokens) if self.keep_special else self.final(tokens)

    def full(self, tokens: Sequence[int]) -> str:
        """The text of the whole response, thoughts included, with special tokens only if they are kept."""
        return str(self.tokenizer.decode(self._without_stop(tokens), skip_special_tokens=not self.keep_special))

    def final(self, tokens: Sequence[int]) -> str:
        """The text without special tokens, from the last special token on that ends a thought; all text without one.

        Ends of thinking that are ordinary text remain in it; graders find them by ``after_thinking``.

        Args:
            tokens: the response's token ids.
        """
        body = self._without_stop(tokens)
        start = max(self._after_end_token(body), self._after_final_channel(body))
        return str(self.tokenizer.decode(body[start:], skip_special_tokens=True))

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
