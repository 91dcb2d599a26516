#!/usr/bin/env python3
"""Decode steps and prefill beside vLLM 0.23 and our goals, and what adapters add to a step.

    kernels/benches/cuda/decode.py SWITCHYARD [--out FOLDER]

vLLM's figures are of one H200, bf16, 128 + 129 tokens, rank 16 on all seven linears.
"""

from harness import Runs, arguments, number, table

# (batch, mode): vLLM ms, must, stretch. A goal with an x is a ratio to our own step without
# adapters at the same batch.
STEPS = {
    "llama-3-8b": {
        (1, "none"): (4.84, "4.2", "3.9"),
        (32, "none"): (5.40, "4.9", "4.4"),
        (64, "none"): (5.99, "5.2", "4.8"),
        (128, "none"): (7.05, "6.1", "5.5"),
        (64, "unused"): (9.11, "x1.00", "x1.00"),
        (64, "one"): (9.53, "x1.05", "x1.02"),
        (32, "distinct"): (19.6, "5.7", "5.2"),
        (64, "distinct"): (32.9, "6.8", "6.2"),
    },
    "tinyllama-1.1b": {
        (1, "none"): (1.34, "0.85", "0.70"),
        (32, "none"): (1.79, "1.05", "0.85"),
        (128, "none"): (2.99, "1.4", "1.2"),
        (1, "one"): (3.55, "1.1", "0.78"),
        (32, "distinct"): (7.67, "1.4", "1.1"),
        (128, "distinct"): (14.9, "2.4", "1.9"),
    },
}
# (batch, mode): vLLM ms, our goal.
PREFILLS = {
    (64, "none"): (193, "193"),
    (128, "none"): (381, "381"),
    (64, "one"): (366, "-"),
    (64, "distinct"): (425, "x1.10"),
}


def verdict(line, must, stretch):
    """Which goal a step reaches."""
    def reached(goal):
        if goal.startswith("x"):
            return line.get("step_ratio", 9) <= float(goal[1:]) + 0.005
        return line["step_ms"] <= float(goal)
    return "stretch" if reached(stretch) else "must" if reached(must) else "NO"


def step_rows(model, lines):
    """Rows of the table of steps; those without a goal come along."""
    for key in sorted(set(lines) | set(STEPS[model]), key=lambda key: (key[1] != "none", key)):
        line, (vllm, must, stretch) = lines.get(key), STEPS[model].get(key, (None, "-", "-"))
        if line is None:
            yield [*key, number(vllm), "-", must, stretch, "not measured", "-", "-"]
            continue
        judged = "-" if must == "-" else verdict(line, must, stretch)
        yield [*key, number(vllm), number(line["byte_floor_ms"]), must, stretch,
               number(line["step_ms"], 3), number(line["efficiency"]), judged]


def increment_rows(lines):
    """Rows of what distinct adapters add, against the time of their bytes."""
    for line in lines:
        if line["mode"] in ("one", "distinct") and "increment_ms" in line:
            yield [line["model"], line["B"], line["mode"], line["rank"],
                   number(line["step_ratio"], 3), number(line["increment_ms"], 3),
                   number(line["adapter_bytes_ms"], 3), number(line["increment_ratio"])]


def main():
    runs = Runs(arguments(__doc__).parse_args())
    sizes = "--prompt 16 --output 5 --repeat 1" if runs.args.dry else "--repeat 3"
    batches = "1,32,64" if runs.args.dry else "1,32,64,128"
    everything, models = [], list(STEPS)

    def measure(model, ranks, words):
        for line in runs.lines(f"{model}-{ranks}", f"bench {runs.base(model)} {sizes} {words}"):
            everything.append(line | {"model": model})

    for model in models:
        measure(model, "r16", f"--batch {batches} --adapters none,unused,one,distinct")
    for model in models:
        measure(model, "mixed",
                f"--batch {batches[2:]} --adapters none,distinct --rank mixed")
    for model in models:
        lines = {(line["B"], line["mode"]): line for line in everything
                 if line["model"] == model and line["rank"] == 16}
        table(f"Decode steps of {model}, ms",
              ["batch", "adapters", "vLLM", "floor", "must", "stretch", "ours", "eff.", "reached"],
              step_rows(model, lines))
    eights = {(line["B"], line["mode"]): line for line in everything
              if line["model"] == "llama-3-8b" and line["rank"] == 16}
    table("Prefill of llama-3-8b, 128 tokens each, ms",
          ["batch", "adapters", "vLLM", "goal", "ours", "x of none"],
          [[*key, vllm, goal, number(eights[key]["prefill_ms"], 1),
            number(eights[key].get("prefill_ratio"), 3)]
           for key, (vllm, goal) in PREFILLS.items() if key in eights])
    table("What adapters add to a step (goals: one <= 1.05 of none, distinct <= 1.3 x bytes)",
          ["model", "batch", "adapters", "rank", "x of none", "added ms", "bytes ms", "x bytes"],
          increment_rows(everything))


if __name__ == "__main__":
    main()
