"""What Slurm's programs refuse, said so that a person knows which setting to change."""

from __future__ import annotations

import re

_FULL = (
    "Fix: let each job do several tasks with launch.slurm.tasks_per_job, or give the same command again when some "
    "have ended; it submits what is missing."
)

# what sbatch prints, as a pattern -> which setting it is about, and what to do
_SENTENCES: tuple[tuple[str, str], ...] = (
    (
        r"invalid partition",
        "The cluster has no such partition (launch.slurm.partition).\nFix: choose one that 'sinfo -s' lists.",
    ),
    (
        r"invalid account|not permitted to use this partition|access.*denied|user's group not permitted",
        "You may not use this account (launch.slurm.account), or not with this partition (launch.slurm.partition).\n"
        "Fix: choose one that 'sacctmgr show assoc user=$USER format=account,partition,qos' lists.",
    ),
    (
        r"invalid qos",
        "There is no such quality of service, or you may not use it (launch.slurm.qos).\n"
        "Fix: choose one that 'sacctmgr show assoc user=$USER format=account,partition,qos' lists.",
    ),
    (
        r"max ?submit|submit limit|job violates accounting/qos policy|reached.*job.*limit",
        f"Your account may not have so many jobs in the queue at once, or not such large ones.\n{_FULL}",
    ),
    (
        r"temporarily unable to accept|job queue full|resource temporarily unavailable",
        f"The cluster's list of jobs is full (MaxJobCount of everybody together).\n{_FULL}",
    ),
    (
        r"time limit",
        "A job may not last so long (launch.slurm.time).\n"
        "Fix: ask for less; 'sinfo -o \"%P %l\"' shows the limits. A task goes on after it.",
    ),
    (
        r"memory specification",
        "No node has so much memory (launch.slurm.mem).\nFix: ask for less; 'sinfo -o \"%P %m\"' shows the nodes' MB.",
    ),
    (
        r"generic resource|\bgres\b",
        "The cluster does not know such GPUs (launch.slurm.gpus).\nFix: 'sinfo -o \"%P %G\"' shows what nodes have.",
    ),
    (
        r"node configuration is not available|more processors requested|node count specification",
        "No node has what one job asks for (launch.slurm.cpus, mem and gpus together).\n"
        "Fix: ask for less; 'sinfo -o \"%P %c %m %G\"' shows CPUs, MB of memory and GPUs of the nodes.",
    ),
    (
        r"unrecognized option|invalid option|invalid argument",
        "One of the lines of launch.slurm.options is not an option of sbatch.\nFix: see 'man sbatch'.",
    ),
    (
        r"unable to contact|socket timed out|connection refused|zero bytes|slurm_load|could not establish",
        "Slurm's controller does not answer.\nFix: give the same command again later; it goes on where it stopped.",
    ),
)


def explain(program: str, said: str) -> str:
    """Say why one of Slurm's programs refused; its own words come along."""
    for pattern, sentence in _SENTENCES:
        if re.search(pattern, said, re.IGNORECASE):
            return f"{sentence}\n({program} said: {_in_short(said)})"
    return f"'{program}' refused: {_in_short(said) or 'without a word'}."


def _in_short(said: str) -> str:
    return " / ".join(line.strip() for line in said.splitlines() if line.strip())[:500]
