"""A checkpoint of a named shape with random bf16 weights in shards, to measure loading with.

    python3 tests/cuda/checkpoint.py llama-3-8b /tmp/llama-3-8b

Needs numpy. The tokenizer is the demo's: speed does not depend on what tokens say.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy

DEMO = Path(__file__).parents[2] / "host/demo/base"
SHARD_BYTES = 5 << 30
BLOCK_BYTES = 64 << 20
SHAPES = {
    "tiny": dict(vocab_size=4096, hidden_size=256, intermediate_size=704, num_hidden_layers=4,
                 num_attention_heads=8, num_key_value_heads=4, rope_theta=10000.0),
    "tinyllama-1.1b": dict(vocab_size=32000, hidden_size=2048, intermediate_size=5632,
                           num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
                           rope_theta=10000.0),
    "llama-3-8b": dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336,
                       num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
                       rope_theta=500000.0),
}


def tensors(shape: dict) -> dict[str, list[int]]:
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    kv = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    vocabulary = [shape["vocab_size"], hidden]
    found = {"model.embed_tokens.weight": vocabulary}
    for layer in range(shape["num_hidden_layers"]):
        linears = {
            "input_layernorm": [hidden], "self_attn.q_proj": [hidden, hidden],
            "self_attn.k_proj": [kv, hidden], "self_attn.v_proj": [kv, hidden],
            "self_attn.o_proj": [hidden, hidden], "post_attention_layernorm": [hidden],
            "mlp.gate_proj": [inner, hidden], "mlp.up_proj": [inner, hidden],
            "mlp.down_proj": [hidden, inner],
        }
        found |= {f"model.layers.{layer}.{name}.weight": dims for name, dims in linears.items()}
    return found | {"model.norm.weight": [hidden], "lm_head.weight": vocabulary}


def noise(rng: numpy.random.Generator, rms: float) -> memoryview:
    """bf16 of random sign and mantissa under one exponent."""
    bits = rng.integers(0, 1 << 16, BLOCK_BYTES // 2, dtype=numpy.uint16) & 0x807F
    exponent = 127 + round(float(numpy.log2(rms / 1.53)))
    return memoryview(bits | numpy.uint16(exponent << 7)).cast("B")


def write_shard(path: Path, entries: dict[str, list[int]], blocks: dict[str, memoryview]) -> None:
    header, end = {}, 0
    for name, dims in entries.items():
        start, end = end, end + 2 * int(numpy.prod(dims))
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            block = blocks["norm" if "norm" in name else "linear"]
            for done in range(0, end - start, BLOCK_BYTES):
                file.write(block[:end - start - done])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    args.folder.mkdir(parents=True, exist_ok=True)
    rng = numpy.random.default_rng(1)
    blocks = {"norm": noise(rng, 1.0), "linear": noise(rng, shape["hidden_size"] ** -0.5)}
    shards, size = [{}], 0
    for name, dims in tensors(shape).items():
        size += 2 * int(numpy.prod(dims))
        if size > SHARD_BYTES * len(shards):
            shards.append({})
        shards[-1][name] = dims
    weight_map = {}
    for number, entries in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(args.folder / file, entries, blocks)
        weight_map |= dict.fromkeys(entries, file)
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (args.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
              "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
              "torch_dtype": "bfloat16", **shape}
    (args.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                 "generation_config.json"]:
        shutil.copy(DEMO / name, args.folder / name)
    print(f"{args.folder}: {size / 1e9:.2f} GB in {len(shards)} shards")


if __name__ == "__main__":
    main()
