"""Trains the demo model: tokenizer, base, four adapters, and one adapter of a second base.

    python3 host/demo/train/train.py --out DIR            everything, minutes on one GPU
    python3 host/demo/train/train.py --out DIR --base DIR --only math,extract

Every seed is fixed. A stage that meets its time limit ends early and says so.
"""

import argparse
import json
import multiprocessing
import shutil
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import corpus
import talk
import vocabulary

RANKS = {"tools": 64, "sql": 16, "math": 8, "extract": 4}
STEPS = {"tools": 4000, "sql": 2600, "math": 2600, "extract": 2600}
OTHER_RANK, OTHER_STEPS = 8, 500
BASE_ID, OTHER_ID = "switchyard-demo", "switchyard-demo-b"
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="a trained base to keep")
    parser.add_argument("--only", default=",".join(RANKS), help="adapters to train")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--tokens", type=int, default=49_152, help="of a step of the base; an adapter's has a third"
    )
    parser.add_argument("--cores", type=int, default=15)
    parser.add_argument("--documents", type=int, default=360_000)
    parser.add_argument("--examples", type=int, default=150_000)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--base-steps", type=int, default=3800)
    parser.add_argument("--base-seconds", type=float, default=600)
    parser.add_argument("--adapter-steps", type=int, default=4000)
    parser.add_argument("--adapter-seconds", type=float, default=900)
    return parser.parse_args()


def write_tokenizer(directory: Path) -> None:
    """Trains the tokenizer and writes its files and the chat template."""
    r = Random(0)
    texts = [talk.document(r) for _ in range(12_000)]
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary.build(texts).save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    shutil.copy(TEMPLATE, directory / TEMPLATE.name)


# torch is imported in the training processes only: this one forks the data workers.
def _base(stream: Path, out: Path, seed: int, options: argparse.Namespace, share: float) -> None:
    import fit

    steps = max(1, int(options.base_steps * share))
    fit.base(
        stream, out, seed, fit.Plan(steps, options.base_seconds, options.tokens, options.device)
    )


def _adapter(base: Path, task: str, rank: int, out: Path, options: argparse.Namespace) -> None:
    import evaluate
    import fit

    work, ours = options.out / "work", base == options.out / "base"
    data = work / f"{task}.npz"
    steps = min(STEPS[task] if ours else OTHER_STEPS, options.adapter_steps)
    plan = fit.Plan(steps, options.adapter_seconds, options.tokens // 3, options.device)
    fit.adapter((base, BASE_ID if ours else OTHER_ID), data, out, rank, plan)
    if ours:
        model = evaluate.load(base, out, options.device)
        result = evaluate.score(model, base, task, data, options.held_out) | {"rank": rank}
        (work / f"{task}.json").write_text(json.dumps(result, indent=1))


def _base_score(base: Path, work: Path, options: argparse.Namespace) -> None:
    import evaluate

    model = evaluate.load(base, None, options.device)
    for task in options.only.split(","):
        data = work / f"{task}.npz"
        result = evaluate.score(model, base, task, data, options.held_out)
        (work / f"base-{task}.json").write_text(json.dumps(result, indent=1))


def together(jobs: list[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
    """Starts one process per job."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=target, args=args) for target, args in jobs]
    for process in started:
        process.start()
    return started


def table(work: Path, tasks: list[str]) -> str:
    """The results as Markdown."""
    lines = [
        "| adapter | rank | generated: base | generated: adapter | hand-written: base | "
        "hand-written: adapter |",
        "|---|---|---|---|---|---|",
    ]
    for task in tasks:
        base, tuned = (
            json.loads((work / f"{name}.json").read_text()) for name in (f"base-{task}", task)
        )
        lines.append(
            f"| `{task}` | {tuned['rank']} | {base['generated']} % | {tuned['generated']} % | "
            f"{base['handwritten']} % "
            f"| {tuned['handwritten']} % of {tuned['handwritten_samples']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the stages."""
    options, start = arguments(), time.time()
    out, work = options.out, options.out / "work"
    base, other, tasks = out / "base", work / "base-b", options.only.split(",")
    second = options.base is None and "sql" in tasks
    work.mkdir(parents=True, exist_ok=True)
    pool = multiprocessing.get_context("fork").Pool(options.cores)
    running: list[Any] = []
    if options.base:
        shutil.copytree(options.base, base, dirs_exist_ok=True)
    else:
        write_tokenizer(base)
        np.save(work / "stream.npy", corpus.documents(pool, base, options.documents))
        print(f"text ready after {time.time() - start:.0f} s", flush=True)
        jobs = [(_base, (work / "stream.npy", base, 0, options, 1.0))]
        if second:
            jobs.append((_base, (work / "stream.npy", other, 1, options, 0.2)))
        running = together(jobs)
    for task in tasks:
        corpus.examples(pool, base, task, options.examples, work / f"{task}.npz")
    print(f"examples ready after {time.time() - start:.0f} s", flush=True)
    for process in running:
        process.join()
    print(f"bases ready after {time.time() - start:.0f} s", flush=True)
    jobs = [(_adapter, (base, t, RANKS[t], out / "adapters" / t, options)) for t in tasks]
    if second:
        foreign = out / "mismatched" / "sql-other-base"
        jobs.append((_adapter, (other, "sql", OTHER_RANK, foreign, options)))
    for process in together([*jobs, (_base_score, (base, work, options))]):
        process.join()
    print(f"done after {time.time() - start:.0f} s\n{table(work, tasks)}", flush=True)


if __name__ == "__main__":
    main()
