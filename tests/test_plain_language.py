"""The package, the docs and the README use none of the words and names listed here, which have plain replacements."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WORDS = re.compile(
    r"\b(court|story|stories|the house|rooms?|roomy|told|mended|stands|anew|the person|a person's mistake|beside)\b",
    re.IGNORECASE,
)
"""Plain: worker pool, state, space, reported, repaired, is stored, again, the user, next to."""

NAMES = {
    *("found", "made", "asked", "said", "kept", "told", "held", "wanted", "apart", "chosen", "known", "taken", "drawn"),
    *("whole", "everything", "place", "places", "mark", "figure", "figures", "each", "every", "elsewhere", "endless"),
    *("room", "story", "exam", "court", "settle", "anew", "stands"),
}
"""Participles, metaphors and pronouns that do not name a thing, with or without underscores around them."""


KEYS = {"every", "drawn", "kept"}
"""Fields that are keys of specs, checkpoints and reports, which users have in files."""


def _python_files() -> list[Path]:
    return sorted(ROOT.glob("rlx/**/*.py"))


def _prose_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "rlx", "docs", "README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")
    names = [name for name in listed if name] or [str(p) for p in ROOT.glob("rlx/**/*") if p.is_file()]
    data = (".safetensors", ".jsonl", ".png", ".svg", ".json")
    return [ROOT / name for name in names if not name.endswith(data) and (ROOT / name).is_file()]


def _defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.lineno, node.name
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    field.target.id = "" if field.target.id in KEYS else field.target.id
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


@pytest.mark.parametrize("path", _python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_variable_function_or_class_has_a_name_from_the_list(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    listed = [f"line {line}: {name}" for line, name in _defined_names(tree) if name.strip("_").lower() in NAMES]
    assert not listed


def test_prose_of_the_package_the_docs_and_the_readme_has_no_word_from_the_list() -> None:
    hits = []
    for path in _prose_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if match := WORDS.search(line):
                hits.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    assert not hits, "\n".join(hits)
