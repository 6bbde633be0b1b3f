"""Settings of a run in MLflow, where a parameter can never change, and sentences about what MLflow refuses."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.credentials import without_credentials
from rlx.errors import UserError
from rlx.runs.sqlite_store import one_at_a_time, sqlite_path

LONGEST_PARAM = 500
"""MLflow refuses longer parameter values in some stores."""
PARAMS_A_CALL = 100
"""Largest number of parameters in one call of MLflow."""


class TrackerRefusal(UserError):
    """MLflow can be reached but does not accept the run; the sentence says what to do."""


def log_settings(client: Any, run: str, params: Mapping[str, Any], changeable: Sequence[str]) -> None:
    """Log the settings of a run: as parameters, or as tags if they may change while the run continues.

    A parameter with another value than MLflow has, such as one of an earlier version of rlx, becomes a tag too.

    Args:
        client: MLflow's client.
        run: MLflow's run id.
        params: nested settings.
        changeable: dotted keys, or sections, that are not part of the run's identity.
    """
    from mlflow.entities import Param, RunTag

    settings = flattened(params)
    stored = client.get_run(run).data.params
    fixed = {key: value for key, value in settings.items() if not _is_below(key, changeable)}
    new = [Param(key, value) for key, value in fixed.items() if key not in stored]
    tags = {key: value for key, value in settings.items() if key not in fixed or stored.get(key, value) != value}
    for first in range(0, len(new), PARAMS_A_CALL):
        client.log_batch(run, params=new[first : first + PARAMS_A_CALL])
    if tags:
        client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])


def dotted_keys(exclude: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys and sections of pydantic's ``exclude`` argument as dotted keys.

    Example:
        ``dotted_keys({"tracker": True, "reward": {"workers": True}}) == ["tracker", "reward.workers"]``
    """
    keys: list[str] = []
    for key, inner in exclude.items():
        if isinstance(inner, Mapping):
            keys += dotted_keys(inner, f"{prefix}{key}.")
        elif isinstance(inner, (set, frozenset)):
            keys += [f"{prefix}{key}.{name}" for name in sorted(inner)]
        else:
            keys.append(f"{prefix}{key}")
    return keys


def flattened(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters by dotted key, values as text cut to MLflow's limit."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            flat.update(flattened(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value)[:LONGEST_PARAM]
    return flat


def refuse_deleted(experiment: Any, name: str, uri: str) -> None:
    """Refuse an experiment that was deleted in MLflow, to which nothing can be logged.

    Args:
        experiment: MLflow's entity, or None if there is none of this name.
        name: its name.
        uri: address of the store, without credentials.

    Raises:
        TrackerRefusal: with the command that restores it.
    """
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise TrackerRefusal(
            f"the experiment '{name}' was deleted in MLflow",
            fix=f"restore it with MLFLOW_TRACKING_URI={uri} {restore}, or choose another with --set "
            "tracker.experiment=NAME",
        )


def failure_sentence(error: Exception, server: str, text: str) -> str:
    """What happened to the logging, and what becomes of the records.

    Args:
        error: what was raised.
        server: address without credentials.
        text: first line of the error, without credentials.
    """
    later = "metrics.jsonl is still written, and the next start of the run sends what is missing"
    if isinstance(error, TrackerRefusal):
        return f"nothing is logged to MLflow: {text}; {later}"
    verb = "refuses the run" if _is_refusal(error) else "is not reachable"
    return f"MLflow at {server} {verb} ({text}); {later}"


def _is_refusal(error: Exception) -> bool:
    """Whether a server answered, and did not accept the request."""
    code = getattr(error, "error_code", "")
    return code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "PERMISSION_DENIED")


def can_end_run(error: Exception) -> bool:
    """Whether the run's status can still be set after this error."""
    return isinstance(error, TrackerRefusal) or _is_refusal(error)


def _is_below(key: str, sections: Collection[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def experiment_id(client: Any, uri: str, name: str) -> str:
    """The id of an experiment, created if it is new, with its files next to the database."""
    path = sqlite_path(uri)
    files = (path.resolve().parent / ".mlflow_artifacts").as_uri() if path else None
    with one_at_a_time(uri):
        experiment = client.get_experiment_by_name(name)
        refuse_deleted(experiment, name, public_uri(uri))
        return str(experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=files))


def is_logged(id_file: Path, experiment: str, last_step: int) -> bool:
    """Whether MLflow has all of a finished run, by what ``MlflowSink`` stored when the run ended.

    Args:
        id_file: the run's mlflow.json.
        experiment: name of the experiment.
        last_step: last step of metrics.jsonl.
    """
    try:
        stored = json.loads(id_file.read_text())
    except (OSError, ValueError):
        return False
    expected = {"experiment": experiment, "status": "FINISHED", "last_step": last_step}
    return bool(expected.items() <= stored.items())


def mlflow_command(uri: str) -> str:
    """The command that shows the runs, or the address of a server that shows them."""
    address = public_uri(uri)
    return address if address.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(address)}"


def public_uri(text: str) -> str:
    """A URI, or a sentence that contains one, without credentials before the host or in the query."""
    return re.sub(r"\?\S*", "", without_credentials(re.sub(r"//[^/\s]*@", "//", text)))
