"""The section ``data`` of a training spec. Does not import torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rlx.specs.section import ADDED_LATER, Section

AnswerFormat = Literal["raw", "last_boxed", "gsm8k_hash"]


class DataSource(Section):
    """One of several sources; a key without a value is that of ``data``."""

    source: str
    """As ``data.source``."""
    weight: float | None = Field(default=None, gt=0)
    """Share of the prompts drawn from this source, relative to the other weights. Without any weight every prompt is
    drawn equally often."""
    subset: str | None = None
    """As ``data.subset``."""
    split: str | None = None
    """As ``data.split``."""
    prompt: str | None = None
    """As ``data.prompt``."""
    answer: str | None = None
    """As ``data.answer``."""
    answer_format: AnswerFormat | None = None
    """As ``data.answer_format``."""
    system: str | None = None
    """As ``data.system``."""


class Data(Section):
    """The training prompts and their gold answers."""

    source: str = "auto"
    """``arithmetic`` (embedded), a file (.jsonl, .json, .csv, .parquet, each also .gz), a glob, a folder saved by
    ``datasets``, or a hub data set; ``auto`` is the embedded task."""
    sources: list[DataSource] = Field(default_factory=list, json_schema_extra=ADDED_LATER)
    """Several sources instead of ``source``, each with its own columns and weight."""
    subset: str | None = None
    """Configuration name of a hub data set, such as ``main``."""
    split: str = "train"
    """Split of a hub data set, or of a saved folder with several."""
    prompt: str = "prompt"
    """Column of the question or conversation, by dotted path (``extra.question``). If no row has the column ``prompt``
    and exactly one of question, problem and messages exists, that one is read."""
    answer: str = "answer"
    """Column of the gold answer, or of a list of accepted answers, by dotted path. If no row has the column ``answer``
    and exactly one of solution, ground_truth and reward_model.ground_truth exists, that one is read."""
    answer_format: AnswerFormat = "raw"
    """Where the gold answer is in its column: all of it, in the last ``\\boxed{}``, or after the last ``####``. With
    ``raw``, an answer whose last line is ``#### 7`` (GSM8K) is read as 7."""
    system: str | None = None
    """System prompt."""
    system_column: str | None = Field(default=None, json_schema_extra=ADDED_LATER)
    """Column of a row's own system prompt, by dotted path; it replaces ``system`` in rows that have one."""
    suffix: str = ""
    """Text appended to each question."""
    chat: Literal["auto", "never"] = "auto"
    """``auto`` applies the tokenizer's chat template if it has one; ``never`` uses plain text."""
    chat_kwargs: dict[str, Any] = Field(default_factory=dict, json_schema_extra=ADDED_LATER)
    """Additional arguments of the chat template, such as ``enable_thinking: false`` (Qwen3)."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Maximum length of a prompt (tokens); longer prompts are left out and counted."""
    max_left_out: float = Field(default=0.05, ge=0, le=1, json_schema_extra=ADDED_LATER)
    """Maximum fraction of rows without a usable prompt or answer, too long, or unreadable; more end the run."""
    limit: int | None = Field(default=None, ge=1)
    """Number of rows to use, from the first one; null uses all."""

    def parts(self) -> list[Data]:
        """This section for each source alone, in order."""
        if not self.sources:
            return [self]
        own = [source.model_dump(exclude={"weight"}, exclude_none=True) for source in self.sources]
        return [self.model_copy(update={**keys, "sources": []}) for keys in own]

    def weights(self) -> list[float] | None:
        """The weight of each source; None if no weight is given."""
        given = [source.weight for source in self.sources if source.weight is not None]
        return given or None
