"""Write the generated blocks of the README and of docs/reliability.md, and the published schema of the certificate.

A block is the text between <!-- begin generated: NAME --> and <!-- end generated: NAME -->. NAME is "policy methods",
"unlearning methods", "rlx help", "file faults" and "process faults" (the lists that tests/runs/test_recovery.py and
test_process_faults.py try), or a command followed by "help", such as "train help".

docs/certificate.schema.json is the JSON schema of the certificate of rlx unlearn.

python docs/generate.py            rewrite the blocks and the schema
python docs/generate.py --check    write nothing; exit code 1 if one of them is out of date
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from rlx.cli.methods import markdown_table
from rlx.unlearning.certificate_schema import json_schema

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "reliability.md")
FAULTS = {"file faults": "faults.py", "process faults": "process_faults.py"}
"""Generated tables of faults and the files in tests/runs that list them."""
SCHEMA = ROOT / "docs" / "certificate.schema.json"
TABLES = {"policy methods": "policy", "unlearning methods": "unlearn"}
MARKER = re.compile(r"<!-- (?:begin|end) generated:")
BLOCK = re.compile(r"(<!-- begin generated: (.+?) -->\n).*?(<!-- end generated: \2 -->)", re.DOTALL)
WIDTH = "100"


def help_text(*command: str) -> str:
    """The output of ``rlx COMMAND --help`` as a Markdown code block, in a fixed width and without colour."""
    terminal = {"COLUMNS": WIDTH, "TERMINAL_WIDTH": WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RLX_")} | terminal
    command_line = [sys.executable, "-m", "rlx.cli", *command, "--help"]
    result = subprocess.run(command_line, capture_output=True, text=True, env=environment)
    if result.returncode:
        sys.exit(f"rlx {' '.join(command)} --help fails: {result.stderr.strip().splitlines()[-1]}")
    lines = [line.rstrip() for line in result.stdout.replace("python -m rlx.cli", "rlx").splitlines()]
    return "```\n" + "\n".join(lines).strip() + "\n```"


def fault_table(file: Path) -> str:
    """The faults that the tests try, as a Markdown table."""
    description = importlib.util.spec_from_file_location(file.stem, file)
    if description is None or description.loader is None:
        sys.exit(f"{file} cannot be read")
    module = importlib.util.module_from_spec(description)
    sys.modules[file.stem] = module  # dataclasses look their module up
    description.loader.exec_module(module)
    return str(module.markdown())


def content(name: str) -> str:
    """The content of the generated block ``name``."""
    if name in FAULTS:
        return fault_table(ROOT / "tests" / "runs" / FAULTS[name])
    if name in TABLES:
        return markdown_table(TABLES[name])
    if name.endswith(" help"):
        return help_text(*name.removesuffix(" help").removeprefix("rlx").split())
    sys.exit(
        f"'{name}' is not a generated block; choices: {', '.join(TABLES)}, rlx help, COMMAND help, {', '.join(FAULTS)}"
    )


def fill(text: str) -> tuple[str, list[str]]:
    """The text with every generated block rewritten, and the names of the blocks that changed."""
    stale = []

    def rewrite(block: re.Match[str]) -> str:
        new = f"{block[1]}{content(block[2])}\n{block[3]}"
        if new != block[0]:
            stale.append(block[2])
        return new

    if len(MARKER.findall(text)) != 2 * len(BLOCK.findall(text)):
        sys.exit("a marker of a generated block is without its partner: give each begin an end with the same name")
    return BLOCK.sub(rewrite, text), stale


def main() -> None:
    """Rewrite or check the blocks of the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a block is out of date")
    parser.add_argument("--readme", type=Path, help="the only page; default: README and docs/reliability.md")
    arguments = parser.parse_args()
    old_schema = SCHEMA.read_text(encoding="utf-8") if SCHEMA.exists() else ""
    if old_schema != json_schema():
        if arguments.check:
            sys.exit(f"{SCHEMA.name} is out of date; run 'make docs' and commit the result")
        SCHEMA.write_text(json_schema(), encoding="utf-8")
    for page in [arguments.readme] if arguments.readme else PAGES:
        old = page.read_text(encoding="utf-8")
        text, stale = fill(old)
        if arguments.check and stale:
            sys.exit(f"{page.name} is out of date: {', '.join(stale)}; run 'make docs' and commit the result")
        if text != old:
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
