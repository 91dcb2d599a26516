"""What PyTorch computes with the golden models and adapters: expected.{json,safetensors}."""

import json
from contextlib import contextmanager
from unittest.mock import patch

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch.nn import functional
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from make_models import ADAPTERS, BASE, HERE, LORAS, MODELS, SEED, VARIANTS

PROMPT_TOKENS, NEW_TOKENS = 37, 24
# Around the borders of pages of 16, and the last.
POSITIONS = [0, 7, 15, 16, PROMPT_TOKENS - 1]


def load(name: str, adapter: str | None, dtype: torch.dtype) -> torch.nn.Module:
    """Weights in `dtype`, as transformers and peft bring them there."""
    model = LlamaForCausalLM.from_pretrained(
        MODELS / name, dtype=dtype, attn_implementation="eager")
    if adapter:
        model = PeftModel.from_pretrained(model, ADAPTERS / adapter, autocast_adapter_dtype=True)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
    return model.eval()


@contextmanager
def float64():
    """Takes transformers' own casts to float32 away."""

    def norm(self, x):
        square = x.pow(2).mean(-1, keepdim=True)
        return self.weight * x * torch.rsqrt(square + self.variance_epsilon)

    def rotary(self, x, position_ids):
        angles = position_ids[..., None].double() * self.inv_freq.double()
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling

    softmax = functional.softmax
    with (patch.object(LlamaRMSNorm, "forward", norm),
          patch.object(LlamaRotaryEmbedding, "forward", rotary),
          patch.object(functional, "softmax", lambda x, dim, dtype: softmax(x, dim=dim))):
        yield


@torch.no_grad()
def logits(model: torch.nn.Module, prompt: list[int]) -> torch.Tensor:
    return model(torch.tensor([prompt])).logits[0, POSITIONS].contiguous()


@torch.no_grad()
def answer(model: torch.nn.Module, prompt: list[int]) -> dict:
    """A greedy answer with its top-2 margins."""
    tokens, margins = list(prompt), []
    for _ in range(NEW_TOKENS):
        best = model(torch.tensor([tokens])).logits[0, -1].topk(2)
        margins.append((best.values[0] - best.values[1]).item())
        tokens.append(best.indices[0].item())
    return {"greedy": tokens[PROMPT_TOKENS:], "margins": margins}


def main() -> None:
    cases, expected = [], {}
    for i, (name, adapter) in enumerate([(m, None) for m in VARIANTS]
                                        + [("base-f32", a) for a in LORAS]):
        generator = torch.Generator().manual_seed(SEED + i)
        drawn = torch.randint(0, BASE["vocab_size"], (PROMPT_TOKENS,), generator=generator)
        prompt = drawn.tolist()
        key = f"{name}+{adapter}" if adapter else name
        with float64():
            exact = logits(load(name, adapter, torch.float32).double(), prompt)
        assert exact.dtype == torch.float64
        expected[key] = exact.float()
        for half, dtype in {"bf16": torch.bfloat16, "f16": torch.float16}.items():
            found = logits(load(name, adapter, dtype), prompt)
            error = (found.double() - exact).norm() / exact.norm()
            print(f"{key} in {half}: {error:.2e}")
            expected[f"{key}.{half}"] = found
        cases.append({"key": key, "model": name, "adapter": adapter, "prompt": prompt,
                      "positions": POSITIONS, **answer(load(name, adapter, torch.float32), prompt)})
    (HERE / "expected.json").write_text(json.dumps(cases) + "\n")
    save_file(expected, HERE / "expected.safetensors")


if __name__ == "__main__":
    main()
