"""Writing the trained model in a form that ``from_pretrained`` loads."""

from __future__ import annotations

import shutil
from typing import Any

from safetensors import SafetensorError

from rlx.engine.model import save_model
from rlx.engine.step import Engine
from rlx.errors import UserError, reason
from rlx.runs.folder import RunDir


def save_trained(engine: Engine, tokenizer: Any, folder: RunDir) -> None:
    """Write the trained model to the run's model folder, complete or not at all.

    Raises:
        UserError: when the disk refuses.
    """
    whole = engine.whole()
    if engine.rank == 0:
        temporary = folder.model.with_name(".model")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            save_model(whole, tokenizer, temporary)
            shutil.rmtree(folder.model, ignore_errors=True)
            temporary.rename(folder.model)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"the model cannot be written to {folder.model} ({reason(error)})",
                fix="free some space and run the same command again: it goes on from the last checkpoint",
                exit_code=1,
            ) from None
    engine.accelerator.wait_for_everyone()
