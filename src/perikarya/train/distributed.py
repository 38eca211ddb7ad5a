"""Several processes that train one network together, each on its share of every batch.

Gradients are sums over cells divided by the weight of the whole batch, so adding those of all processes gives the
gradients of one process. Everything else follows from them alike in each process: weights, schedule, average, when to
stop. What differs by nature: the random numbers of dropout, and batch normalisation where it is not synchronised.

The gradients are added in this module, not by ``DistributedDataParallel``, for it averages instead of adding, refuses
parameters that a step leaves out, and would have to be made anew when a phase of the training frees others.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from perikarya.data.loader import share_of
from perikarya.errors import ConfigError

_BUCKET_ELEMENTS = 2**23  # 32 MiB of float32 sent at once: large enough for speed, small beside a network


class Team:
    """One process of those that train a network together; by itself, a team of one, for which all calls are free.

    Parameters
    ----------
    rank
        Which of them this is; the first one writes the files.
    size
        How many they are.
    wish
        Set, in any of them and from any thread, when training should end soon; ``stopping`` then tells so in all of
        them after the same step.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, wish: threading.Event | None = None) -> None:
        self.rank, self.size = rank, size
        self.stopping = False
        self._wish = wish or threading.Event()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, n_cells: int) -> slice:
        """Return which cells of a batch are this process's."""
        return share_of(n_cells, self.rank, self.size)

    def n_passes(self, n_cells: int, micro_batch: int | None) -> int:
        """Return into how many parts each process divides its share of a batch, so that each has few cells.

        It is the same for all, for synchronised batch normalisation waits for all in every pass.

        Raises
        ------
        ConfigError
            If there are more processes than cells.
        """
        smallest, largest = n_cells // self.size, math.ceil(n_cells / self.size)
        if smallest == 0:
            raise ConfigError(
                f"A batch of {n_cells} cells cannot be shared out among {self.size} processes.\n"
                "Fix: a smaller launch.processes_per_task, or a larger train.batch_size."
            )
        return 1 if micro_batch is None else min(math.ceil(largest / micro_batch), smallest)

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up what the processes have, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def batch_weight(self, weight: Tensor) -> Tensor:
        """Return the weight of the whole batch, given that of this process's share, and agree on ``stopping``."""
        if self.size == 1:
            return weight
        both = self.sum(torch.stack([weight, weight.new_tensor(float(self._wish.is_set()))]))
        self.stopping = bool(both[1] > 0)
        return both[0]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of the gradients of all; those without gradient must be the same everywhere."""
        if self.size > 1:
            self._sum_all([p.grad for p in parameters if p.grad is not None])

    def average_statistics(self, network: nn.Module) -> None:
        """Give every process the mean of the running statistics that training gathers, unless they are synchronised."""
        if self.size == 1:
            return
        gathering = [m for m in network.modules() if m.training and not isinstance(m, nn.SyncBatchNorm)]
        named = [pair for module in gathering for pair in module.named_buffers(recurse=False)]
        running = [b for name, b in named if name.startswith("running_") and b is not None]
        for buffer in running:
            buffer.div_(self.size)
        self._sum_all(running)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return what each process has, by rank; all of one shape."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return found

    def dealt(self, n_items: int, *, block: int) -> NDArray[np.int64]:
        """Return which of some items are this process's, dealt out in blocks in turn."""
        items = np.arange(n_items, dtype=np.int64)
        is_own: NDArray[np.bool_] = items // block % self.size == self.rank
        return items[is_own]

    def wait_for_all(self) -> None:
        """Return once all processes have come this far."""
        if self.size > 1:
            dist.barrier()

    def _sum_all(self, tensors: list[Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = self.sum(torch.cat([t.reshape(-1) for t in bucket]))
            for tensor, summed in zip(bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True):
                tensor.copy_(summed.view(tensor.shape))


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    n_elements = 0
    for tensor in tensors:
        if bucket and (n_elements + tensor.numel() > _BUCKET_ELEMENTS or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, n_elements = [], 0
        bucket.append(tensor)
        n_elements += tensor.numel()
    if bucket:
        yield bucket


_team = Team()


def current_team() -> Team:
    """Return the team of this process: a process has one at most, as torch has one default group."""
    return _team


@contextmanager
def joined_team(rank: int, size: int, *, wish: threading.Event | None = None) -> Iterator[Team]:
    """Meet the other processes where the environment says (as ``torch.distributed.run`` sets it), for a block.

    With GPUs, process k uses the k-th that is visible. ``wish`` is that of ``Team``.

    Raises
    ------
    ConfigError
        If there are fewer GPUs than processes.
    """
    global _team
    on_gpu = torch.cuda.is_available()
    if on_gpu and torch.cuda.device_count() < size:
        raise ConfigError(
            f"launch.processes_per_task is {size}, but a task sees {torch.cuda.device_count()} GPU(s).\n"
            "Fix: as many processes as GPUs, or fewer launch.jobs at once."
        )
    if on_gpu:
        torch.cuda.set_device(rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", rank=rank, world_size=size)
    _team = Team(rank, size, wish=wish)
    try:
        yield _team
    finally:
        _team = Team()
        dist.destroy_process_group()


@contextmanager
def synchronised_batch_norm(network: nn.Module, team: Team, device: torch.device) -> Iterator[None]:
    """Let batch normalisation see the whole batch for a block, on GPUs; torch has no such thing for the CPU.

    The layers that stood there before take their places again afterwards, with the same tensors.
    """
    if team.size == 1 or device.type != "cuda":
        yield
        return
    from timm.layers import convert_sync_batchnorm  # torch's own does not know the layers of timm

    before = {
        name: module for name, module in network.named_modules(remove_duplicate=False) if isinstance(module, _BatchNorm)
    }
    convert_sync_batchnorm(network)
    try:
        yield
    finally:
        for name, module in before.items():
            network.set_submodule(name, module)
