"""Runs the carried binary under one budget of seconds and lays its JSON lines out as tables."""

import argparse
import json
import pathlib
import subprocess
import time


def arguments(purpose):
    """What every script takes; `--dry` is the script itself on a processor, in seconds."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("binary", type=pathlib.Path, help="switchyard, as cargo build made it")
    parser.add_argument("--out", type=pathlib.Path, default="bench-results", help="lines and logs")
    parser.add_argument("--budget", type=float, default=540, help="seconds for the whole script")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dry", action="store_true", help="the tiny shape on the processor")
    return parser


class Runs:
    """Runs of one script, one after the other; what does not fit the budget is cut off."""

    def __init__(self, args):
        self.args = args
        self.deadline = time.monotonic() + args.budget
        args.out.mkdir(parents=True, exist_ok=True)

    def lines(self, name, words):
        """The JSON lines of `switchyard WORDS`, those before a failure too."""
        left = self.deadline - time.monotonic()
        if left < 1:
            print(f"{name}: skipped, the budget is spent", flush=True)
            return []
        out, log = self.args.out / f"{name}.jsonl", self.args.out / f"{name}.log"
        command = [self.args.binary, *words.split()]
        start = time.monotonic()
        with out.open("w") as stdout, log.open("w") as stderr:
            try:
                status = subprocess.run(command, stdout=stdout, stderr=stderr, timeout=left)
                how = "" if status.returncode == 0 else f", exit {status.returncode}"
            except subprocess.TimeoutExpired:
                how = ", cut off"
        print(f"{name}: {time.monotonic() - start:.0f} s{how}", flush=True)
        if how:
            print("  " + "\n  ".join(log.read_text().splitlines()[-5:]), flush=True)
        return [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")]

    def base(self, model):
        """Flags for a model on the device, kernels compiled once for all runs."""
        if self.args.dry:
            return "--model tiny --device cpu"
        cache = self.args.out / "kernels"
        return f"--model {model} --device {self.args.device} --kernel-cache {cache}"


def number(value, digits=2):
    """A number of a table; nothing where nothing was measured."""
    return "-" if value is None else f"{value:,.{digits}f}"


def table(title, header, rows):
    """Prints a Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")
