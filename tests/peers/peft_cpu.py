"""transformers + PEFT on the CPU, measured like `switchyard bench`.

Prints the same JSON fields for the same work: random bf16 weights of a named shape, LoRA adapters
on all seven linears, prompts of 128 tokens. A step's time is that of a run with `--output` tokens
minus that of a run with one, divided by the tokens between; the fastest of `--repeat` runs counts.

    python3 tests/peers/peft_cpu.py --batch 1,8 --adapters none,distinct --threads 2
"""

import argparse
import json
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SHAPES = {
    "tiny": dict(vocab_size=4096, hidden_size=256, intermediate_size=704, num_hidden_layers=4,
                 num_attention_heads=8, num_key_value_heads=4),
    "tinyllama-1.1b": dict(vocab_size=32000, hidden_size=2048, intermediate_size=5632,
                           num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4),
}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def generate(model, prompts, output, adapter_names):
    """Greedy decoding with a KV cache; the seconds that it took."""
    extra = {} if adapter_names is None else {"adapter_names": adapter_names}
    start = time.perf_counter()
    tokens, cache = prompts, None
    for _ in range(output):
        out = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1,
                    **extra)
        tokens, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
    return time.perf_counter() - start


def fill(parameter, noise):
    """Cheap random values of a product's size: speed does not depend on them."""
    flat = parameter.data.view(-1)
    scale = parameter.shape[-1] ** -0.5
    for start in range(0, len(flat), len(noise)):
        part = flat[start:start + len(noise)]
        torch.mul(noise[:len(part)], scale, out=part)


def build(shape, dtype, rank, adapters):
    """A model with that many adapters, each with its own memory."""
    torch.manual_seed(1)
    torch.set_default_dtype(dtype)
    config = LlamaConfig(max_position_embeddings=8192, tie_word_embeddings=False, **SHAPES[shape])
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    model.model.rotary_emb = LlamaRotaryEmbedding(config)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LINEARS)
    for index in range(adapters):
        if index == 0:
            model = get_peft_model(model, lora, adapter_name="a0")
        else:
            model.add_adapter(f"a{index}", lora)
    noise = torch.randn(1 << 20)
    for parameter in model.parameters():
        fill(parameter, noise)
    return model.eval()


def rows(mode, batch):
    """What each row of a batch uses, as PEFT's mixed-batch inference takes it; without it the
    whole batch uses the active adapter, PEFT's faster way."""
    return [f"a{index}" for index in range(batch)] if mode == "distinct" else None


def measure(model, mode, batch, args):
    """The fields of one line of output."""
    prompts = torch.randint(5, SHAPES[args.model]["vocab_size"], (batch, args.prompt))

    def run(output):
        return generate(model, prompts, output, rows(mode, batch))

    run(2)
    prefill = min(run(1) for _ in range(args.repeat))
    total = min(run(args.output) for _ in range(args.repeat))
    step = (total - prefill) / (args.output - 1)
    return {
        "model": args.model, "engine": "peft", "mode": mode, "B": batch,
        "prefill_ms": round(prefill * 1e3, 1), "total_s": round(total, 3),
        "step_ms": round(step * 1e3, 3), "decode_tps": round(batch / step, 1),
        "rank": args.rank, "prompt": args.prompt, "output": args.output,
        "dtype": args.dtype, "threads": args.threads, "isa": "torch",
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tinyllama-1.1b", choices=SHAPES)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--adapters", default="none,one,distinct")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--output", type=int, default=129)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batches = [int(batch) for batch in args.batch.split(",")]
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[args.dtype]
    for mode in args.adapters.split(","):
        adapters = {"none": 0, "one": 1, "distinct": max(batches)}[mode]
        model = build(args.model, dtype, args.rank, adapters)
        for batch in batches:
            with torch.inference_mode():
                print(json.dumps(measure(model, mode, batch, args)), flush=True)
        del model


if __name__ == "__main__":
    main()
