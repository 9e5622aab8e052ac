"""The progress bar of offline calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error while the block runs; yield what to call with (done, total).

    The total may grow. Where standard error is no terminal, tqdm prints a line now and then.
    """
    with tqdm(desc=label, unit=" prompts", total=0, file=sys.stderr, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
