#!/usr/bin/env python3
"""Device memory of many adapters on one model, beside one merged copy of the model for each.

    kernels/benches/cuda/memory.py SWITCHYARD [--out FOLDER]

Measured: the driver's count of used memory (nvidia-smi) while the adapters run, less what was used
before. Computed: as many whole processes with the same pool for keys and values and no adapters,
each as measured with one. An article on the same idea gives 61,173 MB for three models, 20,431 MB
for three adapters on one, and 97 % saved for fifty.
"""

import subprocess
import threading
import time

from harness import Runs, arguments, number, table

CASES = [("tinyllama-1.1b", 3), ("tinyllama-1.1b", 50), ("llama-3-8b", 50)]
ARTICLE = {3: "61,173 -> 20,431 MB, 67 %", 50: "97 %"}


class Watch:
    """The most device memory that was used while a block ran, in MB."""

    def __enter__(self):
        self.before = self.peak = used() or 0
        self.running = True
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self):
        while self.running:
            self.peak = max(self.peak, used() or 0)
            time.sleep(0.1)

    def __exit__(self, *_):
        self.running = False
        self.thread.join()
        self.mb = self.peak - self.before


def used():
    """MB of the first GPU in use as the driver counts them; nothing where there is no GPU."""
    query = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        # In MiB, whatever the tool calls it.
        return round(int(subprocess.check_output(query, timeout=5)) * 1.048576)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def main():
    runs = Runs(arguments(__doc__).parse_args())
    if used() is None:
        print("nvidia-smi counts no memory here: only bytes of adapters are shown")
    rows = []
    for model, count in CASES:
        base = f"bench {runs.base(model)} --prompt 128 --output 65 --repeat 1"
        measured = {}
        for mode in ("none", "distinct"):
            with Watch() as watch:
                lines = runs.lines(f"memory-{model}-{count}-{mode}",
                                   f"{base} --batch {count} --adapters {mode}")
            measured[mode] = watch.mb
        if not lines:
            continue
        adapters, merged = lines[-1]["distinct_adapter_bytes"] / 1e6, count * measured["none"]
        saved = 1 - measured["distinct"] / merged if merged else None
        rows.append([model, count, number(measured["none"], 0), number(adapters, 0),
                     number(measured["distinct"], 0), number(merged, 0),
                     number(saved and saved * 100, 1), ARTICLE[count]])
    table("Device memory, MB of 10^6 bytes",
          ["model", "adapters (r16)", "base alone", "bytes of adapters", "all on one model",
           "one merged model each", "saved %", "article"], rows)


if __name__ == "__main__":
    main()
