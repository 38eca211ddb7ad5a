"""Jobs on a Slurm cluster: submitted as arrays, told of in plain words.

Names are looked up when first used: every element of an array imports this package on its way to ``element``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perikarya.launch.slurm.states import Cluster, JobState, ask_cluster, job_states, live_jobs, refuse_live_jobs
    from perikarya.launch.slurm.submit import Submission, submit_jobs

__all__ = [
    "Cluster",
    "JobState",
    "Submission",
    "ask_cluster",
    "job_states",
    "live_jobs",
    "refuse_live_jobs",
    "submit_jobs",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = "submit" if name in ("Submission", "submit_jobs") else "states"
    return getattr(import_module(f"{__name__}.{module}"), name)
