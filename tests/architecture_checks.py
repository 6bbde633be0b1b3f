"""What every architecture must do: right log-probs, right samples, gradients, saving, LoRA, and the real commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typer.testing import CliRunner

from rlx import assets
from rlx.cli.app import app
from rlx.engine.batch import Batch, Losses
from rlx.engine.export import save_model
from rlx.engine.load import load_model, load_tokenizer, load_trainable
from rlx.engine.lora import causal_lm, merged_weights
from rlx.engine.model import ReadableModel
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.numerics.collate import TokenBatch, TokenSequence, collate
from rlx.numerics.output_layer.logprobs import Head, token_logprobs
from rlx.numerics.terms import Counts, Term
from rlx.rollout.decoders import choose_decoder
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampling
from rlx.specs.train import Lora, Model, Optim
from tests.tiny_models import tiny_model

CPU = torch.device("cpu")
TOKENIZER = Path(assets.__file__).parent / "arithmetic"
SEQUENCES = [TokenSequence((3, 9, 11, 4), tuple(range(5, 5 + n))) for n in (6, 9, 3)]
SMALL_TRAINING = {
    "steps": 2,
    "batch.prompts": 4,
    "batch.updates_per_rollout": 2,
    "rollout.samples_per_prompt": 2,
    "rollout.max_new_tokens": 6,
    "evaluation.every": 0,
    "tracker.mlflow": "false",
}
SMALL_UNLEARNING = {
    "epochs": 1,
    "evaluation.max_new_tokens": 4,
    "evaluation.relearn_updates": 1,
    "evaluation.relearn_requests": 1,
    "evaluation.limit": 4,
    "tracker.mlflow": "false",
}
QUESTIONS = [("12+3=", "15"), ("70+4=", "74"), ("35+5=", "40"), ("8+11=", "19")]


def save_tiny(model_type: str, folder: Path, **changes: Any) -> Path:
    """A tiny random model of the architecture with the embedded tokenizer, saved as a published model is."""
    lm = tiny_model(model_type, **changes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in lm.parameters():  # norms and biases start at 1 and 0, which would hide a missing one
            if parameter.dim() < 2 and parameter.is_floating_point():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    lm.save_pretrained(folder)
    load_tokenizer(str(TOKENIZER), Model()).save_pretrained(folder)
    return folder


def read(hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> Tensor:
    """Log-probs of the response tokens."""
    return token_logprobs(hidden_nd, tokens.targets_n, head)[0]


def device_of(lm: Any) -> torch.device:
    """Where the model is: an Engine moves it to the device of ``pytest --device``."""
    return next(iter(lm.parameters())).device


def own_logprobs(lm: Any, sequence: TokenSequence) -> Tensor:
    """Log-softmax of the model's own logits at the response tokens, on the CPU."""
    ids = torch.tensor([*sequence.prompt, *sequence.response])[None]
    logits = lm(input_ids=ids.to(device_of(lm)), use_cache=False).logits.cpu().float()
    every = torch.log_softmax(logits, dim=-1)[0, :-1].gather(1, ids[0, 1:, None]).squeeze(1)
    return every[len(sequence.prompt) - 1 :]


@torch.no_grad()
def check_logprobs(lm: Any) -> None:
    """The engine's log-probs are those of the model's own logits."""
    ours = ReadableModel(lm).eval()(collate(SEQUENCES).to(device_of(lm)), read).cpu()
    theirs = torch.cat([own_logprobs(lm, sequence) for sequence in SEQUENCES])
    assert torch.allclose(ours, theirs, atol=1e-5), f"log-probs differ by {(ours - theirs).abs().max():.2g}"


@torch.no_grad()
def check_sampler(lm: Any) -> None:
    """The sampler's log-probs are the trainer's, for prompts of several lengths and responses that end early."""
    sampler = HFSampler(lm)
    prompts = [[3, 9, 11, 4, 8, 6, 12], [5, 7, 3], [9, 9, 4]]
    groups = sampler.sample(prompts, [[1, 2], [3], [4]], Sampling(1.0, 20, stop_ids=(2, 6)))
    for prompt, responses in zip(prompts, groups, strict=True):
        for response in responses:
            theirs = own_logprobs(lm, TokenSequence(tuple(prompt), response.tokens))
            difference = (torch.tensor(response.logprobs) - theirs).abs().max().item()
            assert difference <= 1e-4, f"sampler and trainer differ by {difference:.2g} ({choose_decoder(lm).__name__})"


def likelihood(logprobs_n: Tensor, tokens: TokenBatch, rows: list[int]) -> Losses:
    """The negative log-likelihood of the responses."""
    return Losses([Term("nll", -tokens.padded(logprobs_n), tokens.mask_bt, 1.0, "token-mean")])


def batch() -> Batch[Tensor]:
    """One update on all sequences."""
    count = sum(len(sequence.response) for sequence in SEQUENCES)
    return Batch(SEQUENCES, read, likelihood, {"nll": Counts(count, len(SEQUENCES), 20)})


def check_update(model: Any, spec: Model) -> None:
    """One update is finite, and every trainable tensor that the output depends on gets a gradient."""
    reached = dependent(model)
    engine = Engine(model, spec, Optim(lr=1e-3), 10, 10_000)
    before = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}
    update = engine.update(batch())
    assert update.applied and update.grad_norm > 0
    still = [name for name, p in model.named_parameters() if name in reached and torch.equal(p.cpu(), before[name])]
    assert not still, f"an update leaves {still[:3]} unchanged"


def dependent(model: Any) -> set[str]:
    """Names of trainable tensors that the logits of the model's own forward depend on."""
    lm = causal_lm(model)
    ids = torch.tensor([[*SEQUENCES[1].prompt, *SEQUENCES[1].response]], device=device_of(lm))
    torch.log_softmax(lm(input_ids=ids, use_cache=False).logits.float(), -1)[0, 4:, 7].sum().backward()
    names = {
        n for n, p in model.named_parameters() if p.requires_grad and p.grad is not None and p.grad.abs().max() > 0
    }
    model.zero_grad(set_to_none=True)
    return names


@torch.no_grad()
def check_saved(model: Any, folder: Path, spec: Model) -> None:
    """The saved model computes what the trained one does."""
    lm = causal_lm(model).eval()
    save_model(model, load_tokenizer(str(TOKENIZER), spec), folder)
    loaded = load_model(str(folder), spec.model_copy(update={"lora": None}), CPU)
    assert type(loaded) is type(lm)
    for sequence in SEQUENCES:
        ours, theirs = own_logprobs(loaded, sequence), own_logprobs(lm, sequence)
        assert torch.allclose(ours, theirs, atol=1e-5), f"the saved model differs by {(ours - theirs).abs().max():.2g}"


def decoder_of(folder: Path) -> str:
    """How the transformers sampler decodes with the model, in words."""
    kind = choose_decoder(load_model(str(folder), Model(path=str(folder)), CPU))
    names = {"SharedPrefillDecoder": "shared prefill", "OwnCacheDecoder": "own cache", "RecomputeDecoder": "recompute"}
    return names[kind.__name__]


def check_full(folder: Path, work: Path) -> None:
    """Log-probs, samples, an update and saving, with all weights trained."""
    spec = Model(path=str(folder))
    lm = load_model(str(folder), spec, CPU)
    check_logprobs(lm)
    check_sampler(lm)
    check_update(lm, spec)
    check_logprobs(lm)
    check_saved(lm, work / "saved", spec)


def check_lora(folder: Path, work: Path) -> None:
    """An update of adapters on all linear layers, and a merged model equal to base and adapters."""
    spec = Model(path=str(folder), lora=Lora(rank=4))
    model = load_trainable(str(folder), spec, CPU)
    check_update(model, spec)
    check_logprobs(causal_lm(model))
    assert not any(".lora_" in name for name, _ in merged_weights(causal_lm(model)))
    check_saved(model, work / "merged", spec)


def check_train_command(folder: Path, work: Path) -> None:
    """``rlx train`` on the embedded task, to the end."""
    options = settings(SMALL_TRAINING)
    run("train", "--model", str(folder), "--data", "arithmetic", *options, "--runs-dir", str(work / "runs"))


def check_unlearn_command(folder: Path, work: Path) -> None:
    """``rlx unlearn`` for one epoch, with its attacks and certificate."""
    answers = [answer for _, answer in QUESTIONS]
    for name, given in (("forget", answers), ("retain", answers[1:] + answers[:1])):
        rows = [
            {"question": q, "answer": a, "author": i}
            for i, ((q, _), a) in enumerate(zip(QUESTIONS, given, strict=True))
        ]
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = settings(SMALL_UNLEARNING)
    files = ("--forget", str(work / "forget.jsonl"), "--retain", str(work / "retain.jsonl"), "--spans", "all")
    run("unlearn", "--model", str(folder), *files, *options, "--runs-dir", str(work / "runs"))


def check_eval_command(folder: Path, work: Path) -> None:
    """``rlx eval`` on four problems of the embedded benchmark."""
    options = settings({"limit": 4, "n": 1, "max_new_tokens": 6, "mlflow": "false"})
    run("eval", str(folder), "--bench", "arithmetic", *options, "--runs-dir", str(work / "runs"))


def settings(values: dict[str, object]) -> list[str]:
    """Options that set these keys of a spec."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def run(*arguments: str) -> str:
    """A command of the real entry point, in this process.

    Raises:
        UserError: with the command's sentence, when it refuses.
    """
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        raise UserError((result.stderr or result.output).strip().splitlines()[-1].removeprefix("rlx: "))
    return result.output
