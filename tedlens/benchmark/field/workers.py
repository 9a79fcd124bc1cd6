"""Dask workers for those who ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tedlens.errors import TedlensError

if TYPE_CHECKING:
    from distributed import Client


@contextmanager
def cluster(workers: int, scheduler: str | None) -> Iterator[Client | None]:
    """A client of so many processes of one thread each, or of the cluster at an address; None where neither is asked.

    Raises
    ------
    TedlensError
        Where Dask is not installed, or nobody answers at the address.
    """
    if not workers and scheduler is None:
        yield None
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise TedlensError(
            "Workers need Dask, which is not installed; install tedlens[distributed], or leave --workers out."
        ) from None
    if scheduler is None:
        with LocalCluster(workers, threads_per_worker=1, dashboard_address=None) as local, Client(local) as client:
            yield client
        return
    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise TedlensError(f"No Dask scheduler answers at {scheduler} ({error}); give its address.") from None
    with client:
        yield client
