"""Generated training data as token arrays, made by all cores, with the hashes of its prompts."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import chatml
import talk
import vocabulary

CHUNK = 500
HELD_OUT_SEED = 10**9 + 7
SEEDS = {"base": 1, "sql": 2, "math": 3, "tools": 4, "extract": 5}


@dataclass
class Sample:
    """One prompt of a held-out set with the one right answer."""

    messages: list[dict[str, Any]]
    answer: str
    tools: list[dict[str, Any]] | None = None

    @property
    def prompt(self) -> str:
        """The rendered prompt."""
        return chatml.prompt(self.messages, self.tools)


def digest(prompt: str) -> int:
    """A 63-bit name of a prompt."""
    return int.from_bytes(hashlib.blake2b(prompt.encode(), digest_size=8).digest()) >> 1


def _documents(job: tuple[int, str]) -> list[list[int]]:
    seed, directory = job
    r, tokenizer = Random(seed), vocabulary.load(Path(directory))
    texts = [talk.document(r) for _ in range(CHUNK)]
    return [[*e.ids, vocabulary.END_OF_TEXT] for e in tokenizer.encode_batch(texts)]


def _examples(job: tuple[int, str, str]) -> list[tuple[list[int], int, int]]:
    seed, task, directory = job
    r, tokenizer = Random(seed), vocabulary.load(Path(directory))
    out = []
    for _ in range(CHUNK):
        if r.random() < 0.03:
            question, answer = talk.small_talk(r)
            messages, tools = [{"role": "user", "content": question}], None
        else:
            messages, answer, tools = talk.task_messages(r, task)
        prompt = chatml.prompt(messages, tools)
        ids = tokenizer.encode(prompt).ids
        out.append((ids + tokenizer.encode(chatml.answer(answer)).ids, len(ids), digest(prompt)))
    return out


def _spread(pool: Pool, work: Callable[[Any], list[Any]], jobs: list[Any]) -> list[Any]:
    return [x for part in pool.imap(work, jobs) for x in part]


def documents(pool: Pool, directory: Path, count: int) -> np.ndarray:
    """The base's text as one stream of tokens."""
    jobs = [(SEEDS["base"] * 10**6 + i, str(directory)) for i in range(count // CHUNK)]
    return np.concatenate([np.array(d, np.int16) for d in _spread(pool, _documents, jobs)])


def examples(pool: Pool, directory: Path, task: str, count: int, path: Path) -> None:
    """Writes the examples of a task: tokens, their lengths, the prompts' lengths and hashes."""
    jobs = [(SEEDS[task] * 10**6 + i, task, str(directory)) for i in range(count // CHUNK)]
    made = _spread(pool, _examples, jobs)
    np.savez(
        path,
        tokens=np.concatenate([np.array(m[0], np.int16) for m in made]),
        lengths=np.array([len(m[0]) for m in made]),
        prompts=np.array([m[1] for m in made]),
        hashes=np.array([m[2] for m in made]),
    )


def held_out(task: str, count: int, seen: set[int]) -> list[Sample]:
    """Generated samples whose prompts are not among the seen ones, each prompt once."""
    r, out, taken = Random(HELD_OUT_SEED + SEEDS[task]), [], set(seen)
    while len(out) < count:
        messages, answer, tools = talk.task_messages(r, task)
        sample = Sample(messages, answer, tools)
        name = digest(sample.prompt)
        if name not in taken:
            taken.add(name)
            out.append(sample)
    return out
