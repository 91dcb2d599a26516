"""What transformers makes of conversations under chat templates of the common families."""

import datetime
import json
from pathlib import Path

from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
TODAY = datetime.datetime(2026, 11, 22)
# Template to the literals of BOS and EOS.
TEMPLATES = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama2": ("<s>", "</s>"),
    "chatml": ("<|endoftext|>", "<|im_end|>"),
    "hermes": ("<|endoftext|>", "<|im_end|>"),
    "qwen3": ("<|endoftext|>", "<|im_end|>"),
    "mistral": ("<s>", "</s>"),
    "zephyr": ("<s>", "</s>"),
    "gemma": ("<|begin_of_text|>", "<end_of_turn>"),
    "python": ("<s>", "</s>"),
}


class Today(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return TODAY


def message(plain: dict) -> dict:
    """The form that templates see, from the form of conversations.json."""
    out = {"role": plain["role"], "content": plain.get("content", "")}
    calls = plain.get("tool_calls", [])
    if calls and not out["content"]:
        out["content"] = None
    for key in ("name", "reasoning"):
        if key in plain:
            out["reasoning_content" if key == "reasoning" else key] = plain[key]
    if calls:
        out["tool_calls"] = [
            {"id": call["id"], "type": "function",
             "function": {"name": call["name"], "arguments": json.loads(call["arguments"])}}
            for call in calls
        ]
    if "tool_call_id" in plain:
        out["tool_call_id"] = plain["tool_call_id"]
    return out


def tool(plain: dict) -> dict:
    function = {"name": plain["name"]}
    if "description" in plain:
        function["description"] = plain["description"]
    function["parameters"] = plain["schema"]
    return {"type": "function", "function": function}


def main() -> None:
    chat_template_utils.datetime = Today
    conversations = json.loads((HERE / "conversations.json").read_text(encoding="utf-8"))
    expected = []
    for name, (bos, eos) in TEMPLATES.items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(HERE / "tokenizers/byte_level/tokenizer.json"),
            bos_token=bos, eos_token=eos,
        )
        tokenizer.chat_template = (HERE / f"templates/{name}.jinja").read_text(encoding="utf-8")
        for conversation in conversations:
            messages = [message(plain) for plain in conversation["messages"]]
            tools = [tool(plain) for plain in conversation.get("tools", [])] or None
            case = {"template": name, "bos": bos, "eos": eos, "conversation": conversation["name"]}
            settings = {"tools": tools, **conversation.get("kwargs", {}),
                        "add_generation_prompt": conversation["add_generation_prompt"]}
            try:
                case["text"] = tokenizer.apply_chat_template(messages, tokenize=False, **settings)
                ids = tokenizer.apply_chat_template(messages, tokenize=True, **settings)
                case["ids"] = ids if isinstance(ids, list) else ids["input_ids"]
            except Exception as error:  # noqa: BLE001: a template may refuse a conversation
                case["error"] = str(error)
            expected.append(case)
    text = "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in expected) + "\n]\n"
    (HERE / "templates/expected.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
