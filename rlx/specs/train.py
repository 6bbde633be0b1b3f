"""What a person writes: one frozen experiment spec. No torch here, and no default that depends on another key."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlx import __version__

ADDED_LATER: dict[str, Any] = {"added_later": True}
"""Marks a key that older versions did not have: while it has its default it is left out of the run's identity, so that
finished runs keep their id."""


class Section(BaseModel):
    """Base of every section: frozen, no unknown key, a docstring a field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Lora(Section):
    """Low-rank adapters through peft; the base weights stay frozen."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    rank: int = Field(default=16, ge=1)
    """Rank of each adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale: the adapter's output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter; above 0 makes trainer and sampler differ."""
    target_modules: str | list[str] = "all-linear"
    """Which linear layers get one, as peft names them."""
    continue_adapter: bool = Field(default=False, alias="continue", json_schema_extra=ADDED_LATER)
    """If model.path is the folder or hub id of a LoRA adapter: train that adapter further instead of merging it."""


class Model(Section):
    """The causal language model that is trained."""

    path: str = "embedded"
    """``embedded`` (the shipped 0.43M-parameter Llama), a folder, or a hub id."""
    revision: str | None = None
    """Commit or tag on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast type; ``auto`` is bfloat16 where the device has it. Master weights are float32 always."""
    gradient_checkpointing: bool = False
    """Recompute activations layer by layer: less memory, about a third more time."""
    lora: Lora | None = None
    """Train adapters instead of all weights."""
    dropout: bool = Field(default=False, json_schema_extra=ADDED_LATER)
    """Keep the dropout of the model's own config in training. Off by default: with it the sampler's log-probs are not
    the trainer's."""
    save_dtype: Literal["source", "float32"] = Field(default="source", json_schema_extra=ADDED_LATER)
    """Type of the saved model's weights: that of the model that was loaded, or float32."""
    router_aux_coef: float = Field(default=0.0, ge=0, json_schema_extra=ADDED_LATER)
    """Mixture of experts: weight of the router's load-balancing loss in each update."""


class Data(Section):
    """Where prompts and answers come from."""

    source: str = "auto"
    """``arithmetic`` (embedded), a .jsonl or .parquet file, or a hub data set; ``auto`` is the embedded task."""
    subset: str | None = None
    """Configuration name of a hub data set, such as ``main``."""
    split: str = "train"
    """Split of a hub data set."""
    prompt: str = "prompt"
    """Column of the question, by dotted path (``extra.question``)."""
    answer: str = "answer"
    """Column of the gold answer, by dotted path."""
    answer_format: Literal["raw", "last_boxed", "gsm8k_hash"] = "raw"
    """How the gold is read: as it is, from the last ``\\boxed{}``, or after the last ``####``."""
    system: str | None = None
    """System prompt."""
    suffix: str = ""
    """Text appended to each question."""
    chat: Literal["auto", "never"] = "auto"
    """``auto`` renders the tokenizer's chat template where it has one."""
    chat_kwargs: dict[str, Any] = Field(default_factory=dict, json_schema_extra=ADDED_LATER)
    """Further arguments of the chat template, such as ``enable_thinking: false`` (Qwen3)."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Prompts longer than this are left out, and counted."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many rows."""


class Rollout(Section):
    """How responses are sampled."""

    engine: Literal["auto", "hf", "vllm"] = "auto"
    """``hf`` samples with transformers from the trainer's own weights, ``vllm`` from a copy that is renewed before
    every rollout; ``auto`` takes vLLM where it is installed and the model is large enough to be worth it."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What vLLM's copy computes in; ``auto`` is the trainer's own."""
    check_every: int = Field(default=25, ge=0)
    """Steps between comparisons of vLLM's log-probs with the trainer's, after the first three; 0 leaves it at those."""
    samples_per_prompt: int = Field(default=8, ge=1)
    """Group size g."""
    temperature: float = Field(default=1.0, ge=0)
    """Softmax temperature; trainer log-probs are taken at the same one."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus mass; training needs 1."""
    top_k: int = Field(default=0, ge=0)
    """Sample from the k likeliest tokens; 0 is off, training needs 0."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Drop tokens below this share of the likeliest; training needs 0."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest response (tokens)."""
    dynamic_sampling: bool = False
    """Replace groups whose rewards are all equal by newly sampled prompts until the batch is full (DAPO)."""
    dynamic_tries: int = Field(default=8, ge=1)
    """At most so many batches are sampled for one rollout; then it goes on with the groups it has."""


class Reward(Section):
    """What a response is worth."""

    name: str = "auto"
    """A registered reward or ``path/to/file.py:function``; ``auto`` is the data's own."""
    overlong_buffer: float = Field(default=0.0, ge=0, lt=1)
    """Last share of max_new_tokens over which a penalty of up to 1 rises linearly (DAPO: .2); 0 is off."""
    mask_truncated: bool = False
    """Leave responses that were cut off out of the loss and its denominators."""


class Algorithm(Section):
    """The policy loss."""

    name: str = "dgpo"
    """A registered policy loss, ``name@preset``, or ``path/to/file.py:function``."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The method's own parameters; ``rlx methods NAME`` lists them."""
    reduction: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"] = (
        "token-mean"
    )
    """How per-token values become one loss."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL against the initial model."""
    kl_form: Literal["k1", "k2", "k3", "abs"] = "k3"
    """Estimator of that KL."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Add the KL to the loss, or take each response's sum of it off its reward."""
    importance_cap: float | None = Field(default=None, gt=0)
    """Weigh tokens by min(pi_trainer / pi_sampler, cap) (truncated importance sampling, 2 is usual); null is off."""


class Advantage(Section):
    """How rewards become advantages."""

    name: Literal["grpo", "dr_grpo", "rloo", "reinforce_pp"] = "grpo"
    """``grpo``: less the group's mean, over its deviation; ``dr_grpo``: less its mean; ``rloo``: less the mean of the
    others; ``reinforce_pp``: less its mean, whitened over the batch."""


class Optim(Section):
    """AdamW and its schedule."""

    lr: float = Field(default=1e-6, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    warmup_updates: int = Field(default=0, ge=0)
    """Optimiser updates of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up, down to 0 at the last update."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""


class Batch(Section):
    """How much is sampled and how it is cut."""

    prompts: int = Field(default=32, ge=1)
    """Prompts a rollout, over all processes."""
    updates_per_rollout: int = Field(default=4, ge=1)
    """Optimiser updates a rollout, each on its own mini-batch of prompts."""
    max_tokens: int = Field(default=16384, ge=1)
    """Token budget of one micro-batch, padding counted."""


class Sharding(Section):
    """How several processes hold the model. Not part of the run's identity: a run may go on with another."""

    mode: Literal["auto", "none", "fsdp2"] = "auto"
    """``fsdp2`` cuts weights, gradients and optimiser over the processes; ``auto`` does so on GPUs."""
    offload: bool = False
    """Keep what is cut in main memory between uses: slower, and the optimiser runs on the CPU."""


class Cluster(Section):
    """Machines and GPUs: what ``backend: verl`` runs on, and how vLLM lies on them. Not part of the run's identity."""

    nodes: int = Field(default=1, ge=1)
    """Of verl: machines of the Ray cluster."""
    gpus_per_node: int = Field(default=8, ge=1)
    """Of verl: GPUs on each."""
    ray_address: str | None = None
    """Of verl: a Ray cluster that stands, such as ``auto``; null starts one on this machine."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share one copy of vLLM's weights; locally it divides the number of processes."""
    memory_share: float = Field(default=0.5, gt=0, lt=1)
    """Part of a GPU's memory that vLLM takes."""


class Evaluation(Section):
    """Accuracy on held-out prompts during training."""

    every: int = Field(default=25, ge=0)
    """Steps between evaluations; the first and last step are always evaluated, 0 turns all off."""
    source: str = "auto"
    """Like data.source; ``auto`` is the embedded test split, or prompts held out of data.source."""
    split: str = "test"
    """Split of a hub data set."""
    limit: int = Field(default=500, ge=1)
    """At most so many prompts."""
    temperature: float = Field(default=1.0, ge=0)
    """Temperature of the sampled accuracy; the greedy one is measured beside it."""


class Checkpoint(Section):
    """What survives a kill."""

    every: int = Field(default=25, ge=1)
    """Steps between checkpoints; one is always written at the end and on Ctrl-C."""
    keep: int = Field(default=2, ge=1)
    """The newest so many are kept, and the best by accuracy."""


class Tracker(Section):
    """Where metrics go beside metrics.jsonl. Not part of the run's identity."""

    mlflow: bool = True
    """Log to MLflow (sqlite under the runs folder, or MLFLOW_TRACKING_URI)."""
    experiment: str = "rlx"
    """MLflow experiment."""
    sample_prompts: int = Field(default=2, ge=0)
    """Groups of each rollout whose texts are kept in samples.parquet."""


class Spec(Section):
    """One experiment."""

    run_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """First part of the run folder's name."""
    steps: int = Field(default=100, ge=1)
    """Rollouts."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Every random choice follows from it."""
    backend: Literal["local", "verl"] = "local"
    """``local``: accelerate, in this process or its launcher's; ``verl``: verl's trainer on a Ray cluster."""
    model: Model = Model()
    data: Data = Data()
    rollout: Rollout = Rollout()
    reward: Reward = Reward()
    algorithm: Algorithm = Algorithm()
    advantage: Advantage = Advantage()
    optim: Optim = Optim()
    batch: Batch = Batch()
    sharding: Sharding = Sharding()
    cluster: Cluster = Cluster()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    tracker: Tracker = Tracker()


class Resolved(Section):
    """A spec with nothing left open, and what follows from it.

    Example:
        ``Resolved(run_id="dgpo_embedded_arithmetic_s0-1f0c2a9b33", spec=spec, model_folder="models/x",
        fingerprints={"model": "sha256:1b..."}, total_updates=400, sequences_per_update=64)``
    """

    run_id: str
    spec: Spec
    model_folder: str
    """What ``from_pretrained`` is given: a folder or a hub id."""
    fingerprints: dict[str, str]
    """Content hashes of local files that the run reads."""
    total_updates: int
    sequences_per_update: int
    engine_reason: str = ""
    """Why ``rollout.engine`` is what it is."""
    version: str = __version__
