#!/usr/bin/env python3
"""Many registered adapters by Zipf(1.0) beside vLLM 0.23, and pools that hold a part of them.

    kernels/benches/cuda/many.py SWITCHYARD [--out FOLDER]

96 sequences side by side, 128 + 128 tokens, all requests of a pass submitted at once; vLLM's
figures are of one H200 and rank 16. A cold pass draws each adapter's bytes when it is first asked
for, in place of a file.
"""

from harness import Runs, arguments, number, table

# (model, registered, pass): vLLM output tokens/s, our goal.
GOALS = {
    ("tinyllama-1.1b", 5, "cold"): (17_400, None),
    ("tinyllama-1.1b", 5, "warm"): (18_700, 45_000),
    ("tinyllama-1.1b", 1000, "cold"): (3_810, 35_000),
    ("tinyllama-1.1b", 1000, "warm"): (4_840, 35_000),
    ("llama-3-8b", 5, "cold"): (6_390, None),
    ("llama-3-8b", 5, "warm"): (7_100, 11_000),
    ("llama-3-8b", 200, "cold"): (2_080, 9_000),
    ("llama-3-8b", 200, "warm"): (2_690, 9_000),
}
# Model, registered, requests, rank, percent that fits, in the order of interest.
RUNS = [
    ("tinyllama-1.1b", 1000, 768, 16, 100),
    ("llama-3-8b", 200, 384, 16, 100),
    ("llama-3-8b", 2000, 768, 8, 100),
    ("tinyllama-1.1b", 1000, 768, 16, 25),
    ("llama-3-8b", 200, 384, 16, 25),
    ("tinyllama-1.1b", 1000, 768, "mixed", 25),
    ("tinyllama-1.1b", 1000, 768, 16, 50),
    ("llama-3-8b", 200, 384, 16, 50),
]


def throughput_row(run, line):
    """Tokens/s beside vLLM's and the goal, and what the bytes explain."""
    model, _, _, rank, fits = run
    key = (model, line["registered"], line["pass"])
    vllm, goal = GOALS.get(key, (None, None)) if rank == 16 else (None, None)
    reached = "-" if goal is None else "yes" if line["tok_s"] >= goal else "NO"
    return [model, line["registered"], f"r{rank}", f"{fits} %", line["pass"], number(vllm, 0),
            number(goal, 0), number(line["tok_s"], 0), reached, number(line["req_s"], 1),
            number(line["efficiency"]), number(line.get("against_few"))]


def pressure_row(run, line):
    """Waiting, hits and fairness."""
    model, _, _, rank, fits = run
    return [model, line["registered"], f"r{rank}", f"{fits} %", line["pass"], line["distinct"],
            number(line["ttft_p50_ms"], 0), number(line["ttft_p99_ms"], 0),
            number(line["ttft_max_over_median"]), number(line["pool_hit_rate"], 3),
            number(line["host_hit_rate"], 3), line["adapter_loads"], line["host_loads"],
            number(line["host_load_ms"], 1), line["preemptions"], line["failed"]]


def series_rows(run, line):
    """Slabs by owner at a few times of a pass."""
    model, _, _, rank, fits = run
    points = line["slabs"]
    for at in sorted({0, len(points) // 4, len(points) // 2, 3 * len(points) // 4,
                      len(points) - 1}):
        yield [model, line["registered"], f"r{rank}", f"{fits} %", line["pass"], *points[at]]


def main():
    runs = Runs(arguments(__doc__).parse_args())
    lines = []
    for run in RUNS[:3] if runs.args.dry else RUNS:
        model, registered, requests, rank, fits = run
        if runs.args.dry:
            registered, requests = registered // 20, 60
        words = (f"bench many {runs.base(model)} --registered {registered} --requests {requests}"
                 f" --rank {rank} --fits {fits} --host-memory 48GiB")
        words += " --prompt 8 --output 4" if runs.args.dry else ""
        name = f"many-{model}-{registered}-r{rank}-{fits}"
        lines += [(run, line) for line in runs.lines(name, words)]
    title = ["model", "registered", "rank", "fits", "pass"]
    of_many = [(run, line) for run, line in lines if "against_few" in line]
    table("Slabs by owner over a pass", [*title, "ms", "KV", "adapters", "free"],
          [row for run, line in of_many for row in series_rows(run, line)])
    table("Waiting and hits (TTFT in ms; loads into the pool and from the source)",
          [*title, "distinct", "TTFT p50", "p99", "max / median", "pool hits", "host hits",
           "loads", "drawn", "ms each", "preempted", "failed"],
          [pressure_row(run, line) for run, line in lines])
    table("Output tokens/s; efficiency is of the byte floor of all steps, `x few` the time of 5"
          " adapters plus the further bytes over the time taken (goal >= 0.8)",
          [*title, "vLLM", "goal", "ours", "reached", "req/s", "eff.", "x few"],
          [throughput_row(run, line) for run, line in lines])


if __name__ == "__main__":
    main()
