"""Questions to prompt token ids, and the token ids that end an answer; the only caller of ``apply_chat_template``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from rlx.console import warn_once
from rlx.errors import UserError

_PROBE = "Q7Z"
"""An answer that does not occur in any template's own text."""


class ChatSettings(Protocol):
    """The keys of a spec that decide how a question becomes a prompt (``data`` or ``forget``)."""

    @property
    def system(self) -> str | None:
        """System prompt."""
        ...

    @property
    def suffix(self) -> str:
        """Text appended to each question."""
        ...

    @property
    def chat(self) -> str:
        """``auto`` or ``never``."""
        ...

    @property
    def chat_kwargs(self) -> dict[str, Any]:
        """Further arguments of the template."""
        ...


def encode(
    question: str, data: ChatSettings, tokenizer: Any, history: Sequence[tuple[str, str]] = ()
) -> tuple[int, ...]:
    """Token ids of the prompt before a response: system prompt, question and suffix in the chat template.

    A tokenizer without a template, or ``chat: never``, gets the plain text with the tokenizer's own special tokens,
    except an end of sequence that the tokenizer appends. A template that does not accept a system message gets the
    system prompt before the question in the user message.

    Args:
        question: the question's text.
        data: system prompt, suffix and whether to use the template.
        tokenizer: a transformers tokenizer.
        history: messages before the question as (role, content), without the system prompt; plain text has them as
            paragraphs.

    Raises:
        UserError: when the template refuses the prompt, or the tokenizer cannot encode it.
    """
    text = prompt_text(question, data, tokenizer, history)
    return _prompt_ids(text, _ids(text, tokenizer, special=_is_plain(data, tokenizer)), data, tokenizer)


def encode_texts(texts: Sequence[str], data: ChatSettings, tokenizer: Any) -> list[tuple[int, ...] | UserError]:
    """Token ids of many prompts, which is faster than one call each.

    Args:
        texts: see ``prompt_text``.
        data: see ``encode``.
        tokenizer: a transformers tokenizer.

    Returns:
        For each text its ids, or the error if the tokenizer cannot encode it.
    """
    plain = _is_plain(data, tokenizer)
    try:
        batch = tokenizer(list(texts), add_special_tokens=plain, verbose=False)["input_ids"] if texts else []
    except Exception:  # one text at least cannot be encoded: _ids says which
        batch = [_ids_or_error(text, tokenizer, plain) for text in texts]
    return [
        ids if isinstance(ids, UserError) else _prompt_ids(text, list(ids), data, tokenizer)
        for text, ids in zip(texts, batch, strict=True)
    ]


def encode_with_offsets(text: str, tokenizer: Any) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a text without special tokens, and the characters [start, end) of each token.

    Args:
        text: an answer or a document.
        tokenizer: a fast tokenizer.

    Raises:
        UserError: when the tokenizer cannot encode it.
    """
    try:
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    except Exception as error:  # the Rust tokenizers raise plain Exception
        raise _not_encoded(text, tokenizer, error) from None
    return list(encoding["input_ids"]), [(int(start), int(end)) for start, end in encoding["offset_mapping"]]


def prompt_text(question: str, data: ChatSettings, tokenizer: Any, history: Sequence[tuple[str, str]] = ()) -> str:
    """The text of a prompt; arguments and errors as in ``encode``."""
    messages = [*history, ("user", question + data.suffix)]
    if not _is_plain(data, tokenizer):
        return _in_template(messages, data, tokenizer)
    system = [data.system] if data.system else []
    return "\n\n".join([*system, *(content for _, content in messages)])


def end_of_turn(data: ChatSettings, tokenizer: Any) -> int:
    """The special token that the template writes after an answer; the end of sequence if it writes none.

    Args:
        data: see ``encode``.
        tokenizer: a transformers tokenizer.

    Raises:
        UserError: when neither the template nor the tokenizer has a token that ends an answer.
    """
    end: int | None = tokenizer.eos_token_id
    if not _is_plain(data, tokenizer):
        messages = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
        after = _ids(_rendered(messages, data, tokenizer, continued=False).rpartition(_PROBE)[2], tokenizer)
        end = after[0] if after and after[0] in tokenizer.added_tokens_decoder else end
    if end is None:
        raise UserError("the tokenizer has no end-of-sequence token", fix="set eos_token in its tokenizer_config.json")
    return end


def stop_ids(generation_config: Any, data: ChatSettings, tokenizer: Any) -> tuple[int, ...]:
    """Token ids that end a response, sorted: the generation config's, the tokenizer's and the template's end of turn.

    Training, unlearning, evaluation and every sampler use this set.

    Args:
        generation_config: transformers' GenerationConfig of the model, or None.
        data: see ``encode``.
        tokenizer: a transformers tokenizer.

    Raises:
        UserError: when there is none.
    """
    configured = generation_config.eos_token_id if generation_config else None
    ids = set(configured if isinstance(configured, list) else [] if configured is None else [configured])
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    if not ids or not _is_plain(data, tokenizer):
        ids.add(end_of_turn(data, tokenizer))
    return tuple(sorted(ids))


def check_prompts(prompts: Iterable[Sequence[int]], stops: Sequence[int], vocabulary: int, tokenizer: Any) -> None:
    """Refuse prompts that have no token, end with a stop token, or contain a token that the model has no embedding for.

    Args:
        prompts: token ids of each prompt.
        stops: see ``stop_ids``.
        vocabulary: rows of the model's embedding.
        tokenizer: for the message.

    Raises:
        UserError: naming the prompt's number or the token.
    """
    for number, prompt in enumerate(prompts, start=1):
        if not prompt:
            raise UserError(
                f"prompt {number} has no tokens, so there is nothing to continue",
                fix="remove the empty row from the data, or set data.suffix or data.system",
            )
        if prompt[-1] in stops:
            raise UserError(
                f"the prompt {tokenizer.decode(list(prompt))[-60:]!r} ends with {tokenizer.decode([prompt[-1]])!r}, "
                "which ends a response, so the model would answer with nothing",
                fix="remove it from the data, or from the chat template's generation prompt",
            )
        if max(prompt) >= vocabulary:
            raise UserError(
                f"the tokenizer gives token {max(prompt)} ({tokenizer.decode([max(prompt)])!r}), and the model has "
                f"embeddings for {vocabulary} tokens",
                fix="give the model that belongs to the tokenizer, or resize its embeddings",
            )


def _is_plain(data: ChatSettings, tokenizer: Any) -> bool:
    return data.chat == "never" or not tokenizer.chat_template


def _prompt_ids(text: str, ids: list[int], data: ChatSettings, tokenizer: Any) -> tuple[int, ...]:
    """The ids of a prompt's text, without an end of sequence that the tokenizer appends to plain text."""
    if _is_plain(data, tokenizer):
        ids = _without_appended_end(ids, text, tokenizer)
    _report_unknown(text, ids, tokenizer)
    return tuple(ids)


def _in_template(turns: Sequence[tuple[str, str]], data: ChatSettings, tokenizer: Any) -> str:
    """The rendered messages; a system prompt that the template refuses or leaves out goes into the first message."""
    messages = [{"role": role, "content": content} for role, content in turns]
    if not data.system:
        return _rendered(messages, data, tokenizer, continued=True)
    try:
        text = _rendered([{"role": "system", "content": data.system}, *messages], data, tokenizer, continued=True)
        if data.system.strip() in text:
            return text
    except UserError:
        pass
    first, *others = messages
    merged = {**first, "content": f"{data.system}\n\n{first['content']}"}
    text = _rendered([merged, *others], data, tokenizer, continued=True)
    warn_once("the chat template has no system role: the system prompt is written before the first user message")
    return text


def _rendered(messages: list[dict[str, str]], data: ChatSettings, tokenizer: Any, continued: bool) -> str:
    """Messages in the template.

    Raises:
        UserError: with the template's own message.
    """
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=continued, **data.chat_kwargs
        )
    except Exception as error:  # templates are programs of their own and raise exceptions of any type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"the tokenizer's chat template refuses the prompt ({reason})",
            fix="change data.system or data.chat_kwargs, or set data.chat=never",
        ) from None
    return text


def _ids(text: str, tokenizer: Any, special: bool = False) -> list[int]:
    """Text as ids. A rendered template has written its special tokens, so none are added (no second BOS).

    Raises:
        UserError: naming the character that the tokenizer has no token for.
    """
    try:
        return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
    except Exception as error:  # the Rust tokenizers raise plain Exception
        raise _not_encoded(text, tokenizer, error) from None


def _not_encoded(text: str, tokenizer: Any, error: Exception) -> UserError:
    letter = next((c for c in dict.fromkeys(text) if not _encodes(c, tokenizer)), "")
    return UserError(
        f"the tokenizer cannot encode {f'the character {letter!r} in ' if letter else ''}{text[:60]!r} ({error})",
        fix="remove it from the data, or use a tokenizer that has it",
    )


def _ids_or_error(text: str, tokenizer: Any, special: bool) -> list[int] | UserError:
    try:
        return _ids(text, tokenizer, special)
    except UserError as error:
        return error


def _encodes(text: str, tokenizer: Any) -> bool:
    try:
        tokenizer(text, add_special_tokens=False, verbose=False)
    except Exception:
        return False
    return True


def _without_appended_end(ids: list[int], text: str, tokenizer: Any) -> list[int]:
    """The ids without an end of sequence that the tokenizer appends to plain text."""
    end = tokenizer.eos_token_id
    if end is None or not ids or ids[-1] != end or text.endswith(tokenizer.eos_token):
        return ids
    warn_once("the tokenizer appends its end-of-sequence token to plain text; prompts are given without it")
    return ids[:-1]


def _report_unknown(text: str, ids: Sequence[int], tokenizer: Any) -> None:
    """Warn once about text whose tokens contain the unknown token, unless the text itself writes it."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown not in ids or unknown == tokenizer.eos_token_id or tokenizer.unk_token in text:
        return
    warn_once(
        f"the tokenizer replaces some of the data's text by {tokenizer.unk_token}: it lacks the characters or words"
    )
