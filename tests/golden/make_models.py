"""Tiny seeded Llama checkpoints, and LoRA adapters for one of them."""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
MODELS, ADAPTERS = HERE / "models", HERE / "adapters"
SEED = 20261122
BASE = {
    "vocab_size": 352, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "bos_token_id": 320, "eos_token_id": 321,
    "initializer_range": 0.15,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}
VARIANTS = {
    "base-f32": ({}, torch.float32),
    "tied-bf16": ({"tie_word_embeddings": True, "num_hidden_layers": 3}, torch.bfloat16),
    "head-dim-f16": ({"head_dim": 32, "num_key_value_heads": 1}, torch.float16),
    "rope-linear-bf16": (
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        torch.bfloat16,
    ),
    "rope-llama3-f16": ({"rope_parameters": LLAMA3, "tie_word_embeddings": True}, torch.float16),
    "biases-bf16": ({"attention_bias": True, "mlp_bias": True}, torch.bfloat16),
    "sharded-bf16": ({"num_key_value_heads": 4}, torch.bfloat16),
}
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORAS = {
    "r3": ({"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]}, torch.float32),
    "r8": ({"r": 8, "lora_alpha": 16, "target_modules": ALL}, torch.float32),
    "r24": ({"r": 24, "lora_alpha": 24, "target_modules": "all-linear"}, torch.float16),
    "r64": ({"r": 64, "lora_alpha": 32, "target_modules": ALL}, torch.bfloat16),
    "patterns": (
        {
            "r": 8, "lora_alpha": 8, "target_modules": r".*\.(q_proj|o_proj|up_proj)",
            "rank_pattern": {r"layers\.1\.self_attn\.q_proj": 12, "up_proj": 5},
            "alpha_pattern": {"model.layers.0.mlp.up_proj": 40, "q_proj": 20},
        },
        torch.float32,
    ),
    "rslora": (
        {"r": 16, "lora_alpha": 8, "use_rslora": True, "target_modules": ["k_proj", "down_proj"]},
        torch.float32,
    ),
    "one-layer": (
        {
            "r": 4, "lora_alpha": 8, "target_modules": ["gate_proj", "o_proj"],
            "layers_to_transform": [1],
        },
        torch.float32,
    ),
}


def save_model(name: str, changes: dict, dtype: torch.dtype) -> None:
    torch.manual_seed(SEED)
    config = LlamaConfig(**{**BASE, **changes})
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(".bias") or "norm" in key:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    size = "90KB" if name.startswith("sharded") else "5GB"
    model.to(dtype).save_pretrained(MODELS / name, max_shard_size=size)
    if name == "rope-linear-bf16":
        # The form that releases before transformers 5 wrote.
        path = MODELS / name / "config.json"
        old = json.loads(path.read_text())
        scaling = old.pop("rope_parameters")
        old["rope_theta"] = scaling.pop("rope_theta")
        old["rope_scaling"] = {"type": scaling["rope_type"], "factor": scaling["factor"]}
        path.write_text(json.dumps(old, indent=2) + "\n")


def save_adapter(name: str, settings: dict, dtype: torch.dtype) -> None:
    torch.manual_seed(SEED + len(name))
    model = LlamaForCausalLM.from_pretrained(MODELS / "base-f32", dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.copy_(torch.randn_like(parameter) * 0.05)
    model.peft_config["default"].base_model_name_or_path = "golden/base-f32"
    model.save_pretrained(ADAPTERS / name)
    (ADAPTERS / name / "README.md").unlink(missing_ok=True)
    path = ADAPTERS / name / "adapter_model.safetensors"
    save_file({key: value.to(dtype).contiguous() for key, value in load_file(path).items()}, path,
              metadata={"format": "pt"})


def main() -> None:
    for folder in (MODELS, ADAPTERS):
        shutil.rmtree(folder, ignore_errors=True)
    for name, (changes, dtype) in VARIANTS.items():
        save_model(name, changes, dtype)
    for name, (settings, dtype) in LORAS.items():
        save_adapter(name, settings, dtype)


if __name__ == "__main__":
    main()
