"""What takes torch, in processes of its own: where a network looks in a cell, and features of a small network.

Torch and a network fill most of a gigabyte, which the service would never give back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import DataError
from perikarya.review.components import Progress
from perikarya.review.worker import Words, Worker, answer_questions
from perikarya.runs import RunFolder

if TYPE_CHECKING:
    from perikarya.explain.one import CellExplainer

_MODULE = "perikarya.review.network_work"
_EXPLAIN, _EMBED = "explain", "embed"


class ExplainWork:
    """Explains cells of a study by the networks of a run, as ``CellExplainer`` does, one at a time.

    Its process starts with the first cell that is asked for, keeps its networks for the following ones and ends after
    five minutes without any.

    Parameters
    ----------
    run
        The run folder.
    opened
        The study.
    """

    def __init__(self, run: RunFolder, opened: OpenStudy) -> None:
        self._run, self._opened = run, opened
        self._worker = Worker(_MODULE, doing="The map of where a network looks", fix=_fix("ask again"))

    def explain(self, model: str, row: int, about: int) -> NDArray[np.float32]:
        """Map how much each place of a cell spoke for a class; see ``CellExplainer.explain``.

        Raises
        ------
        ConfigError, DataError, RunError, WeightsError
            As ``CellExplainer.explain`` does.
        WorkerError
            If the process died; the next question starts another.
        InterruptedWorkError
            If ``close`` was called.
        """
        words = {"run": str(self._run.root.resolve()), "model": model, "row": row, "about": about}
        said, found = self._worker.ask({"do": _EXPLAIN, **_named(self._opened), **words})
        return np.frombuffer(found, "<f4").reshape(said["shape"]).astype(np.float32)

    def close(self) -> None:
        """End the process at once, whatever it is at."""
        self._worker.close()


class EmbedWork:
    """Computes features of all cells of a study and puts them into its cache; its process ends when it is done.

    Parameters
    ----------
    opened
        The study.
    arch, weights, input_px
        The network, as a configuration names them.
    """

    def __init__(self, opened: OpenStudy, *, arch: str, weights: str, input_px: int) -> None:
        self._words = {"do": _EMBED, **_named(opened), "arch": arch, "weights": weights, "input_px": input_px}
        self._worker = Worker(_MODULE, doing="The computation of features", fix=_fix("start the map again"))

    def run(self, progress: Progress) -> NDArray[np.float16]:
        """Return the features, shape (n_cells, n_features), mapped from disk; what was begun before is gone on with.

        Raises
        ------
        DataError, TrainingError, WeightsError
            As ``compute_features`` and ``resolve_weights`` do.
        WorkerError
            If the process died.
        InterruptedWorkError
            If ``close`` was called.
        """
        try:
            said, _ = self._worker.ask(self._words, progress=progress)
        finally:
            self._worker.end()
        features_nd: NDArray[np.float16] = np.load(said["path"], mmap_mode="r", allow_pickle=False)
        return features_nd

    def close(self) -> None:
        """End the process at once, whatever it is at."""
        self._worker.close()


def _fix(again: str) -> str:
    return f"end other programs where memory is short, then {again}."


def _named(opened: OpenStudy) -> Words:
    return {"study": str(opened.root.resolve()), "data_hash": opened.data_hash}


class _Answers:
    """Answers the questions of one ``ExplainWork`` or ``EmbedWork``."""

    def __init__(self) -> None:
        self._explainer: CellExplainer | None = None

    def __call__(self, words: Words, _content: bytes, progress: Progress) -> tuple[Words, bytes]:
        return self._embed(words, progress) if words["do"] == _EMBED else self._explain(words)

    def _explain(self, words: Words) -> tuple[Words, bytes]:
        from perikarya.experiment.plan import load_run_config
        from perikarya.explain.one import CellExplainer

        if self._explainer is None:
            run = RunFolder(Path(words["run"]))
            self._explainer = CellExplainer(run, _reopened(words), load_run_config(run))
        map_hw = self._explainer.explain(words["model"], words["row"], words["about"])
        return {"shape": map_hw.shape}, map_hw.astype("<f4").tobytes()

    def _embed(self, words: Words, progress: Progress) -> tuple[Words, bytes]:
        from perikarya.models.embed import compute_features
        from perikarya.models.weights import resolve_weights

        path = compute_features(
            _reopened(words),
            arch=words["arch"],
            weights=resolve_weights(words["arch"], words["weights"]),
            input_px=words["input_px"],
            progress=lambda done, n_cells: progress(done / n_cells),
        )
        return {"path": str(path)}, b""


def _reopened(words: Words) -> OpenStudy:
    """Open the study of a question again; rows of another state of it would be other cells."""
    opened = open_study(Path(words["study"]))
    if opened.data_hash != words["data_hash"]:
        raise DataError(
            f"{opened.root} was changed since the page was opened, so rows may stand for other cells.\n"
            "Fix: start 'perikarya review' again."
        )
    return opened


def main() -> None:
    """Do what ``ExplainWork`` or ``EmbedWork`` asks."""
    answer_questions(_Answers())


if __name__ == "__main__":
    main()
