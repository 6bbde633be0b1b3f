"""`--preview` of rlx train, unlearn and eval: what they have in common before the workflow's own preview."""

from __future__ import annotations

from rlx.errors import UserError


def skip_unused_imports() -> None:
    """Keep transformers from importing scikit-learn and scipy, which takes two seconds and which no preview uses.

    transformers imports them, if they are installed, for a statistic of assisted generation and for losses of object
    detection.
    """
    import transformers.utils

    transformers.utils.is_sklearn_available = lambda: False
    transformers.utils.is_scipy_available = lambda: False


def reject_preview_of_study(preview: bool) -> None:
    """Reject ``--preview`` of a study.

    Raises:
        UserError: if the option was given.
    """
    if preview:
        raise UserError(
            "--preview does not go with a study", fix="preview one of its runs: give its keys in a spec of their own"
        )
