"""The parts of the README that the program writes itself.

python docs/generate.py            rewrite them
python docs/generate.py --check    exit code 1 when one of them is stale
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from rlx.methods import markdown_table

README = Path(__file__).parents[1] / "README.md"


def help_text(*command: str) -> str:
    """The ``--help`` of one command through the real entry point, 100 columns wide and without colour."""
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    program = [sys.executable, "-m", "rlx.cli", *command, "--help"]
    printed = subprocess.run(program, capture_output=True, text=True, check=True, env=environment).stdout
    lines = [line.rstrip() for line in printed.replace("python -m rlx.cli", "rlx").splitlines()]
    return "```\n" + "\n".join(lines).strip() + "\n```"


def blocks() -> dict[str, str]:
    """Every generated block by name."""
    return {
        "policy methods": markdown_table("policy"),
        "train help": help_text("train"),
    }


def filled(text: str) -> tuple[str, list[str]]:
    """The text with every block written anew, and the names of those that changed."""
    stale = []
    for name, content in blocks().items():
        begin, end = f"<!-- begin generated: {name} -->", f"<!-- end generated: {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            sys.exit(f"README.md has no place for the generated block '{name}': put {begin} and {end} in it")
        head, tail = text.split(begin)[0], text.split(end)[1]
        new = f"{head}{begin}\n{content}\n{end}{tail}"
        if new != text:
            stale.append(name)
        text = new
    return text, stale


def main() -> None:
    """Rewrite or check README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text, stale = filled(README.read_text(encoding="utf-8"))
    if check and stale:
        sys.exit(f"README.md is stale: {', '.join(stale)}; run 'make docs' and commit what it writes")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
