"""What a person writes to have something forgotten; the sections that RL has too are its own. No torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rlx import __version__
from rlx.specs.train import ADDED_LATER, Checkpoint, Model, Optim, Section, Sharding, Tracker


class Forget(Section):
    """What is to be forgotten, what is to be kept, and how they are read."""

    source: str = "auto"
    """``minitofu`` (embedded), ``tofu/forget01|05|10``, or a .jsonl file of requests."""
    retain: str = "auto"
    """A .jsonl file of questions and answers that must stay; the benchmarks bring their own."""
    tofu: str = "locuslab/TOFU"
    """Where TOFU is: the hub data set, or a folder with its .jsonl files."""
    spans: Literal["auto", "given", "subject", "surprisal", "all"] = "auto"
    """Sensitive spans: given ones, else the subject's, else what the answer adds to the question (``auto``); or one
    way only."""
    surprisal: float = Field(default=2.0, gt=0)
    """For ``spans: surprisal``: tokens at or above so many nats when the question is not shown."""
    system: str | None = None
    """System prompt."""
    suffix: str = ""
    """Text appended to each question."""
    chat: Literal["auto", "never"] = "auto"
    """``auto`` renders the tokenizer's chat template where it has one."""
    chat_kwargs: dict[str, Any] = Field(default_factory=dict, json_schema_extra=ADDED_LATER)
    """Further arguments of the chat template, such as ``enable_thinking: false`` (Qwen3)."""
    max_tokens: int = Field(default=512, ge=8)
    """Longest sequence (tokens); a longer request is refused, never cut."""


class Unlearning(Section):
    """The unlearning method."""

    name: str = "palu"
    """A registered method, ``name@preset``, or ``path/to/file.py:function``."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The method's own parameters; ``rlx methods NAME`` lists them."""
    reduction: Literal["update", "microbatch"] = "update"
    """Means over the whole update, or over each micro-batch by itself as the released codes have them."""
    microbatch: int = Field(default=4, ge=1)
    """Forget sequences of a micro-batch under ``reduction: microbatch``."""
    train_lm_head: bool = False
    """Train the output layer (and the embeddings tied to it). PALU's mean touches every row of it, and AdamW turns the
    smallest gradient into a full step."""


class UnlearnBatch(Section):
    """How much one optimiser update sees."""

    forget: int = Field(default=8, ge=1)
    """Forget sequences an update, over all processes."""
    retain: int | None = Field(default=None, ge=1)
    """Retain sequences an update; as many as forget sequences by default, as the released codes have it."""
    max_tokens: int = Field(default=8192, ge=1)
    """Token budget of one micro-batch, padding counted."""


class UnlearnEvaluation(Section):
    """What is measured during and after."""

    every: int = Field(default=1, ge=1)
    """Epochs between evaluations; before and after are always evaluated."""
    limit: int = Field(default=200, ge=1)
    """At most so many rows of each kept set; whole authors are taken."""
    max_new_tokens: int = Field(default=200, ge=1)
    """Longest greedy answer (tokens)."""
    engine: Literal["auto", "hf", "vllm"] = "auto"
    """What answers: ``vllm`` where it is installed and the model is large enough for it, else transformers."""
    memory_share: float = Field(default=0.4, gt=0, lt=1)
    """Part of a GPU's memory for vLLM; the trainer keeps the rest."""
    utility_budget: float = Field(default=0.95, gt=0, le=1)
    """Checkpoints below this share of the original's utility cannot be selected."""
    retain_model: str | None = None
    """Folder or hub id of a model that never saw the forget set: the yardstick, where there is one."""
    attacks: list[Literal["relearn", "quantize", "prefix"]] = ["relearn", "quantize", "prefix"]
    """Attempts to bring the knowledge back, after the end."""
    relearn_requests: int = Field(default=10, ge=1)
    """Requests of the validation half that the relearning attack trains on."""
    relearn_updates: int = Field(default=10, ge=1)
    """Its optimiser updates."""
    quantize_bits: Literal[4, 8] = 4
    """Bits of the weights' round trip."""
    prefix_tokens: int = Field(default=3, ge=1)
    """Tokens of the right answer that the prefix attack puts in the model's mouth."""


class UnlearnSpec(Section):
    """One unlearning experiment."""

    run_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """First part of the run folder's name."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the forget set."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Every random choice follows from it."""
    model: Model = Model()
    forget: Forget = Forget()
    method: Unlearning = Unlearning()
    optim: Optim = Optim()
    batch: UnlearnBatch = UnlearnBatch()
    sharding: Sharding = Sharding()
    evaluation: UnlearnEvaluation = UnlearnEvaluation()
    checkpoint: Checkpoint = Checkpoint()
    tracker: Tracker = Tracker()


class ResolvedUnlearn(Section):
    """An unlearning spec with nothing left open, and what follows from it.

    Example:
        ``ResolvedUnlearn(run_id="palu_embedded_minitofu_s0-1f0c2a9b33", spec=spec, model_folder="models/x",
        fingerprints={"model": "sha256:1b..."})``
    """

    run_id: str
    spec: UnlearnSpec
    model_folder: str
    """What ``from_pretrained`` is given: a folder or a hub id."""
    retain_folder: str | None = None
    """The same of the retain model."""
    fingerprints: dict[str, str]
    """Content hashes of local files that the run reads."""
    engine_reason: str = ""
    """Why ``evaluation.engine`` is what it is."""
    version: str = __version__
