"""Scripts say what they ask for, are valid shell, and survive any path."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from perikarya.config import LaunchConfig
from perikarya.launch.jobs import Crew, Job
from perikarya.launch.slurm.arrays import Array
from perikarya.launch.slurm.scripts import array_script, finale_script

ARRAY = Array("stage1", tuple(Job(f"j{i}", {}) for i in range(10)), per_element=3, throttle=2)
NASTY = 'it\'s a "run" $HOME 100% \\ ü'


def render(
    folder: Path, array: Array = ARRAY, python: str = "/opt/python", jobs: int | None = None, **slurm: Any
) -> str:
    launch = LaunchConfig.model_validate({"engine": "slurm", "jobs": jobs, "slurm": slurm})
    crew = Crew("some.module", (str(folder), "--study", "my study"))
    return array_script(array, job_name="grid-stage1-ab12", folder=folder, crew=crew, launch=launch, python=python)


def directives(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


def fake_python(folder: Path, body: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "python it's"
    program.write_text(f"#!/bin/bash\n{body}\n")
    program.chmod(0o755)
    return program


def run(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.sh"
    script.write_text(text)
    env = {**os.environ, "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", **environment}
    return subprocess.run(["/bin/bash", str(script)], capture_output=True, text=True, env=env, check=False)


def test_a_script_asks_for_what_the_settings_say() -> None:
    text = render(
        Path("/runs/r/slurm/1"), partition="gpu", account="lab", qos="long", time="2-12:00:00", gpus=2, cpus=6,
        mem="20G", signal_s=90, options=("--exclude=node7",),
    )  # fmt: skip
    assert directives(text) == [
        "--job-name=grid-stage1-ab12",
        "--array=0-3%2",
        "--partition=gpu",
        "--account=lab",
        "--qos=long",
        "--time=2-12:00:00",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=6",
        "--mem=20G",
        "--gres=gpu:2",
        "--requeue",
        "--open-mode=append",
        "--signal=B:USR1@90",
        "--output=/runs/r/slurm/1/log/stage1-%a.log",
        "--exclude=node7",
    ]


def test_what_is_not_set_is_left_to_the_cluster() -> None:
    text = render(Path("/r"))
    assert not any(word in text for word in ("--partition", "--account", "--qos", "--gres", "\nmodule "))


def test_a_percent_sign_of_a_path_means_itself_to_sbatch() -> None:
    assert "--output=/r/100%%/log/stage1-%a.log" in directives(render(Path("/r/100%")))


def test_a_throttle_that_throttles_nothing_is_left_out() -> None:
    assert "--array=0-3" in directives(render(Path("/r"), Array("stage1", ARRAY.jobs, 3, throttle=4)))


def test_directives_come_before_the_first_command_for_sbatch_reads_no_further() -> None:
    lines = render(Path("/r"), modules=("cuda/12",), setup=("export A=1",)).splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last + 1])


@pytest.mark.parametrize("name", ["plain", NASTY])
@pytest.mark.parametrize("container", [None, "env -u NOTHING"])
def test_the_worker_gets_its_words_unharmed_whatever_the_path(tmp_path: Path, name: str, container: str | None) -> None:
    folder = tmp_path / name
    python = fake_python(folder, 'printf "%s\\n" "$PWD" "$@" > words')
    done = run(render(folder, python=str(python), container=container), folder)
    assert done.returncode == 0, done.stderr
    log = str(folder / "log" / "stage1-3.log")
    jobs_file = str(folder / "stage1.jobs.jsonl")
    assert (folder / "words").read_text().splitlines() == [
        str(folder), "-m", "some.module", str(folder), "--study", "my study", "--jobs-file", jobs_file, "--first", "9",
        "--count", "3", "--own-log", log,
    ]  # fmt: skip


def test_set_up_lines_come_first_and_one_that_fails_ends_the_job(tmp_path: Path) -> None:
    python = fake_python(tmp_path, 'echo "$GREETING $OMP_NUM_THREADS"')
    assert (
        run(render(tmp_path, python=str(python), setup=("export GREETING=hello",), cpus=3), tmp_path).stdout
        == "hello 3\n"
    )
    failed = run(render(tmp_path, python=str(python), setup=("source /nowhere/activate",)), tmp_path)
    assert (failed.returncode != 0, failed.stdout) == (True, "")


def test_set_up_lines_may_use_variables_that_are_not_set(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "echo done")
    assert run(render(tmp_path, python=str(python), setup=('test -z "$NO_SUCH"',)), tmp_path).stdout == "done\n"


def test_modules_are_loaded_in_a_login_shell_after_those_of_the_user_are_gone() -> None:
    lines = render(Path("/r"), modules=("cuda/12.4", "python/3.11")).splitlines()
    assert lines[0] == "#!/bin/bash -l"
    at = lines.index("module purge")
    assert lines[at + 1] == "module load cuda/12.4 python/3.11"


def test_a_module_that_cannot_be_loaded_ends_the_job(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "echo worked")
    for code, said in ((0, ["module purge", "module load a b", "worked"]), (1, ["module purge", "module load a b"])):
        function = f"() {{ echo module $*; [ $1 = purge ] || return {code}; }}"
        done = run(
            render(tmp_path, python=str(python), modules=("a", "b")), tmp_path, **{"BASH_FUNC_module%%": function}
        )
        assert done.stdout.splitlines() == said
        assert (done.returncode == 0) == (code == 0)


def test_without_a_container_the_worker_takes_the_place_of_the_shell_so_that_signals_reach_it() -> None:
    assert "\nexec /opt/python -m some.module" in render(Path("/r"))


@pytest.mark.parametrize(("sent", "heard"), [(signal.SIGUSR1, "USR1"), (signal.SIGTERM, "TERM")])
def test_with_a_container_the_shell_passes_signals_on_and_requeues(tmp_path: Path, sent: int, heard: str) -> None:
    python = fake_python(
        tmp_path, f"trap 'sleep 0.2; echo {heard}; exit 75' {heard}\ntouch ready\nwhile :; do sleep 0.05; done"
    )
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/bash\necho "scontrol $@"\n')
    scontrol.chmod(0o755)
    script = tmp_path / "script.sh"
    script.write_text(render(tmp_path, python=str(python), container="env"))
    env = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    process = subprocess.Popen(["/bin/bash", str(script)], stdout=subprocess.PIPE, text=True, env=env)
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    process.send_signal(sent)
    assert process.communicate(timeout=20)[0].splitlines() == [heard, "scontrol requeue 7_3"]
    assert process.returncode == 75


def test_an_array_that_needs_others_is_cancelled_by_slurm_when_they_fail() -> None:
    needy = Array("stage2", ARRAY.jobs, 1, frozenset({"features of m"}))
    assert "--kill-on-invalid-dep=yes" in directives(render(Path("/r"), needy))
    assert "--kill-on-invalid-dep=yes" not in directives(render(Path("/r")))
    assert "# Waits for features of m to end well." in render(Path("/r"), needy)


def test_no_job_id_ends_the_comment_and_becomes_a_command() -> None:
    evil = Array("stage1", (Job("a\nrm -rf /", {}),), 1)
    assert "\nrm -rf /" not in render(Path("/r"), evil)


def test_the_finale_asks_for_no_gpu_and_keeps_its_words(tmp_path: Path) -> None:
    python = fake_python(tmp_path / NASTY, 'printf "%s\\n" "$@"')
    launch = LaunchConfig.model_validate({"slurm": {"gpus": 4, "mem": "3G"}})
    text = finale_script(
        ("-m", "perikarya", "report", NASTY), job_name="f", folder=tmp_path, launch=launch, python=str(python)
    )
    assert not any("gres" in line for line in directives(text))
    assert run(text, tmp_path).stdout.splitlines() == ["-m", "perikarya", "report", NASTY]


def test_every_script_is_valid_shell(tmp_path: Path) -> None:
    for container in (None, "apptainer exec --nv '/images/my image.sif'"):
        script = tmp_path / "script.sh"
        script.write_text(render(tmp_path, container=container, modules=("cuda",)))
        subprocess.run(["/bin/bash", "-n", str(script)], check=True)


def test_a_warning_before_the_work_listens_does_not_end_the_job(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "kill -USR1 $$; echo alive")
    done = run(render(tmp_path, python=str(python)), tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["alive"])
