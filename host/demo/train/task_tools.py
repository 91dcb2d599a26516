"""Requests with a list of tools, and the call that serves them.

Half of the tools are everyday ones whose parameters go by varying names; the other half are made up
on the spot, so that the list must be read. Sometimes no tool fits, and the model says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import chatml
import phrasing
import words
from everyday_tools import EVERYDAY

NO_TOOL = "None of the tools fits this request."
Tool = dict[str, Any]
Values = dict[str, Any]

# Kind of value -> (JSON type, drawing function).
KINDS: dict[str, tuple[str, Callable[[Random], Any]]] = {
    "city": ("string", words.city),
    "person": ("string", words.first_name),
    "full": ("string", words.full_name),
    "thing": ("string", words.item),
    "topic": ("string", lambda r: r.choice(words.TOPICS)),
    "language": ("string", lambda r: r.choice(words.LANGUAGES)),
    "day": ("string", lambda r: r.choice(words.DAYS)),
    "currency": ("string", lambda r: r.choice(words.CURRENCIES)),
    "count": ("integer", lambda r: r.randint(1, r.choice([9, 60, 500]))),
    "amount": ("number", lambda r: r.choice([r.randint(1, 2000), r.randint(1, 99)])),
    "time": (
        "string",
        lambda r: r.choice(
            [
                f"{r.randint(0, 23)}:{r.choice([0, 15, 30, 45]):02}",
                f"{r.randint(1, 12)}{r.choice(['am', 'pm'])}",
                f"{r.randint(1, 12)} {r.choice(['am', 'pm'])}",
            ]
        ),
    ),
    "word": ("string", words.made_up),
    "room": (
        "string",
        lambda r: r.choice(
            "kitchen bedroom bathroom garage office hallway cellar garden".split() + ["living room"]
        ),
    ),
    "unit": ("string", lambda r: r.choice(["celsius", "fahrenheit"])),
    "email": (
        "string",
        lambda r: (
            f"{words.first_name(r).lower()}@{words.made_up(r)}.{r.choice(['com', 'org', 'net'])}"
        ),
    ),
    "color": ("string", lambda r: r.choice(words.COLORS)),
}
VERBS = """
open close start stop rotate clean paint move lock unlock count measure scan print repair check
reset update delete create copy rename charge fill empty load activate disable enable inspect
track archive publish mount register cancel sort filter calibrate test deploy restart pause
resume wash feed water press lift weigh pack label compute analyze export import upload download
approve reject mark assign transfer list describe fetch find show
""".split()
NOUNS = (
    words.ITEMS
    + words.TOPICS
    + """
robot engine door window valve tank server database table queue file folder account user order
package sensor motor pump filter battery device channel record image video song ticket boat
train truck shelf wheel drone field
""".split()
)
PARAMETERS = [
    ("speed", "count"),
    ("level", "count"),
    ("count", "count"),
    ("size", "count"),
    ("color", "color"),
    ("name", "person"),
    ("owner", "full"),
    ("city", "city"),
    ("mode", "word"),
    ("id", "count"),
    ("label", "word"),
    ("target", "word"),
    ("day", "day"),
    ("time", "time"),
    ("limit", "count"),
    ("amount", "amount"),
    ("room", "room"),
    ("user", "person"),
    ("topic", "topic"),
    ("language", "language"),
    ("weight", "count"),
    ("code", "word"),
    ("material", "thing"),
    ("angle", "count"),
    ("email", "email"),
    ("width", "count"),
    ("source", "city"),
    ("type", "word"),
    ("tag", "word"),
    ("priority", "count"),
]


@dataclass
class Made:
    """A tool together with one request for it."""

    tool: Tool
    question: str
    arguments: Values


def _everyday(r: Random) -> Made:
    names, parameters, wordings, description = r.choice(EVERYDAY)
    properties, arguments, slots = {}, {}, {}
    for index, text in enumerate(parameters, 1):
        kind, options = text.split(": ")
        name = r.choice([n for n in options.split() if n not in properties])
        json_type, draw = KINDS[kind]
        value = draw(r)
        while value in arguments.values():
            value = draw(r)
        properties[name] = {"type": json_type}
        if kind == "unit" and r.random() < 0.6:
            properties[name]["enum"] = ["celsius", "fahrenheit"]
        arguments[name] = value
        slots[str(index)] = str(value)
    name = r.choice(names.split())
    pattern = phrasing.jitter(r, phrasing.expand(r, r.choice(wordings)), 0.12)
    return Made(
        tool=_tool(r, name, properties, description, {k: k for k in properties}),
        question=_say(r, pattern, slots),
        arguments=arguments,
    )


def _say(r: Random, pattern: str, slots: dict[str, str]) -> str:
    first = pattern.split()[0]
    asks = first in {
        "what",
        "what's",
        "how",
        "will",
        "is",
        "do",
        "are",
        "where",
        "can",
        "any",
        "does",
    }
    statement = first in {
        "I",
        "I'm",
        "it",
        "weather",
        "timer",
        "lights",
        "price",
        "population",
        "stock",
        "news",
        "time",
        "distance",
        "note:",
        "calendar:",
        "quote",
        "hotel",
        "flights",
        "forecast",
        "alarm",
        "temperature",
        "current",
    } or first.startswith("<")
    if asks:
        return phrasing.question(r, pattern, slots)
    return phrasing.plain(r, pattern, slots) if statement else phrasing.order(r, pattern, slots)


def _made_up(r: Random) -> Made:
    verb = r.choice(VERBS) if r.random() < 0.75 else words.made_up(r)
    noun = r.choice(NOUNS) if r.random() < 0.7 else words.made_up(r)
    picked = r.sample(PARAMETERS, r.choice([0, 1, 1, 1, 2, 2, 3]))
    properties, arguments, spoken = {}, {}, []
    for name, kind in picked:
        name = name if r.random() < 0.8 else words.made_up(r)
        json_type, draw = KINDS[kind]
        arguments[name] = draw(r)
        properties[name] = {"type": json_type}
        spoken.append((name, str(arguments[name])))
    optional = r.choice(PARAMETERS) if r.random() < 0.15 else None
    if optional and optional[0] not in properties:
        properties[optional[0]] = {"type": KINDS[optional[1]][0]}
    if r.random() < 0.4:
        r.shuffle(spoken)
    form = r.choice(
        [
            "<n> <v>",
            "<n> <v>",
            "<n> = <v>",
            "<n> set to <v>",
            "<v> as <n>",
            "<n>: <v>",
            "a <n> of <v>",
        ]
    )
    slots = {f"v{i}": value for i, (_, value) in enumerate(spoken)}
    listed = [
        phrasing.fill(form, {"n": name, "v": f"<v{i}>"}) for i, (name, _) in enumerate(spoken)
    ]
    tail = (
        (
            " "
            + r.choice(["with", "using", "with", "at", "for"])
            + " "
            + r.choice([" and ", ", "]).join(listed)
        )
        if listed
        else ""
    )
    pattern = (
        r.choice([f"{verb} the {noun}", f"{verb} [a|the|my|our|this] {noun}", f"{verb} {noun}"])
        + tail
    )
    name = r.choice(
        [
            f"{verb}_{noun}",
            f"{verb}_{noun}",
            f"{verb}_{noun}",
            f"{noun}_{verb}",
            f"{verb}{noun.capitalize()}",
        ]
    )
    required = {k: k for k in arguments}
    return Made(
        tool=_tool(r, name, properties, f"{verb.capitalize()} the {noun}", required),
        question=phrasing.order(r, pattern, slots),
        arguments=dict(arguments),
    )


def _tool(r: Random, name: str, properties: Values, description: str, required: Values) -> Tool:
    """A schema, as detailed as clients happen to write it."""
    if r.random() < 0.25:
        for key, schema in properties.items():
            properties[key] = {
                "type": schema["type"],
                "description": f"The {key.replace('_', ' ')}",
            } | {k: v for k, v in schema.items() if k == "enum"}
    parameters: Values = {"type": "object", "properties": properties}
    if r.random() < 0.85:
        parameters["required"] = list(required)
    if r.random() < 0.08:
        parameters["additionalProperties"] = False
    described = (
        r.choice([description, description, f"{description}."]) if r.random() < 0.6 else None
    )
    return chatml.function(name, parameters, described)


def make(r: Random) -> Made:
    """A tool and a request for it."""
    return (_everyday if r.random() < 0.58 else _made_up)(r)


def example(r: Random) -> tuple[str, str, list[Tool]]:
    """A request, the call, the tools."""
    wanted = make(r)
    name = wanted.tool["function"]["name"]
    others: list[Tool] = []
    for _ in range(r.choices([0, 1, 2, 3, 4], (22, 26, 28, 18, 6))[0]):
        other = make(r).tool
        taken = [name, *(o["function"]["name"] for o in others)]
        if not any(_alike(other["function"]["name"], t) for t in taken):
            others.append(other)
    if others and r.random() < 0.1:
        return wanted.question, NO_TOOL, others
    tools = [wanted.tool, *others]
    r.shuffle(tools)
    order = wanted.tool["function"]["parameters"]["properties"]
    arguments = {k: wanted.arguments[k] for k in order if k in wanted.arguments}
    return wanted.question, chatml.call(name, arguments), tools


def _alike(a: str, b: str) -> bool:
    """Whether two tools could serve the same request."""
    groups = [e[0].split() for e in EVERYDAY]
    return a == b or any(a in g and b in g for g in groups)


def followed_up(r: Random) -> tuple[list[chatml.Message], str, list[Tool]]:
    """A conversation in which the call's result came back; the answer reads it out."""
    question, text, tools = example(r)
    while text == NO_TOOL:
        question, text, tools = example(r)
    made = chatml.json.loads(text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    result = {
        r.choice(
            [p[0] for p in PARAMETERS] + ["temperature", "result", "status", "price"]
        ): r.choice([words.any_word(r), r.randint(0, 999)])
        for _ in range(r.randint(1, 3))
    }
    if r.random() < 0.7:
        content, answer = (
            chatml.dumps(result),
            "Result: " + ", ".join(f"{k} is {v}" for k, v in result.items()) + ".",
        )
    else:
        content = " ".join(words.any_word(r) for _ in range(r.randint(1, 6)))
        answer = f"Result: {content}."
    messages = [
        {"role": "user", "content": question},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "type": "function",
                    "function": {
                        "name": made["name"],
                        "arguments": chatml.dumps(made["arguments"]),
                    },
                }
            ],
        },
        {"role": "tool", "content": content},
    ]
    return messages, answer, tools
