"""Asking a run to stop: SIGTERM, SIGINT or SIGUSR1 once, and it saves; twice, and it is gone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Catch the first stop signal inside the block.

    Yields
    ------
    callable
        Returns True once a signal has come. A second signal acts as it would outside.
    """
    names = [name for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
    own = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names}
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for each, handler in own.items():
            signal.signal(each, handler)

    try:
        for number in own:
            signal.signal(number, ask)
        yield lambda: asked
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)
