"""The scripts that sbatch gets, written so that a person can read, change and submit them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from perikarya.launch.engines import share_out
from perikarya.launch.jobs import Crew, thread_variables
from perikarya.launch.slurm.arrays import Array
from perikarya.runs import now
from perikarya.settings import LaunchConfig

# A container has no scontrol, and some do not pass signals on.
_SUPERVISED = """\
again=yes
pass_on() {{ again=yes; kill -s "$1" "$work" 2>/dev/null || true; }}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM
{command} &
work=$!
while [ "$again" ]; do again=; code=0; wait "$work" || code=$?; done  # a signal ends a wait, not the work
if [ "$code" = 75 ]; then scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"; fi
exit "$code"
"""
# Ignored signals stay ignored across exec: one that comes before Python listens, or after, must not end the job.
_DEAF = "trap '' USR1  # the work listens for it itself\n"


def array_script(array: Array, *, job_name: str, folder: Path, crew: Crew, launch: LaunchConfig, python: str) -> str:
    """Write the script of one array.

    Parameters
    ----------
    array
        What it does.
    job_name
        Unique, and a word.
    folder
        Of this submission, absolute: where the jobs file is and the logs go.
    crew
        How a worker is started.
    launch
        What each element asks for.
    python
        The interpreter that submits, used where the settings name none.
    """
    slurm, n = launch.slurm, array.per_element
    throttle = f"%{array.throttle}" if array.throttle and array.throttle < array.n_elements else ""
    options = [
        f"--job-name={job_name}",
        f"--array=0-{array.n_elements - 1}{throttle}",
        *_resources(launch, gpus=slurm.gpus),
        f"--signal=B:USR1@{slurm.signal_s}",
        *(["--kill-on-invalid-dep=yes"] if array.needs else []),
        f"--output={_pattern(folder / 'log' / array.label)}-%a.log",
    ]
    first = '"$SLURM_ARRAY_TASK_ID"' if n == 1 else f"$((SLURM_ARRAY_TASK_ID * {n}))"
    log_stem = shlex.quote(str(folder / "log" / f"{array.label}-"))
    command = (
        f"{_worker(crew, launch, python)} \\\n"
        f"  --jobs-file {shlex.quote(str(folder / f'{array.label}.jobs.jsonl'))} \\\n"
        f"  --first {first} --count {n} \\\n"
        f'  --own-log {log_stem}"$SLURM_ARRAY_TASK_ID".log'
    )
    body = _SUPERVISED.format(command=command) if slurm.container else f"{_DEAF}exec {command}\n"
    limits = f"export PERIKARYA_MAX_RESTARTS={slurm.max_restarts} PERIKARYA_SIGNAL_S={slurm.signal_s}"
    return _assemble(_about_array(array, job_name), options, [*_surroundings(launch, folder), limits], body, launch)


def finale_script(words: Sequence[str], *, job_name: str, folder: Path, launch: LaunchConfig, python: str) -> str:
    """Write the script of what is done once when all arrays have ended; it asks for no GPU."""
    options = [
        f"--job-name={job_name}",
        *_resources(launch, gpus=0),
        f"--output={_pattern(folder / 'log' / 'finale')}.log",
    ]
    about = [
        "What is done once when all other jobs have ended, well or not.",
        *_by_hand(job_name),
    ]
    command = " ".join([_interpreter(launch, python), *map(shlex.quote, words)])
    return _assemble(about, options, _surroundings(launch, folder), f"exec {command}\n", launch)


def _about_array(array: Array, job_name: str) -> list[str]:
    first, last = array.jobs[0].id, array.jobs[-1].id
    each = "one job" if array.per_element == 1 else f"up to {array.per_element} jobs one after another"
    what = f"{len(array.jobs)} jobs, from '{first}' to '{last}'" if len(array.jobs) > 1 else f"One job, '{first}'"
    return [
        f"{what}; each element does {each}, in the order of {array.label}.jobs.jsonl.",
        "An element that is stopped (time limit, preemption, lost node) is put back in the queue and goes on from "
        "its last saved state.",
        *([f"Waits for {', '.join(sorted(array.needs))} to end well."] if array.needs else []),
        *(
            [f"Waits for {', '.join(array.follows)} to end, so that no more than asked run at once."]
            * bool(array.follows)
        ),
        *_by_hand(job_name),
    ]


def _by_hand(job_name: str) -> list[str]:
    return [f"By hand: sbatch THIS-FILE; squeue --name={job_name}; scancel --name={job_name}"]


def _assemble(
    about: Sequence[str], options: Sequence[str], lines: Sequence[str], body: str, launch: LaunchConfig
) -> str:
    shell = "#!/bin/bash" + (" -l" if launch.slurm.modules else "")  # a login shell knows 'module'
    comment = [f"# {_one_line(line)}" for line in (*about, f"Written by Perikarya, {now()}.")]
    directives = [f"#SBATCH {line}" for line in (*options, *launch.slurm.options)]
    return "\n".join([shell, *comment, *directives, "", *lines, body])


def _resources(launch: LaunchConfig, *, gpus: int) -> list[str]:
    """List what a job asks for; ``--gres`` is understood by every cluster with GPUs, ``--gpus`` by some."""
    slurm = launch.slurm
    chosen = {"partition": slurm.partition, "account": slurm.account, "qos": slurm.qos}
    return [
        *(f"--{name}={value}" for name, value in chosen.items() if value is not None),
        f"--time={slurm.time}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={slurm.cpus}",
        f"--mem={slurm.mem}",
        *([f"--gres=gpu:{gpus}"] if gpus else []),
        "--requeue",
        "--open-mode=append",
    ]


def _surroundings(launch: LaunchConfig, folder: Path) -> list[str]:
    slurm = launch.slurm
    variables = thread_variables(share_out(launch).threads)
    modules = ["module purge", f"module load {' '.join(map(shlex.quote, slurm.modules))}"]
    return [
        "set -e  # a line that fails ends the job: nothing is computed in half an environment",
        *(modules if slurm.modules else []),
        *slurm.setup,
        f"cd {shlex.quote(str(folder))}",
        f"export {' '.join(f'{name}={shlex.quote(value)}' for name, value in variables.items())}",
    ]


def _worker(crew: Crew, launch: LaunchConfig, python: str) -> str:
    return " ".join([_interpreter(launch, python), *map(shlex.quote, ("-m", crew.module, *crew.arguments))])


def _interpreter(launch: LaunchConfig, python: str) -> str:
    """Spell out the interpreter; the container's words are the user's own, and may be shell."""
    container = f"{launch.slurm.container} " if launch.slurm.container else ""
    return container + shlex.quote(launch.slurm.python or python)


def _pattern(path: Path) -> str:
    """Quote a path for ``#SBATCH``, where a percent sign stands for something."""
    return shlex.quote(str(path).replace("%", "%%"))


def _one_line(text: str) -> str:
    return " ".join(text.split())
