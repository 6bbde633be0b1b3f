"""Every causal architecture of transformers trains right on a tiny model, or is refused in one sentence."""

from __future__ import annotations

import pytest

from rlx.errors import UserError
from tests import architecture_checks as checks
from tests.tiny_models import COMMON, KNOWN_FAILURES, MULTIMODAL, NAMED, NOT_TINY, causal_types

OTHERS = [name for name in causal_types() if name not in (*COMMON, *MULTIMODAL, *NOT_TINY)]
ALL_CHECKS = (
    checks.check_full,
    checks.check_lora,
    checks.check_train_command,
    checks.check_unlearn_command,
    checks.check_eval_command,
)


@pytest.mark.parametrize("model_type", COMMON)
def test_a_common_architecture_trains_right(model_type, tmp_path):
    folder = checks.save_tiny(model_type, tmp_path / "model")
    for check in ALL_CHECKS:
        check(folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", OTHERS)
def test_an_architecture_trains_right_or_is_refused(model_type, tmp_path):
    if model_type in KNOWN_FAILURES:
        pytest.skip(KNOWN_FAILURES[model_type])
    try:
        folder = checks.save_tiny(model_type, tmp_path / "model")
    except Exception as error:
        assert model_type not in NAMED
        pytest.skip(f"no tiny model can be made ({type(error).__name__})")
    try:
        checks.check_full(folder, tmp_path)
    except UserError:
        assert model_type not in NAMED
        with pytest.raises(UserError):
            checks.check_train_command(folder, tmp_path)
        return
    for check in ALL_CHECKS[1:]:
        check(folder, tmp_path)


def test_a_bidirectional_model_is_refused(tmp_path):
    folder = checks.save_tiny("bert", tmp_path / "model")
    with pytest.raises(
        UserError, match="BertLMHeadModel is not causal: later tokens change the logits of earlier ones"
    ):
        checks.check_train_command(folder, tmp_path)
