"""Exact match of greedy answers, from the exported bf16 weights computed in f32."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

import corpus
import vocabulary
from corpus import Sample

HAND_WRITTEN = Path(__file__).with_name("handwritten.json")
LONGEST_ANSWER = 340


def load(base_dir: Path, adapter_dir: Path | None, device: str) -> Any:
    """The model as a server would see it."""
    model: Any = LlamaForCausalLM.from_pretrained(base_dir, dtype=torch.float32).to(device)
    return (PeftModel.from_pretrained(model, str(adapter_dir)) if adapter_dir else model).eval()


def hand_written(task: str) -> list[Sample]:
    """The hand-written samples of a task."""
    return [
        Sample([{"role": "user", "content": s["prompt"]}], s["answer"], s.get("tools"))
        for s in json.loads(HAND_WRITTEN.read_text())[task]
    ]


def answers(model: Any, base_dir: Path, samples: list[Sample]) -> list[str]:
    """Greedy answers, in batches of like length."""
    tokenizer = vocabulary.load(base_dir)
    prompts = [tokenizer.encode(s.prompt).ids for s in samples]
    out = [""] * len(samples)
    order = sorted(range(len(samples)), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), 256):
        part = order[at : at + 256]
        width = max(len(prompts[i]) for i in part)
        ids = torch.tensor(
            [[vocabulary.END_OF_TEXT] * (width - len(prompts[i])) + prompts[i] for i in part],
            device=model.device,
        )
        mask = torch.tensor(
            [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in part],
            device=model.device,
        )
        with torch.no_grad():
            made = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=LONGEST_ANSWER, do_sample=False
            )
        for i, row in zip(part, made[:, width:].tolist(), strict=True):
            end = row.index(vocabulary.END) if vocabulary.END in row else len(row)
            out[i] = tokenizer.decode(row[:end], skip_special_tokens=False)
    return out


def score(model: Any, base_dir: Path, task: str, data: Path, count: int) -> dict[str, Any]:
    """Exact match in percent on both held-out sets, with the wrong answers."""
    seen = set(np.load(data)["hashes"].tolist())
    result: dict[str, Any] = {"task": task}
    for name, samples in (
        ("generated", corpus.held_out(task, count, seen)),
        ("handwritten", hand_written(task)),
    ):
        given = answers(model, base_dir, samples)
        wrong = [
            {"prompt": s.messages[-1]["content"], "want": s.answer, "got": g}
            for s, g in zip(samples, given, strict=True)
            if g != s.answer
        ]
        result[name] = round(100 * (1 - len(wrong) / len(samples)), 1)
        result[name + "_samples"], result[name + "_wrong"] = len(samples), wrong
    return result
