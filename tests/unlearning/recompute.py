"""The numbers of a certificate from transformers and numpy alone, for rows {question, answer, paraphrase, wrong}.

ROUGE has no stemmer here, which changes a score only if two different words have one stem.
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
        folder
    )


def encoded(tokenizer, question, answer):
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return ids, [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


@torch.no_grad()
def forced(model, tokenizer, question, answer):
    prompt, response = encoded(tokenizer, question, answer)
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double()
    nll = -logits.log_softmax(1)[torch.arange(len(response)), torch.tensor(response)]
    return nll.numpy(), logits.argmax(1).numpy(), np.array(response)


def extraction_strength(predicted, labels):
    return 1 - max(np.flatnonzero(predicted != labels) + 1, default=0) / len(labels)


def answer(model, tokenizer, question, gold, new_tokens, prefix=0):
    prompt, response = encoded(tokenizer, question, gold)
    head = response[: min(prefix, len(response) - 1)]
    ids, limit = torch.tensor([prompt + head]), min(new_tokens, 2 * (len(response) - 1) + 16)
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit)
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True), tokenizer.decode(head)


def rouge(gold, text):
    a, b = (re.findall(r"[a-z0-9]+", t.lower()) for t in (gold, text))
    table = np.zeros((len(a) + 1, len(b) + 1))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1] / max(1, len(a))


def scores(model, tokenizer, row, new_tokens):
    nll, predicted, labels = forced(model, tokenizer, row["question"], row["answer"])
    means = [forced(model, tokenizer, row["question"], text)[0].mean() for text in row["wrong"]]
    right = forced(model, tokenizer, row["question"], row["paraphrase"])[0].mean() if row["paraphrase"] else nll.mean()
    mass = np.exp(-np.array(means)).sum()
    return {
        "probability": np.exp(-nll.mean()),
        "normalised": np.exp(-nll.mean()) / (np.exp(-nll.mean()) + mass),
        "extraction_strength": max(1 / len(labels[:-1]), extraction_strength(predicted[:-1], labels[:-1])),
        "extraction_strength_strict": extraction_strength(predicted[:-1], labels[:-1]),
        "rouge_l_recall": rouge(row["answer"], answer(model, tokenizer, row["question"], row["answer"], new_tokens)[0]),
        "truth_ratio": np.exp(right - np.mean(means)) if means else None,
    }


def kolmogorov_smirnov(a, b):
    """D of two samples of n values and its exact p-value, a sum over lattice paths that leave a band."""
    d = max(abs(np.mean(a <= x) - np.mean(b <= x)) for x in [*a, *b])
    n, h = len(a), round(d * len(a))
    terms = [(-1) ** (j + 1) * math.comb(2 * n, n - j * h) for j in range(1, n // h + 1)] if h else []
    return d, 2 * sum(terms) / math.comb(2 * n, n) if h else 1.0


def utility(parts):
    """Harmonic mean of probability, ROUGE and truth ratio of the three retained sets."""
    means = {}
    for part, of_part in parts.items():
        key = "probability" if part == "retain" else "normalised"
        means[f"{part}_Prob"] = np.mean([s[key] for s in of_part])
        means[f"{part}_ROUGE"] = np.mean([s["rouge_l_recall"] for s in of_part])
        means[f"{part}_Truth_Ratio"] = np.mean([max(0, 1 - s["truth_ratio"]) for s in of_part])
    return means | {"model_utility": len(means) / sum(1 / m for m in means.values())}


@torch.no_grad()
def quantized(model, bits, group=64):
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight is not model.get_input_embeddings().weight:
            for part in module.weight.split(group, dim=1):
                scale = part.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
                part.copy_((part / scale).round() * scale)
    return model
