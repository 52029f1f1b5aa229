"""Progress bars with the remaining time, for whatever may take longer than two seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a bar on the terminal (standard error).

    Parameters
    ----------
    description : what is being done.
    total : number of units, None while it is not known.

    Yields
    ------
    callable
        ``advance(completed=..., total=..., note=...)`` sets the bar; without arguments it
        moves one unit on.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        refresh_per_second=4,
    )
    with bar:
        task = bar.add_task(description, total=total, note="")

        def advance(
            completed: int | None = None, total: int | None = None, note: str | None = None
        ) -> None:
            if note is not None:
                bar.update(task, note=note)
            if completed is None and total is None:
                bar.advance(task)
            else:
                bar.update(task, completed=completed, total=total)

        yield advance


def track(items: Iterable[T], description: str) -> Iterator[T]:
    """Yield `items` under a progress bar."""
    with progress_bar(description, len(items) if isinstance(items, Sized) else None) as advance:
        for item in items:
            yield item
            advance()
