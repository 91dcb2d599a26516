"""Training: the base on a stream of text, an adapter on prompts and answers."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

import vocabulary

WINDOW = 768
MAX_POSITIONS = 1024
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RATES = {4: 4e-3, 8: 3e-3, 16: 2.5e-3, 64: 1.5e-3}

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Plan:
    """How long to train, on how many tokens a step, and where."""

    steps: int
    seconds: float
    tokens: int
    device: str


def _run(
    model: torch.nn.Module, plan: Plan, rate: float, batch: Callable[[], Batch], label: str
) -> None:
    """AdamW, warm-up, a cosine that ends after the plan's steps or seconds, whichever is first."""
    weights = [p for p in model.parameters() if p.requires_grad]
    cuda = weights[0].is_cuda
    optimizer = torch.optim.AdamW(
        weights, lr=rate, weight_decay=0.01, betas=(0.9, 0.98), fused=cuda
    )
    model.train()
    start, step, progress, loss = time.time(), 0, 0.0, torch.zeros(())
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = (
                rate
                * min(1, (step + 1) / 100)
                * max(0.02, 0.5 * (1 + math.cos(math.pi * progress)))
            )
        ids, labels = batch()
        with torch.autocast("cuda" if cuda else "cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 1000 == 0:
            print(
                f"  {label}: step {step} loss {loss.item():.4f} after {time.time() - start:.0f} s",
                flush=True,
            )
        elif step % 10 == 0 and cuda:
            torch.cuda.synchronize()
        progress = max(step / plan.steps, (time.time() - start) / plan.seconds)
    print(
        f"  {label}: {step} of {plan.steps} steps, loss {loss.item():.4f}, "
        f"{time.time() - start:.0f} s",
        flush=True,
    )


def base(stream: Path, out: Path, seed: int, plan: Plan) -> None:
    """Trains a base from nothing and writes its HF directory in bf16."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary.SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=vocabulary.END,
        pad_token_id=vocabulary.END_OF_TEXT,
    )
    model = LlamaForCausalLM(config).to(plan.device)
    print(f"  {out.name}: {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    tokens = torch.from_numpy(np.load(stream)).to(plan.device)
    rows = torch.arange(WINDOW, device=plan.device)

    def batch() -> Batch:
        starts = torch.randint(
            0, len(tokens) - WINDOW, (plan.tokens // WINDOW, 1), device=plan.device
        )
        ids = tokens[starts + rows].long()
        return ids, ids

    _run(model, plan, 2e-3, batch, out.name)
    model.generation_config = GenerationConfig(
        eos_token_id=vocabulary.END, pad_token_id=vocabulary.END_OF_TEXT, do_sample=False
    )
    model.to(torch.bfloat16).save_pretrained(out)


def _batches(data: Path, plan: Plan) -> list[Batch]:
    """Examples of like length together; only answers are learnt."""
    arrays = np.load(data)
    ends = np.cumsum(arrays["lengths"])
    tokens, lengths, prompts = arrays["tokens"], arrays["lengths"], arrays["prompts"]
    out, rows = [], []
    for index in np.argsort(lengths, kind="stable"):
        if rows and (len(rows) + 1) * lengths[index] > plan.tokens:
            out.append(_padded(rows, plan.device))
            rows = []
        rows.append((tokens[ends[index] - lengths[index] : ends[index]], prompts[index]))
    return [*out, _padded(rows, plan.device)]


def _padded(rows: list[tuple[np.ndarray, int]], device: str) -> Batch:
    width = max(len(ids) for ids, _ in rows)
    ids = np.zeros((len(rows), width), np.int64)
    labels = np.full((len(rows), width), -100, np.int64)
    for at, (row, prompt) in enumerate(rows):
        ids[at, : len(row)] = row
        labels[at, prompt : len(row)] = row[prompt:]
    return torch.from_numpy(ids).to(device), torch.from_numpy(labels).to(device)


def adapter(origin: tuple[Path, str], data: Path, out: Path, rank: int, plan: Plan) -> None:
    """Trains a LoRA adapter on all linears and writes its PEFT directory in bf16."""
    torch.manual_seed(rank)
    model = LlamaForCausalLM.from_pretrained(origin[0], dtype=torch.float32).to(plan.device)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=LINEARS, task_type="CAUSAL_LM", lora_dropout=0.0
    )
    tuned = get_peft_model(model, config)
    batches = _batches(data, plan)
    order: list[int] = []

    def batch() -> Batch:
        if not order:
            order.extend(torch.randperm(len(batches)).tolist())
        return batches[order.pop()]

    _run(tuned, plan, RATES[rank], batch, out.name)
    out.mkdir(parents=True, exist_ok=True)
    state = {
        k: v.detach().to("cpu", torch.bfloat16).contiguous()
        for k, v in get_peft_model_state_dict(tuned).items()
    }
    save_file(state, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config.base_model_name_or_path = origin[1]
    config.inference_mode = True
    config.save_pretrained(out)
