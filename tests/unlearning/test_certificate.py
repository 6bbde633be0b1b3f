"""The certificate: its schema, what it shows, and that hostile texts are inert on its page."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlx.unlearning.certificate_page import next_step, page
from rlx.unlearning.certificate_schema import Certificate, Masked, json_schema
from rlx.unlearning.masking import Masker

ROOT = Path(__file__).parents[2]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&{{7*7}}"
LEVEL = {
    "probability": 0.9,
    "extraction_strength": 1.0,
    "extraction_strength_strict": 1.0,
    "rouge_l_recall": 1.0,
    "truth_ratio": None,
}


def masked(masker: Masker, text: str) -> Masked:
    return Masked(**asdict(masker.mask(text)))


def row(masker: Masker, number: int, status: str, text: str = "555-0199") -> dict[str, object]:
    scores = {**LEVEL, "answer": masked(masker, f"It is {text}")}
    return {
        "id": f"r{number}", "line": number, "received": "2026-05-01", "basis": "Art. 17 GDPR", "half": "final",
        "verdict": {"status": status, "probes": ["relearn"] if status == "still extractable" else [],
                    "tried": ["probability", "relearn"], "why": "the file is gone" if status == "not tested" else ""},
        "question": masked(masker, f"What is {text}?"), "answer": masked(masker, text), "subject": None,
        "sensitive": [masked(masker, text)], "spans": [(0, len(text))], "span_source": "added",
        "baseline": {"source": "names exchanged", "probability": 0.1, "extraction_strength_strict": 0.2},
        "before": scores, "after": scores, "retain_model": None,
        "rouge_l_recall_under_attack": {"relearn": {"attacked": 0.8, "original": 1.0, "yardstick": 0.2}},
    }  # fmt: skip


def made(masker: Masker, text: str = "555-0199", **changes: object) -> Certificate:
    interval = {"value": 0.41, "low": 0.2, "high": None}
    content = {
        "schema_version": 1, "title": "Evidence of unlearning", "certified_removal": False,
        "outcome": "not supported", "verdict": "NOT supported. 1 of 3", "reasons": ["1 of 3 requests is extractable"],
        "counts": {"still extractable": 1, "no longer extractable": 1, "not known before": 1},
        "earlier_counts": {"not tested": 1}, "rule": ["a rule"],
        "findings": [{"condition": "utility", "holds": True, "sentence": "The model keeps 99 %"}],
        "limits": ["first limit", "second limit", "third limit", "fourth limit"],
        "run": {"id": "palu-1", "rlx": "0.1.0", "seed": 0, "model": text, "after": "palu-0"},
        "method": {"name": "palu", "params": {"top_k": 10}, "reduction": "update", "epochs": 4},
        "hashes": {"code": "sha256:1", "unlearned_model": {"model.safetensors": "ab" * 32}},
        "request_set": {"source": text, "requests": 3, "with_spans": 2, "spans": "auto", "uncovered": [text],
                        "repaired": [text], "refused": []},
        "selection": {"rule": "most forgetting", "update": 8, "within_budget": False, "on_same_requests": True},
        "aggregates": {"before": {"forget_Q_A_Prob": interval}, "after": {"forget_Q_A_Prob": interval},
                       "retain_model": {}},
        "attacks": [{"name": "relearn", "attacked": 0.8, "original": 1.0, "yardstick": 0.2, "recovery": interval}],
        "requests": [row(masker, 1, "still extractable", text), row(masker, 2, "no longer extractable", text),
                     row(masker, 3, "not known before", text)],
        "earlier_requests": [{
            "run": "palu-0", "id": text, "received": text, "basis": text, "verdict_then": "no longer extractable",
            "verdict": {"status": "not tested", "probes": [], "tried": [], "why": text},
            "baseline": {"source": "retain model", "probability": 0.1, "extraction_strength_strict": None},
            "before": None, "after": None,
        }],
    }  # fmt: skip
    return Certificate.model_validate(content | changes)


def test_the_published_schema_is_that_of_the_types():
    committed = (ROOT / "docs" / "certificate.schema.json").read_text()
    assert committed == json_schema(), "run python docs/generate.py and commit the result"
    schema = json.loads(committed)
    assert schema["properties"]["schema_version"]["const"] == 1
    assert set(schema["properties"]) == set(Certificate.model_fields)
    assert all(field.get("additionalProperties") is False for field in schema["$defs"].values())


def test_a_certificate_survives_a_round_trip_and_unknown_keys_and_statuses_are_refused():
    content = made(Masker(b"1"))
    assert Certificate.model_validate_json(content.model_dump_json()) == content
    for change in ({"extra": 1}, {"schema_version": 2}, {"outcome": "supported by hope"}, {"certified_removal": True}):
        with pytest.raises(ValidationError):
            made(Masker(b"1"), **change)


def test_the_first_screen_has_verdict_counts_three_limits_and_what_to_do_with_old_copies():
    text = page(made(Masker(b"1")))
    first, rest = text.split("<h2>Requests</h2>")
    for part in (
        "NOT supported by these measurements", "1 of 3 requests is extractable", "<b>1</b> still extractable",
        "<b>1</b> no longer extractable", "<b>1</b> not known before", "first limit", "third limit",
        "rlx unlearn --purge palu-1", "rlx unlearn --purge palu-0", "too few to split", "2026-05-01", "Art. 17 GDPR",
        "No state of the training kept the model",
    ):  # fmt: skip
        assert part in first, part
    assert "fourth limit" not in first and "fourth limit" in rest
    assert rest.index("<details>") < rest.index("sha256:1") and "{&#39;top_k" not in rest


def test_masked_texts_are_shown_by_letter_length_and_hash_and_clear_ones_only_in_the_clear_page():
    masker = Masker(b"1")
    content = made(masker, "555-0199", run={**made(masker).run.model_dump(), "model": "m"}).model_copy(
        update={"request_set": made(masker, "file").request_set, "earlier_requests": []}
    )
    text = page(content)
    assert "555-0199" not in text and "5&hellip; 8 characters" in text
    clear = page(content, masker.texts)
    assert "555-0199" in clear and "in clear. Do not hand it on" in clear


def test_hostile_texts_are_inert_wherever_they_come_from():
    masker = Masker(b"1")
    for text in (page(made(masker, HOSTILE)), page(made(masker, HOSTILE), masker.texts)):
        assert "<script" not in text and "<img" not in text
        assert html.escape(HOSTILE, quote=False).split("&lt;img")[0] in text.replace("&#39;", "'")
        assert "{{7*7}}" in text


def test_the_page_fetches_nothing():
    text = page(made(Masker(b"1")))
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text) and "url(" not in text and "@import" not in text


@pytest.mark.skipif(not BROWSER, reason="no chromium is installed (Debian: chromium)")
def test_a_browser_runs_no_hostile_script_and_no_width_scrolls_sideways(tmp_path):
    masker = Masker(b"1")
    file = tmp_path / "page.html"
    clear = page(made(masker, HOSTILE), masker.texts)
    probe = "<script>addEventListener('load',()=>{document.body.dataset.over=document.body.scrollWidth-innerWidth})"
    file.write_text(clear.replace("</body>", f"{probe}</script></body>"))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --hide-scrollbars"
    for width in (500, 800, 1280):  # a headless window is at least 500 wide
        command = [BROWSER, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
        done = subprocess.run([*command, "--dump-dom", str(file)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "<title>palu-1</title>" in done.stdout and "owned</title>" not in done.stdout
        assert int(re.search(r'data-over="(-?\d+)"', done.stdout)[1]) <= 0, width
    printed = tmp_path / "page.pdf"
    subprocess.run([*command, f"--print-to-pdf={printed}", str(file)], capture_output=True, timeout=120, check=True)
    assert printed.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [("supported", "--purge runs/x"), ("not supported", "do not release"), ("nothing to forget", "before the run")],
)
def test_the_next_step_follows_from_the_outcome(outcome, expected):
    assert expected in next_step(outcome, "runs/x")
