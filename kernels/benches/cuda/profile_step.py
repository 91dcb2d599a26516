#!/usr/bin/env python3
"""Decode steps by stage: microseconds, share of the step, bytes and the rate they are read at.

    kernels/benches/cuda/profile_step.py SWITCHYARD [--out FOLDER]

Stages are timed apart, one operation after the other; in a step of the engine neighbours overlap,
so that the sum here is more than the step of decode.py.
"""

from harness import Runs, arguments, number, table

MODELS = ["llama-3-8b", "tinyllama-1.1b"]
BATCHES = [1, 32, 64, 128]


def stage_rows(lines):
    """One row for each stage, one column for each step."""
    names = list(dict.fromkeys(stage["stage"] for line in lines for stage in line["stages"]))
    for name in names:
        row = [name]
        for line in lines:
            stage = next((s for s in line["stages"] if s["stage"] == name), None)
            if stage is None:
                row.append("-")
                continue
            rate = f", {number(stage['gb_s'], 0)} GB/s" if stage["bytes"] else ""
            row.append(f"{number(stage['us'], 0)} ({number(stage['percent'], 0)} %{rate})")
        yield row
    yield ["sum, ms", *(number(line["sum_ms"], 3) for line in lines)]


def main():
    runs = Runs(arguments(__doc__).parse_args())
    batches = BATCHES[:2] if runs.args.dry else BATCHES
    for model in MODELS:
        words = (f"bench profile {runs.base(model)} --batch {','.join(map(str, batches))}"
                 " --adapters none,one,distinct")
        lines = runs.lines(f"profile-{model}", words)
        for mode in ("none", "one", "distinct"):
            chosen = [line for line in lines if line["mode"] == mode]
            table(f"A decode step of {model}, adapters: {mode} (r16), us (share, rate)",
                  ["stage", *(f"batch {line['B']}" for line in chosen)], stage_rows(chosen))


if __name__ == "__main__":
    main()
