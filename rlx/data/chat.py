"""Questions to token ids; the only caller of ``apply_chat_template``."""

from __future__ import annotations

from typing import Any

from rlx.errors import UserError
from rlx.spec import Data


def encode(question: str, data: Data, tokenizer: Any) -> tuple[int, ...]:
    """Token ids of a prompt that a response follows: system prompt, question and suffix in the chat template.

    A tokenizer without a template, or ``data.chat: never``, gets the plain text with its own special tokens.

    Args:
        question: the question's text.
        data: system prompt, suffix and whether to use the template.
        tokenizer: a transformers tokenizer.
    """
    content = question + data.suffix
    if data.chat == "never" or not tokenizer.chat_template:
        text = f"{data.system}\n\n{content}" if data.system else content
        return tuple(tokenizer(text)["input_ids"])
    messages = [{"role": "system", "content": data.system}] if data.system else []
    messages.append({"role": "user", "content": content})
    return tuple(_rendered(messages, tokenizer, continued=True))


def encode_pair(question: str, answer: str, data: Data, tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a prompt and of the answer that follows it, its end-of-sequence token included.

    The answer is tokenised by itself, so that its tokens are those that a model samples behind the prompt.

    Args:
        question: the question's text; empty for a plain text.
        answer: the answer's text.
        data: see ``encode``.
        tokenizer: a transformers tokenizer with an end-of-sequence token.
    """
    prompt = encode(question, data, tokenizer)
    ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return prompt, (*ids, tokenizer.eos_token_id)


def _rendered(messages: list[dict[str, str]], tokenizer: Any, continued: bool) -> list[int]:
    """Messages in the template, as ids; the template writes its own special tokens, so none are added."""
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=continued)
    except Exception as error:  # templates are programs of their own and raise what they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the tokenizer's chat template refuses the prompt ({reason})",
            fix="drop data.system, or set data.chat=never",
        ) from None
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
