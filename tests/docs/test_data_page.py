"""docs/data.md: its files are read by its specs, and rlx reports the text below each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rlx.data.prompts import load_prompts
from rlx.errors import UserError
from rlx.specs.reading import read_spec
from rlx.specs.resolve_train import EMBEDDED_MODEL, resolve
from rlx.unlearning.data.requests import read_requests

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
FILES = {name: text for _, name, text in BLOCKS if name}
REPORTS = {
    name: report
    for (_, name, _), (language, _, report) in zip(BLOCKS, BLOCKS[1:], strict=False)
    if name.endswith(".yaml") and language == "text"
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text, encoding="utf-8")


def report(spec: str) -> str:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    content = {**read_spec(Path(spec)), "model": {"path": str(EMBEDDED_MODEL)}}
    try:
        loaded = load_prompts(resolve(content).spec.data, tokenizer)
    except UserError as error:
        return f"rlx: {error}\n"
    rows = [
        f"{tokenizer.decode(prompt.tokens)} -> {' or '.join((prompt.answer, *prompt.accepted))}"
        for prompt in loaded.prompts
    ]
    return "\n".join([*loaded.notices, loaded.sentence(), *rows]) + "\n"


def test_the_page_has_a_report_for_each_of_its_specs():
    assert set(REPORTS) == {name for name in FILES if name.endswith(".yaml")} and len(REPORTS) >= 7


@pytest.mark.parametrize("spec", REPORTS)
def test_a_spec_of_the_page_reads_what_the_page_says(spec):
    assert report(spec) == REPORTS[spec]


def test_the_forget_file_of_the_page_is_read():
    (request,) = read_requests(Path("forget.csv"))
    assert (request.id, request.subject) == ("a1", "Jo Doe")
