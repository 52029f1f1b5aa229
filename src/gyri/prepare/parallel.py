"""The same work on many scans: on several processes of this machine, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from gyri.errors import UnavailableError
from gyri.runtime.progress import progress_bar

CONNECT_S = 30

Result = TypeVar("Result")
Call = tuple[Callable[..., Result], tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who does the work.

    Parameters
    ----------
    jobs : processes on this machine, -1 for one a core.
    dask : address of a Dask scheduler, as in ``tcp://host:8786``, whose workers take the place of
        `jobs`. They must find the same files under the same paths.
    """

    jobs: int = -1
    dask: str | None = None

    def map(self, calls: Sequence[Call[Result]], description: str) -> Iterator[Result]:
        """Yield the calls' results in order, under a progress bar.

        Raises
        ------
        UnavailableError
            Dask is not installed, or no scheduler answers at its address.
        """
        from joblib import Parallel, delayed

        with _cluster(self.dask), progress_bar(description, len(calls)) as advance:
            parallel = Parallel(n_jobs=-1 if self.dask else self.jobs, return_as="generator")
            for result in parallel(delayed(function)(*given) for function, given in calls):
                advance()
                yield result


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Make joblib work on the Dask cluster at `address` while the block runs."""
    if address is None:
        yield
        return
    from joblib import parallel_config

    try:
        from distributed import Client
    except ImportError:
        raise UnavailableError(
            "Dask is not installed. Install it with `pip install 'dask[distributed]'`, or leave "
            "out --dask."
        ) from None
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=True)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"No Dask scheduler answers at {address}: {error}. Expected an address as in "
            "tcp://host:8786; start one with `dask scheduler`."
        ) from None
    with client, parallel_config(backend="dask"):
        yield
