"""Programs named like Slurm's that keep a queue in text files, for what a real cluster does not do on demand."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

# Each line of FOLDER/queue: id name last-index-or-none state dependency
_SBATCH = r"""#!/bin/sh
cd "$FAKE_SLURM" || exit 9
n=$(($(cat calls) + 1)); echo $n > calls
for script in "$@"; do case "$script" in --dependency=*) dependency=${script#--dependency=};; esac; done
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$script")
[ "$n" = "$(cat kill-before 2>/dev/null)" ] && { kill -9 $PPID; exit 1; }
[ "$n" = "$(cat refuse-at 2>/dev/null)" ] && { cat refusal >&2; exit 1; }
[ -e silent ] && { rm silent; echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2; exit 1; }
id=$((100 + n))
echo "$id $name ${last:-none} PENDING ${dependency:-none}" >> queue
[ "$n" = "$(cat kill-after 2>/dev/null)" ] && { kill -9 $PPID; exit 1; }
echo $id
"""
_SQUEUE = r"""#!/bin/sh
for word in "$@"; do case "$word" in --name=*) names=,${word#--name=},;; esac; done
while read -r id name last state dependency; do
  case "$names" in *,$name,*) ;; *) continue;; esac
  i=0
  while [ "$last" = none ] || [ $i -le "$last" ]; do
    index=$i; [ "$last" = none ] && index=N/A
    printf '%-24s%-24s%-24s%-12s%-12s%-64s%-24s%-64s%-160s\n' $id $index $state 0 0 '' N/A Priority $name
    [ "$last" = none ] && break
    i=$((i + 1))
  done
done < "$FAKE_SLURM/queue"
"""
_SACCT = r"""#!/bin/sh
echo "$@" >> "$FAKE_SLURM/sacct-calls"
cat "$FAKE_SLURM/accounts" 2>/dev/null || exit 0
"""
_SCANCEL = r"""#!/bin/sh
for id in "$@"; do sed -i "/^$id /d" "$FAKE_SLURM/queue"; done
"""
_SCONTROL = r"""#!/bin/sh
echo "MaxArraySize            = $(cat "$FAKE_SLURM/max-array" 2>/dev/null || echo 1001)"
echo "MaxJobCount             = 10000"
"""
_SINFO = r"""#!/bin/sh
printf 'main*|7-00:00:00\nshort|30:00\nendless|infinite\n'
"""


@dataclass(frozen=True)
class FakeCluster:
    """What the programs see (``state``), and where they are (``programs``)."""

    state: Path
    programs: Path

    def tell(self, name: str, content: object = "") -> None:
        """Set one of the switches of the programs."""
        (self.state / name).write_text(str(content), encoding="utf-8")

    def queue(self) -> list[list[str]]:
        """Return (id, name, last index, state, dependency) of each job in the queue."""
        return [line.split() for line in (self.state / "queue").read_text(encoding="utf-8").splitlines()]

    def finish(self, *cluster_ids: str) -> None:
        """Let jobs end, and be forgotten."""
        kept = [" ".join(cells) + "\n" for cells in self.queue() if cells[0] not in cluster_ids]
        self.tell("queue", "".join(kept))


def make_fake_cluster(folder: Path, monkeypatch: pytest.MonkeyPatch, *, without: Sequence[str] = ()) -> FakeCluster:
    """Put the programs on the path of this process and of those it starts."""
    cluster = FakeCluster(folder / "state", folder / "programs")
    cluster.state.mkdir(parents=True)
    cluster.programs.mkdir()
    programs = {
        "sbatch": _SBATCH, "squeue": _SQUEUE, "sacct": _SACCT, "scancel": _SCANCEL, "scontrol": _SCONTROL,
        "sinfo": _SINFO,
    }  # fmt: skip
    for name, text in programs.items():
        if name not in without:
            (cluster.programs / name).write_text(text, encoding="utf-8")
            (cluster.programs / name).chmod(0o755)
    cluster.tell("calls", 0)
    cluster.tell("queue")
    monkeypatch.setenv("PATH", f"{cluster.programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("FAKE_SLURM", str(cluster.state))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return cluster
