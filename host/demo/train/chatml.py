"""The prompt format: ChatML turns, tools in the system turn, calls and results in Hermes form.

`chat_template.jinja` and the host's template plugin produce the same bytes.
"""

import json
from typing import Any

Message = dict[str, Any]


def dumps(value: Any) -> str:
    """JSON as the templates print it."""
    return json.dumps(value, ensure_ascii=False)


def function(
    name: str, parameters: dict[str, Any], description: str | None = None
) -> dict[str, Any]:
    """A tool in OpenAI's form."""
    body: dict[str, Any] = {"name": name}
    if description:
        body["description"] = description
    return {"type": "function", "function": body | {"parameters": parameters}}


def call(name: str, arguments: dict[str, Any]) -> str:
    """One tool call as the model writes it."""
    return "<tool_call>\n" + dumps({"name": name, "arguments": arguments}) + "\n</tool_call>"


def turn(role: str, text: str) -> str:
    """One closed turn."""
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def prompt(messages: list[Message], tools: list[dict[str, Any]] | None = None) -> str:
    """The text before the answer."""
    system = [m["content"] for m in messages[:1] if m["role"] == "system"]
    if tools:
        system.append("# Tools\n<tools>\n" + "\n".join(map(dumps, tools)) + "\n</tools>")
    out = turn("system", "\n\n".join(system)) if system else ""
    for message in messages[1 if messages[0]["role"] == "system" else 0 :]:
        out += _message(message)
    return out + "<|im_start|>assistant\n"


def _message(message: Message) -> str:
    if message["role"] == "tool":
        return turn("user", f"<tool_response>\n{message['content']}\n</tool_response>")
    parts = [message["content"]] if message.get("content") else []
    for item in message.get("tool_calls", []):
        made = item["function"]
        arguments = made["arguments"]
        parts.append(
            call(made["name"], json.loads(arguments) if isinstance(arguments, str) else arguments)
        )
    return turn(message["role"], "\n".join(parts))


def answer(text: str) -> str:
    """The text the model is trained to add."""
    return text + "<|im_end|>\n"
