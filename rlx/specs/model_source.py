"""What a model folder contains, read from its JSON files alone."""

from __future__ import annotations

import json
from pathlib import Path

from rlx.errors import UserError


def adapter_base(folder: Path) -> str | None:
    """Return the base model of the LoRA adapter in ``folder``; None if the folder contains no adapter.

    A relative path is looked up from the working directory, then from the adapter's folder.

    Raises:
        UserError: if the adapter's configuration cannot be read or names no base model.
    """
    file = folder / "adapter_config.json"
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        base, module = content.get("base_model_name_or_path"), content.get("megatron_config")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error})", fix="give a complete adapter folder", exit_code=1) from None
    if module:
        raise UserError(
            f"{file} has megatron_config, for which peft would import the module that the file names",
            fix="remove megatron_config and megatron_core from it",
            exit_code=1,
        )
    if (folder / "config.json").is_file():
        return None
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{file} names no base model", fix="set base_model_name_or_path to the base's folder or hub id", exit_code=1
        )
    if not Path(base).is_dir() and (folder / base).is_dir():
        return str(folder / base)
    return base
