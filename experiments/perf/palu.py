"""Measure time and memory of PALU's forget step: our implementation and the plain formula with a reference model.

    python experiments/perf/palu.py [--repeats 3] [--out experiments/perf/palu.md]

Both start from the model's final hidden states and compute the gradient in them; the output layer is frozen. The plain
formula runs a reference model and computes both models' logits at every position of the padded batch, as the released
code does. Ours uses the reference's hidden states and top-k indices, computed once before training. Each measurement
runs in its own process, so that its peak memory can be read.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from rlx.methods.unlearning.palu import PALU, first_of_runs, palu
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.terms import Term, count, total
from rlx.numerics.unlearn_batch import LabelledBatch, Reference

SHAPES = {
    "SmolLM2-135M": LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3,
    ),
    "V = 128,256, d = 2,048": LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8,
    ),
}  # fmt: skip
"""The second shape is Llama-3.2-1B's. Weights are random, because neither time nor memory depends on them."""
SEQUENCES, TOKENS, PROMPT, ANSWER, SENSITIVE = 8, 128, 40, 64, 10
"""Number of sequences, their padded length, and the lengths of prompt, answer and sensitive span (tokens)."""
CASES = {"F, k = 50": (50, "none"), "F, k = 1,000": (1000, "none"), "F + KL, k = 50": (50, "kl")}


class Problem:
    """Hidden states, output layer and masks of one batch, the same in every process."""

    def __init__(self, shape: str, hp: PALU, constants: Path) -> None:
        v, d = SHAPES[shape].vocab_size, SHAPES[shape].hidden_size
        generator = torch.Generator().manual_seed(0)
        self.hp = hp
        self.head = Head(torch.randn((v, d), generator=generator).mul_(d**-0.5))
        self.ref_bsd = load_file(constants)["hidden"]
        self.hidden_bsd = self.ref_bsd + 0.1 * torch.randn((SEQUENCES, TOKENS, d), generator=generator)
        self.hidden_bsd.requires_grad_()
        self.answer_bs = torch.zeros((SEQUENCES, TOKENS), dtype=torch.bool)
        self.answer_bs[:, PROMPT - 1 : PROMPT - 1 + ANSWER] = True
        self.sensitive_bs = torch.zeros_like(self.answer_bs)
        begin = PROMPT + 20
        self.sensitive_bs[:, begin : begin + SENSITIVE] = True
        with torch.no_grad():  # constants that are computed once before training
            ref_nd = self.ref_bsd[self.answer_bs]
            self.topk_nk = torch.cat([self.head.logits(part).topk(hp.top_k).indices for part in ref_nd.split(16)])
            self.mean_row_d = self.head.weight_vd.mean(dim=0)


class ReferenceBody:
    """The reference model without its output layer, randomly initialised."""

    def __init__(self, shape: str) -> None:
        torch.manual_seed(0)
        self.model = LlamaModel(SHAPES[shape])
        self.ids_bs = torch.randint(0, SHAPES[shape].vocab_size, (SEQUENCES, TOKENS))

    def hidden(self) -> Tensor:
        """The final hidden states [b, s, d]."""
        with torch.no_grad():
            hidden_bsd: Tensor = self.model(input_ids=self.ids_bs, use_cache=False).last_hidden_state
        return hidden_bsd


def ours(problem: Problem) -> Tensor:
    """The loss of the registered method, on answer positions."""
    forget = LabelledBatch(
        mask_bt=torch.ones((SEQUENCES, ANSWER), dtype=torch.bool),
        labels_n=torch.zeros(SEQUENCES * ANSWER, dtype=torch.long),
        hidden_nd=problem.hidden_bsd[problem.answer_bs],
        head=problem.head,
        sensitive_n=problem.sensitive_bs[problem.answer_bs],
        reference=Reference(topk_nk=problem.topk_nk, hidden_nd=problem.ref_bsd[problem.answer_bs], head=problem.head),
        mean_row_d=problem.mean_row_d,
    )
    empty = LabelledBatch(
        mask_bt=torch.zeros((1, 1), dtype=torch.bool),
        labels_n=torch.zeros(0, dtype=torch.long),
        hidden_nd=problem.hidden_bsd[0, :0],
        head=problem.head,
    )
    terms: list[Term] = palu(forget, empty, problem.hp)
    return total(terms, {term.name: count([term.mask]) for term in terms})


def plain(problem: Problem, ref_bsd: Tensor) -> Tensor:
    """The loss by the formula as it is written, with both models' logits at every position."""
    weight_vd = problem.head.weight_vd
    logits_bsv = problem.hidden_bsd @ weight_vd.T
    with torch.no_grad():
        ref_bsv = ref_bsd @ weight_vd.T
        topk_bsk = ref_bsv.topk(problem.hp.top_k, dim=-1).indices
    deviation_bs = (logits_bsv.gather(-1, topk_bsk) - logits_bsv.mean(dim=-1, keepdim=True)).square().mean(dim=-1)
    loss = deviation_bs[first_of_runs(problem.sensitive_bs, problem.hp.first_n)].mean()
    if problem.hp.non_sensitive == "kl":
        logprobs_bsv, ref_logprobs_bsv = logits_bsv.log_softmax(dim=-1), ref_bsv.log_softmax(dim=-1)
        kl_bs = (logprobs_bsv.exp() * (logprobs_bsv - ref_logprobs_bsv)).sum(dim=-1)
        loss = loss + problem.hp.alpha * kl_bs[problem.answer_bs & ~problem.sensitive_bs].mean()
    return loss


def measure(shape: str, case: str, implementation: str, repeats: int, constants: Path) -> dict[str, float]:
    """Lowest seconds of loss and backward and of the reference's body, extra peak memory (MiB), loss, gradient norm."""
    top_k, non_sensitive = CASES[case]
    hp = PALU.model_validate({"top_k": top_k, "first_n": 3, "non_sensitive": non_sensitive})
    problem = Problem(shape, hp, constants)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    body = ReferenceBody(shape) if implementation == "plain" else None
    timings, loss = [], torch.zeros(())
    for _ in range(repeats):
        problem.hidden_bsd.grad = None
        start = time.perf_counter()
        ref_bsd = body.hidden() if body else problem.ref_bsd
        body_end = time.perf_counter()
        loss = plain(problem, ref_bsd) if body else ours(problem)
        loss.backward()
        timings.append((time.perf_counter() - start, body_end - start))
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    grad = problem.hidden_bsd.grad
    assert grad is not None
    seconds, body_seconds = min(timings)
    norm = float(grad.norm())
    return {"seconds": seconds, "body": body_seconds, "mib": extra, "loss": float(loss.detach()), "grad": norm}


def child(arguments: list[str]) -> dict[str, float]:
    """Run one measurement in a child process."""
    result = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    measurement: dict[str, float] = json.loads(result.stdout)
    return measurement


def table(repeats: int, threads: int) -> str:
    """All measurements as Markdown."""
    lines = [
        "# PALU's forget step",
        "",
        f"`python experiments/perf/palu.py --threads {threads}`, {datetime.date.today()}, CPU ({platform.machine()}), "
        f"float32, best of {repeats}. {SEQUENCES} sequences of {TOKENS} tokens, answers of {ANSWER}, sensitive spans "
        f"of {SENSITIVE}, first_n 3. Measured are loss and backward to the model's final hidden states. F is the "
        "forget term, KL the term that keeps the answers' other tokens. Memory is the increase of the peak resident "
        "set over its value before the measurement; for the plain formula it includes the reference model's weights. "
        "Seconds of the plain formula: the reference model's body + everything else.",
        "",
        "| shape | loss | ours (s) | plain (s) | speed-up | without the body | ours (MiB) | plain (MiB) | memory |",
        "|---" * 9 + "|",
    ]
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            constants = Path(folder) / "reference.safetensors"
            child(["--prepare", shape, str(constants), "--threads", str(threads)])
            for case in CASES:
                more = [str(constants), "--repeats", str(repeats), "--threads", str(threads)]
                a, b = (child(["--one", shape, case, name, *more]) for name in ("ours", "plain"))
                difference = max(abs(a[key] - b[key]) / abs(b[key]) for key in ("loss", "grad"))
                if difference > 1e-3:
                    raise SystemExit(f"{shape}, {case}: ours and plain differ by {difference:.2g} (relative)")
                rest = b["seconds"] - b["body"]
                lines.append(
                    f"| {shape} | {case} | {a['seconds']:.3f} | {b['body']:.2f} + {rest:.2f} | "
                    f"{b['seconds'] / a['seconds']:.1f}x | {rest / a['seconds']:.1f}x | "
                    f"{a['mib']:.0f} | {b['mib']:.0f} | {a['mib'] / b['mib']:.0%} |"
                )
                print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all cases, or one case in this process."""
    parser = argparse.ArgumentParser(description="Benchmark PALU's forget step.")
    parser.add_argument("--one", nargs=4, metavar=("SHAPE", "CASE", "WHICH", "FILE"), help="one measurement, as JSON")
    parser.add_argument(
        "--prepare", nargs=2, metavar=("SHAPE", "FILE"), help="write the reference's hidden states to FILE"
    )
    parser.add_argument("--repeats", type=int, default=3, help="number of measurements; the fastest counts")
    parser.add_argument("--threads", type=int, default=1, help="number of torch threads")
    default = Path(__file__).resolve().parents[1] / "perf" / "palu.md"
    parser.add_argument("--out", type=Path, default=default, help="file of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.prepare:
        save_file({"hidden": ReferenceBody(arguments.prepare[0]).hidden().contiguous()}, arguments.prepare[1])
        print("{}")
        return
    if arguments.one:
        shape, case, implementation, constants = arguments.one
        print(json.dumps(measure(shape, case, implementation, arguments.repeats, Path(constants))))
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(table(arguments.repeats, arguments.threads), encoding="utf-8")


if __name__ == "__main__":
    main()
