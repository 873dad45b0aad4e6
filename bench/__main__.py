"""`make bench`: run the measurements and print their tables as Markdown.

make bench                                  all, with the sizes of the published figures (two hours)
make bench ARGS="latency --events 50"       one part; --help lists them
make bench ARGS="nab --corpus DIR"          the baseline on a copy of the Numenta Anomaly Benchmark
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from bench import (
    gpu,
    idle,
    ingest,
    judging,
    latency,
    nab,
    observer,
    pages,
    quiet,
    routes,
    soak,
    storm,
    storms,
    xid,
)
from bench.rig import Unavailable

PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "idle": lambda given: idle.table(idle.measure(seconds=given.seconds)),
    "latency": lambda given: latency.table(latency.measure(events=given.events)),
    "storms": lambda given: storms.table(
        storms.measure(pairs=given.pairs, peers=not given.no_peers, names=given.only)
    ),
    "gpu": lambda given: gpu.table(gpu.measure(seconds=given.seconds)),
    "xid": lambda given: latency.table(xid.measure(events=given.events)),
    "routes": lambda given: routes.table(routes.measure(pairs=given.pairs)),
    "observer": lambda _: observer.table(observer.measure()),
    "page": lambda _: pages.table(pages.measure()),
    "judging": lambda _: judging.table(judging.measure()),
    "ingest": lambda given: ingest.table(ingest.measure(runs=given.runs, store=given.store)),
    "storm": lambda given: storm.table(storm.measure(seconds=min(given.seconds, 30), store=given.store)),
    "quiet": lambda given: quiet.table(quiet.measure(minutes=given.minutes)),
    "soak": lambda given: soak.table(soak.measure(minutes=given.minutes, disabled=given.disabled)),
}
ON_REQUEST: dict[str, Callable[[argparse.Namespace], str]] = {
    "nab": lambda given: nab.table(nab.measure(corpus=given.corpus)),
}
"""What needs something that is not part of the project, and so is not part of `all`."""


def main() -> int:
    """Run what was asked for; a part that this machine cannot run says why and the rest goes on."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("part", nargs="?", choices=(*PARTS, *ON_REQUEST, "all"), default="all")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of runs for each storm (default 20)")
    parser.add_argument("--only", nargs="*", default=(), choices=storms.COUNTS, help="these storms alone")
    parser.add_argument("--no-peers", action="store_true", help="leave out the tools to compare with")
    parser.add_argument("--events", type=int, default=100, help="events for each latency (default 100)")
    parser.add_argument("--seconds", type=float, default=300, help="how long idle is watched (default 300)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each shape of ingest (default 3)")
    parser.add_argument(
        "--store", choices=("sqlite", "postgres"), default="sqlite", help="of ingest and storm"
    )
    parser.add_argument("--corpus", type=Path, help="where a copy of the NAB repository is, for nab")
    parser.add_argument("--minutes", type=float, default=30, help="how long soak and quiet run (default 30)")
    parser.add_argument(
        "--disabled", nargs="*", default=(), metavar="SENSOR", help="sensors that soak leaves out"
    )
    options = parser.parse_args()
    print(f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} processors\n")
    failed = False
    for part in PARTS if options.part == "all" else (options.part,):
        try:
            text = (PARTS | ON_REQUEST)[part](options)
        except Unavailable as reason:
            failed = True
            text = f"not measured: {reason}"
        print(f"## {part}\n\n{text}\n", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
