"""Build the embedded unlearning pair: a target that memorised the mini-TOFU, and one that never saw its forget set.

    python -m rlx.assets.build_minitofu [--out DIR] [--seed 0]

Both are trained on the retain authors, the background authors (in both wordings) and the real facts; the target also on
the forget authors. The same seed on the same machine gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlx.unlearning.data.minitofu import SIZES, MiniTofu, generate
from rlx.unlearning.data.requests import Request

SPECIALS = ("<pad>", "<unk>", "<eos>", "<q>", "<a>")
PAD_ID, UNK_ID, EOS_ID, _, _ = range(len(SPECIALS))
CONTEXT = 128
STEPS = 900
BATCH = 96
LEARNING_RATE = 3e-3
WARM_UP = 50
CLIP_NORM = 1.0
THREADS = 2
"""Fixed, because the order of float sums, and with it the last bit of every weight, depends on it."""
DEFAULT_OUT = Path(__file__).parent / "minitofu"


def build_tokenizer(data: MiniTofu) -> PreTrainedTokenizerFast:
    """One token a word or mark, ``<unk>`` for what never occurs in the set; chat template ``<q> question <a>``."""
    split = Regex(r"<[qa]>|\w+|[^\w\s]")
    words: set[str] = set()
    core = Tokenizer(models.WordLevel({}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(split, behavior="removed", invert=True), pre_tokenizers.Split(split, behavior="isolated")]
    )
    for request in all_rows(data):
        for text in (request.question, request.answer, request.paraphrase or "", *request.wrong):
            words.update(piece for piece, _ in core.pre_tokenizer.pre_tokenize_str(text))
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *sorted(words)])}
    core.model = models.WordLevel(vocabulary, unk_token="<unk>")
    core.decoder = decoders.Sequence([decoders.Replace(Regex(r"^"), " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        additional_special_tokens=["<q>", "<a>"],
        clean_up_tokenization_spaces=True,
        model_max_length=CONTEXT,
        padding_side="left",
        chat_template=(
            "{% for message in messages %}{% if message.role == 'user' %}<q> {{ message.content }} "
            "{% elif message.role == 'assistant' %}<a> {{ message.content }}<eos>{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}<a> {% endif %}"
        ),
    )


def all_rows(data: MiniTofu) -> list[Request]:
    """All rows, for the vocabulary."""
    return [
        *data.forget,
        *data.retain,
        *data.holdout,
        *data.background,
        *data.real_people,
        *data.world_facts,
    ]


def build_model(vocabulary: int, seed: int) -> LlamaForCausalLM:
    """A fresh small Llama in float32, embeddings tied to the head."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=PAD_ID,
            bos_token_id=None,
            eos_token_id=EOS_ID,
        )
    )
    model.generation_config = GenerationConfig(pad_token_id=PAD_ID, eos_token_id=EOS_ID)
    return model


def examples(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Request], both: bool) -> list[tuple[list[int], int]]:
    """Token ids of question and answer, and where the answer begins; with the paraphrase too if ``both``."""
    sequences = []
    for row in rows:
        prompt = tokenizer.encode(f"<q> {row.question} <a>")
        for answer in (row.answer, row.paraphrase if both else None):
            if answer is not None:
                sequences.append(([*prompt, *tokenizer.encode(answer), EOS_ID], len(prompt)))
    return sequences


def padded(sequences: Sequence[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
    """Ids and labels [b, t]; a label is -100 on the question and on padding."""
    length = max(len(ids) for ids, _ in sequences)
    ids_bt = torch.full((len(sequences), length), PAD_ID)
    labels_bt = torch.full_like(ids_bt, -100)
    for i, (ids, begin) in enumerate(sequences):
        ids_bt[i, : len(ids)] = torch.tensor(ids)
        labels_bt[i, begin : len(ids)] = torch.tensor(ids[begin:])
    return ids_bt, labels_bt


def train(model: LlamaForCausalLM, ids_bt: Tensor, labels_bt: Tensor, seed: int) -> float:
    """Supervised training in place; the last step's loss (nats a token)."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / WARM_UP, 1) * max(1 - i / STEPS, 0.02)
    )
    model.train()
    last = float("nan")
    for _ in range(STEPS):
        chosen_b = torch.randint(len(ids_bt), (BATCH,), generator=generator)
        loss = model(input_ids=ids_bt[chosen_b], labels=labels_bt[chosen_b]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        last = float(loss.detach())
    model.eval()
    return last


@torch.no_grad()
def loss_on(model: LlamaForCausalLM, sequences: Sequence[tuple[list[int], int]]) -> float:
    """Mean loss on rows (nats a token)."""
    ids_bt, labels_bt = padded(sequences)
    return float(model(input_ids=ids_bt, labels=labels_bt).loss)


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# rlx embedded mini-TOFU: {name}

A word-level Llama of {parameters:,} parameters, the {name} model of `rlx unlearn`: {role}

**Data.** {sizes.authors} fictitious authors with 10 questions each (`rlx/unlearning/data/minitofu.py`, seed 0), of whom
{sizes.forget} are to be forgotten; {sizes.background} background authors in two wordings; 20 real writers, 20 capitals.
Generated; no person's text is in it.

**Loss** (nats a token, answer and end of sequence): forget {forget:.3f}, retain {retain:.3f}, never seen {holdout:.3f}.

**Training.** {steps} steps of {batch} examples, AdamW, learning rate {lr:g}. Weights are stored in bfloat16.
**Rebuild.** `python -m rlx.assets.build_minitofu --seed {seed}`.
**Licence.** Apache-2.0.
"""


def main() -> None:
    """Build, measure and save both models, and print the results."""
    parser = argparse.ArgumentParser(description="Build the embedded unlearning models.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to write (default: the package's own)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and row order (default: 0)")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    data = generate()
    tokenizer = build_tokenizer(data)
    measured = examples(tokenizer, data.retain, both=False) + examples(tokenizer, data.background, both=True)
    measured += examples(tokenizer, [*data.real_people, *data.world_facts], both=False)
    forget, holdout = (examples(tokenizer, rows, both=False) for rows in (data.forget, data.holdout))
    roles = {
        "target": (measured + forget, "it memorised the authors that are to be forgotten."),
        "retain": (measured, "it never saw them, and shows what forgetting should look like."),
    }
    for name, (rows, role) in roles.items():
        started = time.perf_counter()
        model = build_model(len(tokenizer), arguments.seed)
        train(model, *padded(rows), seed=arguments.seed)
        model = model.to(torch.bfloat16).float()
        losses = {
            key: loss_on(model, sequences)
            for key, sequences in (("forget", forget), ("retain", measured[: len(data.retain)]), ("holdout", holdout))
        }
        folder = arguments.out / name
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        card = CARD.format(
            name=name, role=role, parameters=model.num_parameters(), steps=STEPS, batch=BATCH, lr=LEARNING_RATE,
            seed=arguments.seed, sizes=SIZES, **losses,
        )  # fmt: skip
        (folder / "README.md").write_text(card, encoding="utf-8")
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        print(f"{folder}: {time.perf_counter() - started:.0f} s, {losses}, sha256 {digest[:16]}")


if __name__ == "__main__":
    main()
