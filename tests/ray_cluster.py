"""Ray, with a cluster of two cores that nobody else can reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


@contextmanager
def cluster(**options: Any) -> Iterator[Any]:
    """Start it for as long as the context is open; the value is the package, which is an extra."""
    ray: Any = import_module("ray")
    import_module("ray.data")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=128 * 1024 * 1024,
        **options,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield ray
    finally:
        ray.shutdown()
