"""Questions to token ids; the only caller of ``apply_chat_template``."""

from __future__ import annotations

from typing import Any

from rlx.errors import UserError
from rlx.specs.train import Data

_PROBE = "Q7Z"
"""An answer that no template's own text holds."""


def encode(question: str, data: Data, tokenizer: Any) -> tuple[int, ...]:
    """Token ids of a prompt that a response follows: system prompt, question and suffix in the chat template.

    A tokenizer without a template, or ``data.chat: never``, gets the plain text with its own special tokens.

    Args:
        question: the question's text.
        data: system prompt, suffix and whether to use the template.
        tokenizer: a transformers tokenizer.
    """
    content = question + data.suffix
    if _is_plain(data, tokenizer):
        text = f"{data.system}\n\n{content}" if data.system else content
        return tuple(tokenizer(text, verbose=False)["input_ids"])
    text = _rendered(_messages(content, data), tokenizer, continued=True)
    if data.system and data.system.strip() not in text:
        raise UserError(
            "the tokenizer's chat template leaves out the system prompt", fix="drop data.system, or set data.chat=never"
        )
    return _ids(text, tokenizer)


def end_of_turn(data: Data, tokenizer: Any) -> int:
    """The special token that the template writes behind an answer, else the end of sequence: in some they differ.

    Args:
        data: see ``encode``.
        tokenizer: a transformers tokenizer.

    Raises:
        UserError: when neither the template nor the tokenizer has a token that ends an answer.
    """
    end: int | None = tokenizer.eos_token_id
    if not _is_plain(data, tokenizer):
        messages = [*_messages(_PROBE, data), {"role": "assistant", "content": _PROBE}]
        behind = _ids(_rendered(messages, tokenizer, continued=False).rpartition(_PROBE)[2], tokenizer)
        end = behind[0] if behind and behind[0] in tokenizer.added_tokens_decoder else end
    if end is None:
        raise UserError("the tokenizer has no end-of-sequence token", fix="set eos_token in its tokenizer_config.json")
    return end


def _is_plain(data: Data, tokenizer: Any) -> bool:
    return data.chat == "never" or not tokenizer.chat_template


def _messages(content: str, data: Data) -> list[dict[str, str]]:
    system = [{"role": "system", "content": data.system}] if data.system else []
    return [*system, {"role": "user", "content": content}]


def _rendered(messages: list[dict[str, str]], tokenizer: Any, continued: bool) -> str:
    """Messages in the template."""
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=continued)
    except Exception as error:  # templates are programs of their own and raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"the tokenizer's chat template refuses the prompt ({reason})",
            fix="drop data.system, or set data.chat=never",
        ) from None
    return text


def _ids(text: str, tokenizer: Any) -> tuple[int, ...]:
    """Rendered text as ids; the template has written its special tokens, so none are added (no second BOS)."""
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
