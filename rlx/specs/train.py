"""The spec of a training experiment. Does not import torch; no default depends on another key."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from rlx import __version__
from rlx.specs.algorithm import Algorithm as Algorithm
from rlx.specs.data import Data as Data
from rlx.specs.reward import Advantage, Reward, WeightedReward
from rlx.specs.section import ADDED_LATER as ADDED_LATER
from rlx.specs.section import Section as Section


class Lora(Section):
    """Low-rank adapters through peft; the base weights stay frozen."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    rank: int = Field(default=16, ge=1)
    """Rank of each adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale: the adapter's output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter; above 0 the trainer and the sampler differ."""
    target_modules: str | list[str] = "all-linear"
    """Linear layers that get an adapter, as peft names them."""
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
    """Autocast dtype; ``auto`` is bfloat16 if the device supports it. Master weights are always float32."""
    gradient_checkpointing: bool | Literal["auto"] = Field(
        default="auto", json_schema_extra={"identified_as": {"auto": False}}
    )
    """Recompute activations layer by layer: saves memory and takes about a third more time. ``auto`` does so if an
    update is estimated not to fit into the free memory without it. The result is the same."""
    lora: Lora | None = None
    """Train adapters instead of all weights."""
    dropout: bool = Field(default=False, json_schema_extra=ADDED_LATER)
    """Keep the dropout of the model's own config in training. Off by default, because with dropout the log-probs of
    the sampler differ from those of the trainer."""
    save_dtype: Literal["source", "float32"] = Field(default="source", json_schema_extra=ADDED_LATER)
    """Dtype of the saved model's weights: that of the loaded model, or float32."""
    router_aux_coef: float = Field(default=0.0, ge=0, json_schema_extra=ADDED_LATER)
    """Mixture of experts: weight of the router's load-balancing loss in each update."""


class Rollout(Section):
    """How responses are sampled."""

    engine: Literal["auto", "hf", "vllm"] = "auto"
    """``hf`` samples with transformers from the trainer's own weights; ``vllm`` samples from a copy that is updated
    before every rollout; ``auto`` chooses vLLM if it is installed and the model is large enough for it to pay off."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of vLLM's copy of the weights; ``auto`` is the trainer's."""
    check_every: int = Field(default=25, ge=0)
    """Steps between comparisons of vLLM's log-probs with the trainer's, after the first three steps, which are always
    compared; 0 compares only those."""
    samples_per_prompt: int = Field(default=8, ge=1)
    """Responses sampled per prompt (group size g)."""
    temperature: float = Field(default=1.0, ge=0)
    """Softmax temperature; the trainer's log-probs use the same one."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Probability mass of nucleus sampling; training requires 1."""
    top_k: int = Field(default=0, ge=0)
    """Sample from the k most probable tokens; 0 is off, and training requires it."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Drop tokens below this fraction of the highest probability; training requires 0."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Maximum length of a response (tokens)."""
    dynamic_sampling: bool = False
    """Replace groups whose rewards are all equal by newly sampled prompts until the batch is full (DAPO)."""
    dynamic_tries: int = Field(default=8, ge=1)
    """Maximum number of batches sampled for one rollout; after that the rollout uses the groups that it has."""


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
    """Length of the linear warm-up (optimiser updates)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate after the warm-up; ``linear`` and ``cosine`` reach 0 at the last update."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients with a larger norm are scaled down to it."""


class Batch(Section):
    """Size of a rollout and how it is split into updates and micro-batches."""

    prompts: int = Field(default=32, ge=1)
    """Prompts per rollout, over all processes."""
    updates_per_rollout: int = Field(default=4, ge=1)
    """Optimiser updates per rollout, each on its own mini-batch of prompts."""
    max_tokens: int = Field(default=16384, ge=1)
    """Token budget of one micro-batch, including padding."""


class Sharding(Section):
    """How several processes share the model. Not part of the run's id: a run may be resumed with another setting."""

    mode: Literal["auto", "none", "fsdp2"] = "auto"
    """``fsdp2`` shards weights, gradients and optimiser states over the processes; ``auto`` does so on GPUs only."""
    offload: bool = False
    """Keep the shards in CPU memory between uses: slower, and the optimiser runs on the CPU."""


class Cluster(Section):
    """Machines and GPUs for ``backend: verl``, and vLLM's share of each GPU. Not part of the run's id."""

    nodes: int = Field(default=1, ge=1)
    """verl only: number of machines of the Ray cluster."""
    gpus_per_node: int = Field(default=8, ge=1)
    """verl only: GPUs on each machine."""
    ray_address: str | None = None
    """verl only: address of a running Ray cluster, such as ``auto``; null starts one on this machine."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share one copy of vLLM's weights; the local backend requires a divisor of the number of processes."""
    memory_share: float = Field(default=0.5, gt=0, lt=1)
    """Fraction of each GPU's memory that vLLM uses."""


class Evaluation(Section):
    """Accuracy on held-out prompts during training."""

    every: int = Field(default=25, ge=0)
    """Steps between evaluations; the first and last steps are always evaluated; 0 turns all evaluations off."""
    source: str = "auto"
    """Prompts, as in data.source; ``auto`` is the embedded test split, or prompts held out from data.source."""
    split: str = "test"
    """Split of a hub data set."""
    limit: int = Field(default=500, ge=1)
    """Maximum number of prompts."""
    temperature: float = Field(default=1.0, ge=0)
    """Temperature of the sampled accuracy; the greedy accuracy is measured too."""


class Checkpoint(Section):
    """Checkpoints, from which a killed run resumes."""

    every: int = Field(default=25, ge=1)
    """Steps between checkpoints; one is always written at the end and on Ctrl-C."""
    keep: int = Field(default=2, ge=1)
    """Number of newest checkpoints to keep; the one with the best accuracy is kept too."""


class Tracker(Section):
    """Where metrics are logged in addition to metrics.jsonl. Not part of the run's id."""

    mlflow: bool = True
    """Log to MLflow (sqlite under the runs folder, or MLFLOW_TRACKING_URI)."""
    experiment: str = "rlx"
    """Name of the MLflow experiment."""
    sample_prompts: int = Field(default=2, ge=0)
    """Groups of each rollout whose texts are saved in samples.parquet."""


class Spec(Section):
    """One training experiment."""

    run_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """First part of the run folder's name."""
    steps: int = Field(default=100, ge=1)
    """Number of rollouts."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of every random choice."""
    backend: Literal["local", "verl"] = "local"
    """``local``: train in this process, or in several processes through accelerate; ``verl``: verl's trainer on a Ray
    cluster."""
    model: Model = Model()
    data: Data = Data()
    rollout: Rollout = Rollout()
    reward: Reward = Reward()
    rewards: list[WeightedReward] = Field(default_factory=list, json_schema_extra=ADDED_LATER)
    """Several rewards with weights, in place of ``reward.name``; the first one measures the held-out accuracy."""
    algorithm: Algorithm = Algorithm()
    advantage: Advantage = Advantage()
    optim: Optim = Optim()
    batch: Batch = Batch()
    sharding: Sharding = Sharding()
    cluster: Cluster = Cluster()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    tracker: Tracker = Tracker()

    @property
    def weighted_rewards(self) -> list[WeightedReward]:
        """``rewards``, or ``reward.name`` with weight 1."""
        return self.rewards or [WeightedReward(name=self.reward.name)]


class Resolved(Section):
    """A training spec with every default filled in, and the values derived from it.

    Example:
        ``Resolved(run_id="dgpo_embedded_arithmetic_s0-1f0c2a9b33", spec=spec, model_folder="models/x",
        fingerprints={"model": "sha256:1b..."}, total_updates=400, sequences_per_update=64)``
    """

    run_id: str
    spec: Spec
    model_folder: str
    """Folder or hub id that ``from_pretrained`` loads."""
    fingerprints: dict[str, str]
    """Content hashes of the local files that the run reads; of data files a hash of their rows."""
    total_updates: int
    sequences_per_update: int
    earlier_run_id: str = ""
    """Id that versions with hashes of data files, not of their rows, gave to this run, if it differs."""
    engine_reason: str = ""
    """Reason for the choice of ``rollout.engine``."""
    version: str = __version__
