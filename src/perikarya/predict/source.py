"""The model a person names: an exported one, or one that is still in its run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from perikarya.errors import ConfigError, DataError
from perikarya.predict.folder import ModelFolder, is_model_folder, open_model
from perikarya.predict.manifest import MODEL_FILE
from perikarya.runs import RunFolder

if TYPE_CHECKING:
    from perikarya.predict.from_run import RunModel

    Model: TypeAlias = ModelFolder | RunModel


def open_source(path: Path, name: str | None) -> Model:
    """Open an exported model or a model of a run folder.

    Parameters
    ----------
    path
        A folder made by ``export`` (or its ``model.json``), or a run folder.
    name
        Of a model of the run; None: the leading one.

    Raises
    ------
    ConfigError, DataError, RunError
        If it is neither, or cannot be used.
    """
    if is_model_folder(path) or path.name == MODEL_FILE:
        if name is not None:
            raise ConfigError(f"--model is for run folders; {path} holds one exported model.\nFix: leave --model out.")
        return open_model(path)
    run = RunFolder(path)
    if not run.config.is_file():
        raise DataError(
            f"{path} is neither an exported model (no model.json) nor a run folder (no config.yaml).\n"
            "Fix: name a folder made by 'perikarya export' or by 'perikarya train'."
        )
    from perikarya.predict.from_run import model_of_run

    return model_of_run(run, name)
