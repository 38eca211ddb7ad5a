"""Batches of cells, made by background threads while the network works on the batch before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from perikarya.data.augment import Augmenter, cell_keys, resize_batch
from perikarya.data.store import OpenStudy

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def iterate_batches(
    opened: OpenStudy,
    rows: NDArray[np.int64],
    *,
    batch_size: int,
    out_px: int,
    augmenter: Augmenter | None = None,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = False,
    drop_last: bool = False,
    prefetch: int = 2,
    workers: int = 1,
    first: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Iterate over cells in batches; the same arguments give the same batches, however many threads make them.

    Threads suffice, for OpenCV and the copying out of the study's file free the interpreter; nothing is pickled. When
    the consumer stops early or a batch cannot be made, batches that are waiting are dropped and the threads end.

    Parameters
    ----------
    opened
        The study.
    rows
        Shape (n,), which of its cells, with repetition where resampling asks for it.
    batch_size
        Cells in a batch; the last batch has the rest, unless ``drop_last``.
    out_px
        Side of the result.
    augmenter
        Changes the cells at random, to the same ``out_px``; None: only the size is changed.
    seed, epoch
        Decide the order and, with the row, the changes of a cell.
    shuffle
        Whether the order is random, else that of ``rows``.
    drop_last
        Whether an incomplete last batch is left out.
    prefetch
        How many batches are made ahead; 0: in the calling thread, when asked for.
    workers
        How many threads make batches.
    first
        The batch to begin with; those before it are not made.
    share
        (k, n): of each batch only the k-th of n shares is made, see ``share_of``.

    Yields
    ------
    Cells, shape (batch_size, out_px, out_px, 4), uint8, and their rows, shape (batch_size,); of a share as many as
    it has.

    Raises
    ------
    ValueError
        If a size is not positive, or the augmenter makes cells of another size.
    """
    if batch_size < 1 or workers < 1 or prefetch < 0 or first < 0:
        raise ValueError(
            "batch_size and workers must be at least 1, prefetch and first at least 0: "
            f"{batch_size}, {workers}, {prefetch}, {first}"
        )
    if augmenter is not None and augmenter.out_px != out_px:
        raise ValueError(f"the augmenter makes cells of {augmenter.out_px} px but {out_px} px are asked for")
    rows = np.asarray(rows, dtype=np.int64)
    keys = cell_keys(rows, seed=seed, epoch=epoch)
    order = np.random.default_rng([seed % 2**64, epoch]).permutation(len(rows)) if shuffle else np.arange(len(rows))
    n_used = len(rows) - len(rows) % batch_size if drop_last else len(rows)
    batches = [order[i : min(i + batch_size, n_used)] for i in range(first * batch_size, n_used, batch_size)]
    parts = [batch[share_of(len(batch), *share)] for batch in batches]

    def make(part: NDArray[np.int64]) -> Batch:
        crops = opened.read_crops(rows[part])
        x_nhwc = resize_batch(crops, out_px) if augmenter is None else augmenter.batch(crops, keys[part])
        return x_nhwc, rows[part]

    if prefetch == 0:
        return (make(part) for part in parts)
    return _made_ahead(make, parts, n_ahead=prefetch, workers=min(workers, prefetch))


def share_of(n_cells: int, k: int, n_shares: int) -> slice:
    """Return which cells of a batch are the k-th of ``n_shares`` shares: neighbours, sizes alike but for one cell."""
    if not 0 <= k < n_shares:
        raise ValueError(f"there is no share {k} of {n_shares}")
    return slice(n_cells * k // n_shares, n_cells * (k + 1) // n_shares)


def _made_ahead(
    make: Callable[[NDArray[np.int64]], Batch], parts: list[NDArray[np.int64]], *, n_ahead: int, workers: int
) -> Iterator[Batch]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="perikarya-batches")
    waiting: deque[Future[Batch]] = deque()
    try:
        for part in parts:
            waiting.append(pool.submit(make, part))
            if len(waiting) > n_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
