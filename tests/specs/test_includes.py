"""``include`` in spec files, and the cases of a study."""

from __future__ import annotations

import pytest

from rlx.errors import UserError
from rlx.specs.reading import MAX_INCLUDE_DEPTH, read_spec, validate
from rlx.specs.resolve_train import resolve
from rlx.specs.study import StudySpec, variants


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_sections_are_merged_and_the_including_file_s_keys_replace_the_included_ones(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "base.yaml").write_text("seed: 1\nbatch: {prompts: 8, max_tokens: 99}\nlist: [1, 2]\n")
    file = write(tmp_path, own="include: shared/base.yaml\nbatch: {prompts: 4}\nlist: [3]\nsteps: 2\n")
    batch = {"prompts": 4, "max_tokens": 99}
    assert read_spec(file) == {"seed": 1, "batch": batch, "list": [3], "steps": 2}


def test_paths_are_relative_to_the_file_that_names_them_and_later_files_win(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inner.yaml").write_text("include: ../b/leaf.yaml\nx: inner\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "leaf.yaml").write_text("x: leaf\ny: leaf\n")
    file = write(tmp_path, top="include: [a/inner.yaml, b/leaf.yaml]\n")
    monkeypatch.chdir(tmp_path / "b")
    assert read_spec(file) == {"x": "leaf", "y": "leaf"}


def test_a_run_has_the_id_of_the_spec_that_is_written_out(tmp_path):
    shared = "steps: 3\nbatch: {prompts: 8}\n"
    including = write(tmp_path, own="include: shared.yaml\nalgorithm: {name: grpo}\n", shared=shared)
    plain = write(tmp_path, plain=f"{shared}algorithm: {{name: grpo}}\n")
    assert resolve(read_spec(including)).run_id == resolve(read_spec(plain)).run_id


def test_a_study_includes_a_spec_as_its_base_and_may_include_a_study(tmp_path):
    file = write(
        tmp_path,
        newer="include: older.yaml\nname: newer\nbase: {seed: 5}\n",
        older="name: older\nbaseline: grpo\nbase: {include: spec.yaml, steps: 9}\naxes: {seed: [0, 1]}\n",
        spec="steps: 3\nbatch: {prompts: 8}\n",
    )
    content = read_spec(file)
    assert content["base"] == {"steps": 9, "batch": {"prompts": 8}, "seed": 5}
    assert (content["name"], content["axes"]) == ("newer", {"seed": [0, 1]})


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({"a": "include: a.yaml\n"}, ["a.yaml includes itself", "a.yaml -> ", "remove one of these includes"]),
        ({"a": "include: b.yaml\n", "b": "base: {include: a.yaml}\n"}, ["includes itself", "b.yaml -> "]),
        ({"a": "include: b.yaml\n"}, ["there is no spec file", "b.yaml, which ", "a.yaml includes", "relative to the"]),
        ({"a": "include: b.yaml\n", "b": "- 1\n"}, ["b.yaml is a list"]),
        ({"a": "include: b.yaml\n", "b": "x: 1\nx: 2\n"}, ["b.yaml has the key 'x' at line 1 and again at line 2"]),
        ({"a": "include: b.yaml\ninclude: c.yaml\n"}, ["has the key 'include' at line 1 and again at line 2"]),
        ({"a": "include: 3\n"}, ["a.yaml: include is 3", "or a list of such paths"]),
        ({"a": "include: []\n"}, ["a.yaml: include is []"]),
        ({"a": "include: [b.yaml, {c: 1}]\n"}, ["a.yaml: include is ["]),
        ({"a": "base: {include: }\n"}, ["a.yaml: base.include is None"]),
    ],
)
def test_a_wrong_include_is_one_sentence(tmp_path, files, parts):
    with pytest.raises(UserError) as caught:
        read_spec(write(tmp_path, **files))
    sentence = str(caught.value)
    assert "\n" not in sentence and all(part in sentence for part in parts), sentence


def test_a_chain_of_includes_has_a_limit(tmp_path):
    def chain(length):
        files = {f"f{i}": f"include: f{i + 1}.yaml\n" for i in range(length - 1)}
        return write(tmp_path, **files, **{f"f{length - 1}": "seed: 1\n"})

    assert read_spec(chain(MAX_INCLUDE_DEPTH)) == {"seed": 1}
    with pytest.raises(UserError, match=f"more than {MAX_INCLUDE_DEPTH} spec files include each other"):
        read_spec(chain(MAX_INCLUDE_DEPTH + 1))


def study(*cases, **more):
    axes = {"model": [{"model.path": "m/small"}, {"model.path": "m/big"}], "algorithm.name": ["grpo", "dgpo"]}
    content = {"name": "s", "baseline": "grpo", "axes": axes, "cases": list(cases), **more}
    return [variant.content for variant in variants(validate(content, StudySpec))]


def test_a_case_sets_keys_of_the_runs_that_it_matches_and_of_no_others():
    params = {"algorithm.params": {"n": 2}}
    small = {"match": {"algorithm.name": "dgpo", "model.path": "m/small"}, "set": {"algorithm.params.n": 3}}
    runs = study({"match": {"algorithm.name": "dgpo"}, "set": params}, small)
    found = [(run["model"]["path"], run["algorithm"]["name"], run["algorithm"].get("params")) for run in runs]
    assert found == [
        ("m/small", "grpo", None),
        ("m/small", "dgpo", {"n": 3}),
        ("m/big", "grpo", None),
        ("m/big", "dgpo", {"n": 2}),
    ]
    assert params == {"algorithm.params": {"n": 2}}


def test_a_case_skips_runs_and_a_list_matches_any_of_its_values():
    runs = study({"match": {"model.path": "m/big", "algorithm.name": ["dgpo", "maspo"]}, "skip": True})
    assert [run["model"]["path"] for run in runs] == ["m/small", "m/small", "m/big"]


@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ({"match": {"algorithm.name": "dgop"}, "skip": True}, ["cases.0 matches no run", "did you mean 'dgpo'"]),
        ({"match": {"seed": 1}, "skip": True}, ["cases.0 matches no run", "match.seed is 1", "choices: None"]),
        ({"match": {"seed": None}}, ["cases.0 must have either set or skip"]),
        ({"match": {"seed": None}, "set": {"steps": 1}, "skip": True}, ["cases.0 must have either set or skip"]),
        ({"match": {"algorithm.name": ["grpo", "dgpo"]}, "skip": True}, ["the cases of study s skip all"]),
        ({"match": {}, "skip": True}, ["cases.0.match is {}"]),
        ({"match": {"seed": 1}, "skipp": True}, ["unknown key cases.0.skipp", "did you mean 'skip'"]),
    ],
)
def test_a_wrong_case_is_one_sentence(case, parts):
    with pytest.raises(UserError) as caught:
        study(case)
    sentence = str(caught.value)
    assert "\n" not in sentence and all(part in sentence for part in parts), sentence


def test_values_that_only_exist_apart_are_named():
    skip = {"match": {"model.path": "m/big", "algorithm.name": "dgpo"}, "skip": True}
    with pytest.raises(UserError, match=r"cases\.1 matches no run of the study; no run has all of these values"):
        study(skip, skip)
