"""Fine-tune one network on one fold: early stopping, best weights kept, resumable after any step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from perikarya.errors import InterruptedWorkError
from perikarya.models.build import CellNetwork, n_parameters
from perikarya.train.checkpoint import load_state, save_state
from perikarya.train.distributed import Team, current_team, synchronised_batch_norm
from perikarya.train.rows import Fitted
from perikarya.train.session import FineTuning, Session

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_LAYOUT = 2  # of a saved state; one of another layout is not continued


def finetune(network: CellNetwork, job: FineTuning, *, state_path: Path, progress: Progress) -> Fitted:
    """Train a network and leave it with the weights of its best epoch.

    Parameters
    ----------
    network
        As it was built; to go on from a state it must be built the same way, for what does not train is not saved.
        It is moved to ``job.device`` and trained in place.
    job
        Rows and settings.
    state_path
        Where the state is kept after each epoch and at an interruption; an existing one is continued.
    progress
        Called with (steps done, steps in all) after each step; may raise ``InterruptedWorkError``.

    Returns
    -------
    The history and the tensors of the network. Training figures are those of the augmented cells as they were
    trained on; a blended cell counts as of the class that has more of it.

    Raises
    ------
    ConfigError
        If the network cannot be trained in the way asked for.
    InterruptedWorkError
        If ``progress`` raised it: the state of that very step has been saved. The next start goes on after it and
        ends, on the same machine with as many threads, as if nothing had happened.
    TrainingError
        If the loss is not finite.

    Notes
    -----
    In a team of processes (``train.distributed``) all of them call this with the same arguments; ``progress`` must
    raise in all after the same step, and the first alone writes.
    """
    team = current_team()
    network.to(job.device).to(memory_format=torch.channels_last)
    torch.manual_seed(job.seed)
    with synchronised_batch_norm(network, team, job.device):
        session = Session(network, job)  # may draw weights, the same ones in every process
        if not team.is_first:
            torch.manual_seed(_seed_of_process(job.seed, team))
        _train(session, state_path=state_path, progress=progress)
        session.parts.load(session.best_weights)
        session.parts.restore()
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    return Fitted(
        history=session.history, best_epoch=session.best_epoch, tensors=tensors, n_params=n_parameters(network)
    )


def _train(session: Session, *, state_path: Path, progress: Progress) -> None:
    def save() -> None:
        state = session.state() | {"fingerprint": fingerprint}
        if session.team.is_first:
            save_state(state_path, state)
        session.team.wait_for_all()  # or another process might go on from the state before this one

    fingerprint = f"{session.job.fingerprint}|layout {_LAYOUT}"
    saved = load_state(state_path, fingerprint=fingerprint)
    if saved is not None:
        session.restore(saved)
    while not session.finished:
        before = session.epoch * session.steps_per_epoch
        try:
            row = session.train_epoch(partial(_advance, progress, before, session.n_steps))
        except InterruptedWorkError:
            save()
            log.info("stopped in epoch %d after step %d; the state is saved", session.epoch, session.steps_done)
            raise
        with session.judged_weights():
            session.note(row | session.stopping_figures())
        save()
    progress(session.n_steps, session.n_steps)


def _seed_of_process(seed: int, team: Team) -> int:
    """Return what dropout's random numbers follow from in a process that is not the first."""
    return int(np.random.SeedSequence([seed, team.rank]).generate_state(1)[0])


def _advance(progress: Progress, before: int, n_steps: int, step: int) -> None:
    progress(before + step, n_steps)
