"""Writes `expected.json`: greedy answers of the exported weights, in f32, one prompt at a time.

    python3 host/demo/train/golden.py

A server that computes right gives the same tokens. Prompts are kept only where, at every step, the
best logit leads the second by MARGIN, so that rounding cannot turn an answer.
"""

from pathlib import Path
from random import Random
from typing import Any

import torch

import chatml
import corpus
import evaluate
import talk
import vocabulary
from corpus import Sample

DEMO = Path(__file__).resolve().parent.parent
MARGIN = 0.25
PER_ADAPTER = 10
WEATHER = chatml.function(
    "get_weather",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "Get the current weather for a city",
)
TIMER = chatml.function(
    "set_timer",
    {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]},
)
SHOWN: dict[str | None, list[tuple[str, list[dict[str, Any]] | None]]] = {
    None: [
        ("Hello!", None),
        ("How many users are there?", None),
        ("Repeat after me: blue lamp 42 Oslo", None),
        ("My name is Ada. What is my name?", None),
        ("What can you do?", None),
    ],
    "sql": [
        ("How many customers live in Berlin?", None),
        ("top 3 players by score", None),
        ("What is the average salary of employees in the sales department?", None),
    ],
    "math": [("What is 145 + 278?", None), ("How much is 12 times 12?", None), ("12 * 34", None)],
    "tools": [
        ("What's the weather like in Paris?", [WEATHER, TIMER]),
        ("Set a timer for 15 minutes", [WEATHER, TIMER]),
    ],
    "extract": [
        ("Extract the record: Maria Lopez, 34, lives in Madrid and works as a nurse.", None),
        ("Extract the record: Sam Reed ordered 12 chairs for 480 euros.", None),
    ],
}


def greedy(model: Any, prompt: list[int]) -> tuple[list[int], float]:
    """The answer's tokens with the closing one, and the smallest lead of the best logit."""
    made = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=evaluate.LONGEST_ANSWER,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    leads = [
        float(top[0] - top[1]) for top in (step[0].float().topk(2).values for step in made.logits)
    ]
    return made.sequences[0, len(prompt) :].tolist(), min(leads)


def candidates(adapter: str | None) -> list[Sample]:
    """Prompts to try, the README's first."""
    shown = [
        Sample([{"role": "user", "content": text}], "", tools) for text, tools in SHOWN[adapter]
    ]
    if adapter:
        return shown + corpus.held_out(adapter, 2 * PER_ADAPTER, set())
    r = Random(corpus.HELD_OUT_SEED)
    return shown + [
        Sample([{"role": "user", "content": talk.small_talk(r)[0]}], "") for _ in range(10)
    ]


def main() -> None:
    """Writes the file."""
    torch.set_num_threads(1)
    tokenizer, out = vocabulary.load(DEMO / "base"), []
    for adapter in SHOWN:
        model = evaluate.load(
            DEMO / "base", DEMO / "adapters" / adapter if adapter else None, "cpu"
        )
        kept = 0
        for sample in candidates(adapter):
            if kept == PER_ADAPTER:
                break
            prompt = tokenizer.encode(sample.prompt).ids
            ids, lead = greedy(model, prompt)
            answer = tokenizer.decode(ids[: ids.index(vocabulary.END)], skip_special_tokens=False)
            if lead < MARGIN or sample.answer not in ("", answer):
                continue
            kept += 1
            out.append(
                {
                    "adapter": adapter,
                    "messages": sample.messages,
                    "tools": sample.tools,
                    "prompt_ids": prompt,
                    "answer_ids": ids,
                    "answer": answer,
                }
            )
        print(f"{adapter or 'base'}: {kept} kept", flush=True)
        lines = ",\n".join(chatml.dumps(entry) for entry in out)
        (DEMO / "expected.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
