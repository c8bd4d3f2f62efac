"""Jobs larger than one machine: a Ray Data dataset in, the same rows with their answers out.

    requests = ray.data.read_text("requests.jsonl")
    answered = ratelimit.ray.infer(requests, "text", checkpoint="/shared/answers", tier="tier-3")
    answered.write_parquet("/shared/results")

Ray hands the rows to its workers and starts them again when they are killed; all of them together keep to one key's
limits, and none asks what another has had answered. `docs/ray.md` says what that takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratelimit.compose import make_endpoint, make_table
from ratelimit.jobs.checkpoint import prepare
from ratelimit.ray.asking import Asking, Asks
from ratelimit.ray.luggage import Luggage
from ratelimit.settings import load_settings

try:
    import ray.data  # type: ignore[import-not-found]  # an extra, which the tests of this package alone are run with
except ImportError:
    raise ImportError("ratelimit.ray needs: pip install 'ratelimit-scheduler[ray]'") from None

from ratelimit.ray.actors import Answering, Plan

__all__ = ["infer"]


def infer(
    dataset: Any,
    request: str | Callable[[dict[str, Any]], Asks] = "request",
    *,
    checkpoint: str | Path,
    id_column: str | None = None,
    model: str | None = None,
    result: str = "result",
    error: str = "error",
    workers: int = 2,
    batch_size: int = 256,
    num_cpus: float = 0.5,
    retry_failed: bool = False,
    **settings: Any,
) -> Any:
    """Return the dataset with a column of replies, as JSON, and one of errors: each row has one of them.

    `request` names the column that holds a request, as a line of a file of requests would, or makes it from a row.
    `checkpoint` is a directory that all workers can write to: what is answered there is not asked again. Settings are
    those of the project, such as `tier`; what is not given comes from the environment and working directory of the
    caller, and goes along to the workers. Nothing is sent before the dataset is used.
    """
    loaded = load_settings(**settings)
    make_endpoint(loaded)  # a missing key is found here and not in every worker
    plan = Plan(
        Asking(request, id_column, model),
        make_table(loaded),
        prepare(Path(checkpoint).absolute()),
        retry_failed,
        result,
        error,
    )
    # Room for twice as many rows as may be in flight, for a block is answered only when its slowest row is.
    blocks = math.ceil(2 * loaded.concurrency / batch_size)
    return dataset.repartition(target_num_rows_per_block=batch_size, strict=True).map_batches(
        Answering,
        fn_constructor_args=(plan, Luggage(loaded)),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers, max_concurrent_calls_per_actor=blocks),
        num_cpus=num_cpus,
    )
