"""Measure what saving a model in bfloat16 costs: the KL between the float32 weights and their rounded copy.

python experiments/reliability/save_dtype.py FOLDER ...      folders of saved models; by default the embedded ones
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from rlx import assets
from rlx.engine.export import save_model
from rlx.engine.load import load_model, load_tokenizer
from rlx.engine.lora import LM
from rlx.specs.train import Model

ASSETS = Path(assets.__file__).parent
EMBEDDED = [ASSETS / "arithmetic", ASSETS / "minitofu" / "target", ASSETS / "minitofu" / "retain"]
SEQUENCES, LENGTH = 64, 48
"""Sequences sampled from the model itself at temperature 1, and their length (tokens)."""


@torch.no_grad()
def sampled(lm: LM) -> torch.Tensor:
    """Token ids [b, s] drawn from the model, so that the KL is taken where the model is used."""
    torch.manual_seed(0)
    ids_bs = torch.randint(3, lm.config.vocab_size, (SEQUENCES, 1))
    for _ in range(LENGTH - 1):
        probs_bv = torch.softmax(lm(input_ids=ids_bs, use_cache=False).logits[:, -1], dim=-1)
        ids_bs = torch.cat([ids_bs, torch.multinomial(probs_bv, 1)], dim=1)
    return ids_bs


@torch.no_grad()
def logprobs(lm: LM, ids_bs: torch.Tensor) -> torch.Tensor:
    """Log-probs over the vocabulary [b, s, v] (nats)."""
    return torch.log_softmax(lm(input_ids=ids_bs, use_cache=False).logits.double(), dim=-1)


def main() -> None:
    """Print one line per folder: mean and largest KL(float32 || bfloat16) per token, and the sizes of both files."""
    cpu = torch.device("cpu")
    for folder in [Path(name) for name in sys.argv[1:]] or EMBEDDED:
        spec = Model(path=str(folder))
        lm = load_model(str(folder), spec, cpu)
        torch.manual_seed(1)
        # Noise of about one or two updates, because weights that come from bfloat16 files would round to themselves.
        for parameter in lm.parameters():
            parameter.data.add_(1e-4 * torch.randn_like(parameter))
        lm.config.dtype = torch.bfloat16
        with tempfile.TemporaryDirectory(prefix="rlx_save_dtype_") as name:
            save_model(lm, load_tokenizer(str(folder), spec), Path(name))
            size = sum(file.stat().st_size for file in Path(name).glob("*.safetensors"))
            rounded = load_model(name, spec, cpu)
        ids_bs = sampled(lm)
        p_bsv, q_bsv = logprobs(lm, ids_bs), logprobs(rounded, ids_bs)
        kl_bs = (p_bsv.exp() * (p_bsv - q_bsv)).sum(-1)
        parameters = sum(parameter.numel() for parameter in lm.parameters())
        percentile = kl_bs.flatten().quantile(0.99)
        print(
            f"{folder.parent.name}/{folder.name}: {parameters:,} parameters, saved in {size:,} bytes; "
            f"KL mean {kl_bs.mean():.2e}, 99th percentile {percentile:.2e}, max {kl_bs.max():.2e} nats"
        )


if __name__ == "__main__":
    main()
