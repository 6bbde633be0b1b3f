"""The parts of the README that the program writes itself.

A part stands between <!-- begin generated: NAME --> and <!-- end generated: NAME -->; NAME is one of
"policy methods", "unlearning methods", "rlx help" and, for each command, such as "train help".

python docs/generate.py            rewrite them
python docs/generate.py --check    exit code 1 when one of them is stale
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from rlx.cli.methods import markdown_table

README = Path(__file__).parents[1] / "README.md"
TABLES = {"policy methods": "policy", "unlearning methods": "unlearn"}
MARKER = re.compile(r"<!-- (?:begin|end) generated:")
PART = re.compile(r"(<!-- begin generated: (.+?) -->\n).*?(<!-- end generated: \2 -->)", re.DOTALL)
WIDTH = "100"


def help_text(*command: str) -> str:
    """The ``--help`` of one command through the real entry point, in a fixed width and without colour."""
    plain = {"COLUMNS": WIDTH, "TERMINAL_WIDTH": WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RLX_")} | plain
    program = [sys.executable, "-m", "rlx.cli", *command, "--help"]
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"rlx {' '.join(command)} --help fails: {done.stderr.strip().splitlines()[-1]}")
    lines = [line.rstrip() for line in done.stdout.replace("python -m rlx.cli", "rlx").splitlines()]
    return "```\n" + "\n".join(lines).strip() + "\n```"


def block(name: str) -> str:
    """What belongs into the generated part ``name``."""
    if name in TABLES:
        return markdown_table(TABLES[name])
    if name.endswith(" help"):
        return help_text(*name.removesuffix(" help").removeprefix("rlx").split())
    sys.exit(f"nothing generates '{name}'; choices: {', '.join(TABLES)}, rlx help, COMMAND help")


def filled(text: str) -> tuple[str, list[str]]:
    """The text with every generated part written anew, and the names of those that changed."""
    stale = []

    def anew(part: re.Match[str]) -> str:
        new = f"{part[1]}{block(part[2])}\n{part[3]}"
        if new != part[0]:
            stale.append(part[2])
        return new

    if len(MARKER.findall(text)) != 2 * len(PART.findall(text)):
        sys.exit("a marker of a generated part stands alone: every begin needs its end, by the same name")
    return PART.sub(anew, text), stale


def main() -> None:
    """Rewrite or check the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when something is stale")
    parser.add_argument("--readme", type=Path, default=README, help="the file to fill")
    arguments = parser.parse_args()
    old = arguments.readme.read_text(encoding="utf-8")
    text, stale = filled(old)
    if arguments.check and stale:
        sys.exit(f"{arguments.readme.name} is stale: {', '.join(stale)}; run 'make docs' and commit what it writes")
    if text != old:
        arguments.readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
