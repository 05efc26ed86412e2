"""What a worker's memory is while it goes through a film cache: `python -m benchmarks.worker_memory CACHE`.

A process of its own, started by `data.py`; the cache's folder also holds the films' table, `films.parquet`.
"""

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_core.data import Films, TrainingData
from cxr_core.labels import CHESTXRAY14
from cxr_core.samplers import samplers

_BATCH = 64


class Peak:
    """The largest private memory and RSS since the last `reset`, in MiB, sampled every 10 ms."""

    def __init__(self) -> None:
        self.reset()
        threading.Thread(target=self._watch, daemon=True).start()

    def reset(self) -> None:
        self.private = self.rss = 0.0
        self.sample()

    def sample(self) -> None:
        # Anonymous pages are the process's own. USS would not do: it counts pages of the cache's file, which the
        # kernel may take back at any time, as private as long as no other process has mapped them, too.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        private, rss = (int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS"))
        self.private, self.rss = max(self.private, private), max(self.rss, rss)

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(0.01):
            self.sample()


def gather_all(films: Films) -> int:
    out = np.empty((_BATCH, *films.images.shape[1:]), np.uint8)
    batches = samplers["uniform"].function(films.targets, _BATCH, np.random.default_rng(0))
    return sum(len(films.pixels(index, out=out[: len(index)])) for index in batches)


def main() -> None:
    cache, peak = Path(sys.argv[1]), Peak()
    before = peak.private
    data = TrainingData.open(cache, pd.read_parquet(cache / "films.parquet"), CHESTXRAY14)
    peak.sample()
    opening = peak.private
    peak.reset()
    films = sum(map(gather_all, (data.train, data.val)))
    peak.sample()
    parts = (data.train, data.val)
    tables = sum(part.table.memory_usage(deep=True).sum() + part.rows.nbytes + part.targets.nbytes for part in parts)
    found = {"films": films, "tables": tables / 2**20, "start": before, "opening": opening}
    print(json.dumps(found | {"epoch": peak.private, "rss": peak.rss}))


if __name__ == "__main__":
    main()
