"""A file of requests through a Ray cluster, all workers of it under one key's limits.

    python examples/ray_job.py requests.jsonl answered --checkpoint checkpoint --tier tier-1

The same command again continues. Without --address a cluster of this machine alone is started, on loopback. Other
settings come from the environment and the working directory, as those of `ratelimit run` do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ray.data  # type: ignore[import-not-found]  # pip install 'ratelimit-scheduler[ray]'

from ratelimit.ray import infer


def main() -> None:
    """Answer the file, or what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requests", help="a file as `ratelimit run` takes it")
    parser.add_argument("results", help="a directory, for Parquet files")
    parser.add_argument("--checkpoint", required=True, help="a directory that every worker can write to")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tier")
    parser.add_argument("--address", help="of a cluster that is there")
    given = parser.parse_args()
    if given.address:
        ray.init(given.address)
    else:
        ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", object_store_memory=256 * 1024 * 1024)
    answered = infer(
        ray.data.read_text(str(Path(given.requests).absolute())),
        "text",
        checkpoint=given.checkpoint,
        workers=given.workers,
        tier=given.tier,
    )
    answered.write_parquet(str(Path(given.results).absolute()), mode="overwrite", min_rows_per_file=10_000)
    ray.shutdown()


if __name__ == "__main__":
    main()
