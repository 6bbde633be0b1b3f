"""rlx methods: what the registry knows, for people."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from rlx.cli.methods import components, list_methods, markdown_table, show_method
from rlx.errors import UserError
from rlx.registry import names


def printed(renderable):
    written = io.StringIO()
    Console(file=written, width=140, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def test_the_list_has_every_method_of_both_kinds_with_its_paper_and_one_line():
    lines = printed(list_methods()).splitlines()
    for kind in ("policy", "unlearn"):
        for name in names(kind):
            assert any(re.match(rf"{name} +\S", line) for line in lines), name
    assert any(
        re.match(r"dgpo +arXiv 2603.14389 +-A r sg\[gate\], the gate continuous at both edges", line) for line in lines
    )
    assert "``" not in "\n".join(lines)


def test_a_method_shows_equation_sources_presets_and_its_parameters_with_bounds_and_meaning():
    text = printed(show_method("cispo"))
    for part in (
        "-sg[clip(r, 1-clip_low, 1+clip_high)] A log pi",
        "https://arxiv.org/abs/2506.13585",
        "compute_policy_loss_cispo",
        "cispo@verl: clip_low=0.2, clip_high=0.2",
        "--set algorithm.params.NAME=VALUE",
    ):
        assert part in text, part
    assert re.search(r"^clip_high +number >= 0 +0.28 +The weight is at most 1 \+ clip_high", text, re.MULTILINE)
    assert re.search(r"^dual_clip +number > 1 or null +null +For A < 0", text, re.MULTILINE)


def test_what_a_method_asks_of_the_run_is_shown():
    assert re.search(r"^requires +algorithm.reduction=seq-mean-token-mean$", printed(show_method("gspo")), re.MULTILINE)
    assert re.search(r"^needs +.*whole batch", printed(show_method("bapo")), re.MULTILINE)
    assert re.search(r"^recipe +.*algorithm.reduction=", printed(show_method("dapo")), re.MULTILINE)


def test_an_unlearning_method_names_its_own_spec_key_and_every_paper():
    text = printed(show_method("palu@paper"))
    assert "--set method.params.NAME=VALUE" in text
    assert "needs      forget.ref_topk, forget.sensitive" in text
    assert "target         one of global_mean, local_mean" in text
    assert "palu@official: the defaults" in text
    assert printed(show_method("dpo")).count("https://arxiv.org/abs/") == 3


def test_a_method_of_ones_own_is_shown_from_its_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import Tensor\n"
        "from rlx.numerics.batch import PolicyBatch, Tokens\n"
        "from rlx.registry import register\n"
        '@register("policy")\n'
        "def mine(logprobs_bt: Tensor, batch: PolicyBatch) -> Tokens:\n"
        '    """minus log pi, whatever the reward."""\n'
        "    return Tokens(-logprobs_bt)\n"
    )
    text = printed(show_method(f"{tmp_path / 'mine.py'}:mine"))
    assert "minus log pi" in text and "no parameters" in text and "paper      none" in text


def test_an_unknown_method_is_one_sentence_with_the_nearest_match_of_either_kind():
    with pytest.raises(UserError, match=r"'simpno' is not a known method; did you mean 'simnpo'\? choices: aspo.*wga"):
        show_method("simpno")


def test_the_markdown_table_links_files_and_papers_and_survives_bars_in_equations():
    rows = {kind: markdown_table(kind).splitlines() for kind in ("policy", "unlearn")}
    for kind, lines in rows.items():
        assert [re.match(r"\| \[(\w+)\]", line)[1] for line in lines[2:]] == names(kind)
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    (dgpo,) = [line for line in rows["policy"] if line.startswith("| [dgpo]")]
    assert dgpo == (
        "| [dgpo](rlx/methods/policy/dgpo.py) | -A r sg[gate], the gate continuous at both edges and 1 between them. | "
        "[2603.14389](https://arxiv.org/abs/2603.14389) | n 1, m 2, clip_low 0.2, clip_high 0.2, dual_clip null |"
    )
    assert "Jang et al. 2022, [2210.01504](https://arxiv.org/abs/2210.01504)" in "\n".join(rows["unlearn"])


def test_every_parameter_of_every_method_says_what_it_means():
    for kind in ("policy", "unlearn"):
        for component in components(kind):
            for name, field in component.hyper.model_fields.items():
                assert field.description, f"{component.name}.{name}"
