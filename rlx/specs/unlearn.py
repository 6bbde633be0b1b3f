"""The spec of an unlearning experiment; sections shared with training come from train.py. Does not import torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from rlx import __version__
from rlx.specs.train import ADDED_LATER, Checkpoint, Model, Optim, Section, Sharding, Tracker


class Forget(Section):
    """The forget and retain sets and how they are read."""

    source: str = "auto"
    """``minitofu`` (embedded), ``tofu/forget01|05|10``, or requests: a file (.jsonl, .json, .csv, .parquet, each also
    .gz), a glob, or a folder saved by ``datasets``."""
    retain: str = "auto"
    """Questions and answers to retain, in the same formats; ``minitofu`` and TOFU have their own, and with one's own
    requests ``auto`` retains general questions that come with rlx."""
    tofu: str = "locuslab/TOFU"
    """Source of TOFU: the hub data set, or a folder with its .jsonl files."""
    spans: Literal["auto", "given", "subject", "surprisal", "all"] = "auto"
    """How the sensitive spans of an answer are found. ``auto`` uses the spans given in the request, else what the
    answer adds to the question, with the subject only where the question does not hold it; ``subject`` marks the
    subject and its aliases, for requests to forget that somebody exists; the other choices use one method only."""
    surprisal: float = Field(default=2.0, gt=0)
    """For ``spans: surprisal``: tokens with at least this surprisal (nats) without the question are sensitive."""
    system: str | None = None
    """System prompt."""
    suffix: str = ""
    """Text appended to each question."""
    chat: Literal["auto", "never"] = "auto"
    """``auto`` applies the tokenizer's chat template if it has one; ``never`` uses plain text."""
    chat_kwargs: dict[str, Any] = Field(default_factory=dict, json_schema_extra=ADDED_LATER)
    """Additional arguments of the chat template, such as ``enable_thinking: false`` (Qwen3)."""
    max_tokens: int = Field(default=512, ge=8)
    """Maximum length of a sequence (tokens). A longer document is cut into passages; a longer question with its answer
    is an error and is never truncated."""


class Unlearning(Section):
    """The unlearning method."""

    name: str = "palu"
    """A registered method, ``name@preset``, or ``path/to/file.py:function``."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The method's own parameters; ``rlx methods NAME`` lists them."""
    reduction: Literal["update", "microbatch"] = "update"
    """Average losses over the whole update, or over each micro-batch separately as the released codes do."""
    microbatch: int = Field(default=4, ge=1)
    """Forget sequences per micro-batch with ``reduction: microbatch``."""
    train_lm_head: bool = False
    """Train the output layer (and the embeddings tied to it). Off by default: PALU's mean over the vocabulary gives
    every row of it a gradient, and AdamW turns the smallest gradient into a full step."""


class UnlearnBatch(Section):
    """Size of an optimiser update and of its micro-batches."""

    forget: int = Field(default=8, ge=1)
    """Forget sequences per update, over all processes."""
    retain: int | None = Field(default=None, ge=1)
    """Retain sequences per update; by default as many as forget sequences, as in the released codes."""
    max_tokens: int = Field(default=8192, ge=1)
    """Token budget of one micro-batch, including padding."""


class Strengths(Section):
    """Strengths at which the attacks in ``evaluation.attacks`` are repeated.

    They are measured in addition to those of ``relearn_requests``, ``quantize_bits`` and ``prefix_tokens``; equal ones
    once.
    """

    relearn_percent: list[Annotated[float, Field(gt=0, le=100)]] = [1, 5, 20]
    """Percent of the forget set that the relearning attack trains on, rounded up to requests."""
    quantize_bits: list[Literal[4, 8]] = [8]
    """Bits per weight."""
    prefix_tokens: list[Annotated[int, Field(ge=1)]] = [1, 5]
    """Tokens of the correct answer that the prefix attack gives to the model."""
    paraphrase: bool = True
    """Also ask the paraphrased question, or let the paraphrased answer be completed, where the data has one (unless
    ``attacks`` is empty)."""


class UnlearnEvaluation(Section):
    """Evaluation during and after training, and the attacks."""

    every: int = Field(default=1, ge=1)
    """Epochs between evaluations; the model before the first and after the last epoch is always evaluated."""
    limit: int = Field(default=200, ge=1)
    """Maximum number of rows of each retained set; an author's rows are never split."""
    max_new_tokens: int = Field(default=200, ge=1)
    """Maximum length of a greedy answer (tokens)."""
    engine: Literal["auto", "hf", "vllm"] = "auto"
    """Engine that generates answers; ``auto`` chooses vLLM if it is installed and the model is large enough, else
    transformers (``hf``)."""
    memory_share: float = Field(default=0.4, gt=0, lt=1)
    """Fraction of each GPU's memory that vLLM uses; the trainer uses the remainder."""
    utility_budget: float = Field(default=0.95, gt=0, le=1)
    """Checkpoints below this fraction of the original model's utility cannot be selected."""
    retain_model: str | None = None
    """Folder or hub id of a reference model that was trained without the forget set, if there is one."""
    attacks: list[Literal["relearn", "quantize", "prefix"]] = ["relearn", "quantize", "prefix"]
    """Attempts to recover the forgotten knowledge after training."""
    relearn_requests: int = Field(default=10, ge=1)
    """Requests of the validation half that the relearning attack trains on."""
    relearn_updates: int = Field(default=10, ge=1)
    """Optimiser updates of the relearning attack."""
    quantize_bits: Literal[4, 8] = 4
    """Bits per weight to which the quantization attack rounds the weights."""
    prefix_tokens: int = Field(default=3, ge=1)
    """Number of tokens of the correct answer that the prefix attack gives to the model."""
    strengths: Strengths = Field(default=Strengths(), json_schema_extra=ADDED_LATER)
    """Further strengths of the attacks."""


class UnlearnSpec(Section):
    """One unlearning experiment."""

    run_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """First part of the run folder's name."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the forget set."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of every random choice."""
    after: str | None = Field(default=None, json_schema_extra=ADDED_LATER)
    """Folder of an earlier unlearning run: its model is the start; its requests are measured again (``--after``)."""
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
    """An unlearning spec with every default filled in, and the values derived from it.

    Example:
        ``ResolvedUnlearn(run_id="palu_embedded_minitofu_s0-1f0c2a9b33", spec=spec, model_folder="models/x",
        fingerprints={"model": "sha256:1b..."})``
    """

    run_id: str
    spec: UnlearnSpec
    model_folder: str
    """Folder or hub id that ``from_pretrained`` loads."""
    retain_folder: str | None = None
    """Folder or hub id of the retain model."""
    fingerprints: dict[str, str]
    """Content hashes of the local files that the run reads."""
    earlier_run_id: str = ""
    """Id that versions with hashes of data files, not of their rows, gave to this run, if it differs."""
    engine_reason: str = ""
    """Reason for the choice of ``evaluation.engine``."""
    version: str = __version__
