"""Write the data of dgpo_smollm2-135m_arith.yaml: word problems that add two numbers from 1 to 9.

    python experiments/quickstart/arith_words.py [--out data/arith_words] [--seed 0]

Writes train.jsonl (2,000 problems) and test.jsonl (200 others) with the columns ``prompt`` and ``answer``. The texts
are our own.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

TRAIN, TEST = 2000, 200
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Grace", "Hugo", "Ida", "Jack", "Lena", "Max", "Nora", "Omar")
THINGS = ("apples", "books", "coins", "eggs", "flowers", "keys", "marbles", "pencils", "shells", "stamps", "toys")
TEMPLATES = (
    "{name} has {a} {things}. {other} gives {name} {b} more. How many {things} does {name} have now?",
    "{name} has {a} {things} and {other} has {b} {things}. How many {things} do they have together?",
    "There are {a} {things} in a box. {name} puts {b} more {things} into it. How many {things} are in the box?",
    "{name} found {a} {things} on Monday and {b} {things} on Tuesday. How many {things} did {name} find in all?",
    "On the table lie {a} {things}. {name} lays {b} {things} beside them. How many {things} lie on the table?",
    "{name} bought {a} {things} in one shop and {b} {things} in another. How many {things} did {name} buy?",
    "A bag holds {a} {things}, and a second bag holds {b} {things}. How many {things} do both bags hold?",
    "{other} owned {a} {things}. Then {name} sold {other} another {b}. How many {things} does {other} own now?",
)


def problems(seed: int, count: int) -> list[dict[str, str]]:
    """``count`` different problems, each as ``{"prompt": ..., "answer": ...}``."""
    rng = random.Random(seed)
    answers: dict[str, str] = {}
    while len(answers) < count:
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        name, other = rng.sample(NAMES, 2)
        text = rng.choice(TEMPLATES).format(name=name, other=other, things=rng.choice(THINGS), a=a, b=b)
        answers.setdefault(f"Question: {text}", str(a + b))
    return [{"prompt": prompt, "answer": answer} for prompt, answer in answers.items()]


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "data" / "arith_words")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = problems(arguments.seed, TRAIN + TEST)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", rows[:TRAIN]), ("test", rows[TRAIN:])):
        lines = "".join(json.dumps(problem) + "\n" for problem in split)
        (arguments.out / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{arguments.out / name}.jsonl: {len(split)} problems")


if __name__ == "__main__":
    main()
