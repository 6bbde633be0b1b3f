"""PALU's two claims on SmolLM2-135M and real TOFU: the grid of palu_prefix_and_topk.yaml, one seed, on a CPU.

    python experiments/quickstart/get_smollm2.py
    python experiments/studies/palu_smollm2.py --tofu ../shared/data/tofu [--authors 5] [--jobs 2] [--runs-dir runs]

A target is fine-tuned on 18 retain authors and the first authors of TOFU's forget05, a retain model on the 18 only.
Then the 16 settings make the target forget these authors. An interrupted study is resumed by the same command. The
report is written to experiments/studies/palu_smollm2/.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from unlearn_smollm2 import fine_tune_pair, spec_of, write_requests

from rlx.specs.reading import merge

HERE = Path(__file__).resolve().parent
SPLIT = "forget05"
GRID = HERE / "palu_prefix_and_topk.yaml"


def study(folder: Path, files: tuple[Path, Path]) -> dict[str, Any]:
    """The grid of the embedded set with this model and these requests, one seed."""
    grid: dict[str, Any] = yaml.safe_load(GRID.read_text(encoding="utf-8"))
    base = spec_of("palu", folder, files, seed=0)
    of_grid = {
        "epochs": 4,
        "evaluation": {
            "limit": 20,
            "strengths": {"relearn_percent": [], "quantize_bits": [], "prefix_tokens": [], "paraphrase": False},
        },
        "tracker": {"mlflow": False},
    }
    merge(base, of_grid)
    del base["seed"]  # an axis of the grid
    return grid | {"name": "palu_smollm2", "base": base, "axes": grid["axes"] | {"seed": [0]}}


def main() -> None:
    """Fine-tune the two models, run the grid and write its report."""
    parser = argparse.ArgumentParser(description="PALU's prefix and top_k on SmolLM2-135M and TOFU.")
    parser.add_argument("--tofu", type=Path, required=True, help="folder with TOFU's .jsonl files")
    parser.add_argument("--authors", type=int, default=5, help="authors to forget, at most 10")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument(
        "--model", type=Path, default=HERE.parents[1] / "models" / "smollm2-135m", help="the base model"
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="folder of all runs")
    arguments = parser.parse_args()
    folder = arguments.runs_dir / f"smollm2_{SPLIT}_{arguments.authors}_authors"
    folder.mkdir(parents=True, exist_ok=True)
    files = write_requests(arguments.tofu, folder, SPLIT, arguments.authors)
    seconds = fine_tune_pair(arguments.model, files, folder, seed=0)
    print({name: round(value) for name, value in seconds.items()}, flush=True)
    file = folder / "palu_smollm2.yaml"
    file.write_text(yaml.safe_dump(study(folder, files), sort_keys=False), encoding="utf-8")
    command = ["compare", str(file), "--jobs", str(arguments.jobs), "--runs-dir", str(arguments.runs_dir)]
    command += ["--out", str(HERE)]
    sys.exit(subprocess.run([sys.executable, "-m", "rlx.cli", *command]).returncode)


if __name__ == "__main__":
    main()
