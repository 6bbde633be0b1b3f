"""The generated blocks of the README are filled and checked by docs/generate.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GENERATE = Path(__file__).parents[2] / "docs" / "generate.py"


def generate(readme: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, GENERATE, "--readme", readme, *more], capture_output=True, text=True)


def markers(name: str, between: str = "") -> str:
    return f"<!-- begin generated: {name} -->\n{between}<!-- end generated: {name} -->\n"


def test_blocks_are_filled_once_checked_and_nothing_around_them_changes(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        f"# top\n{markers('policy methods', 'stale rows')}middle\n{markers('rlx help')}{markers('methods help')}end\n"
    )
    before = readme.read_text()
    stale = generate(readme, "--check")
    assert stale.returncode == 1
    assert stale.stderr.strip() == (
        "README.md is out of date: policy methods, rlx help, methods help; run 'make docs' and commit the result"
    )
    assert readme.read_text() == before
    assert generate(readme).returncode == 0
    text = readme.read_text()
    assert text.startswith("# top\n<!-- begin generated: policy methods -->\n| method | computes |")
    assert "Usage: rlx [OPTIONS] COMMAND [ARGS]..." in text
    assert "Usage: rlx methods [OPTIONS]" in text
    assert "stale rows" not in text and "\nmiddle\n" in text and text.endswith("end\n")
    again = generate(readme, "--check")
    assert (again.returncode, again.stderr) == (0, "")
    readme.write_text(text.replace("Usage: rlx methods", "Usage: rlx method"))
    assert "is out of date: methods help;" in generate(readme, "--check").stderr


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (markers("nosuch"), "'nosuch' is not a generated block; choices: policy methods, unlearning methods, rlx help"),
        (markers("nosuch help"), "rlx nosuch --help fails: "),
        ("<!-- begin generated: rlx help -->\n", "without its partner"),
        (markers("rlx help").replace("end generated: rlx", "end generated: train"), "without its partner"),
    ],
)
def test_a_marker_that_cannot_be_served_is_one_sentence_and_writes_nothing(content, sentence, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(content)
    done = generate(readme)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert readme.read_text() == content
