"""Many wordings from one pattern.

A pattern is text with choices `[show|list|give me]`, which nest, and slots `<name>`. Choices are
drawn before slots are filled, so values may hold any character. The manner (politeness, case, final
mark) is varied on the pattern, never on the values: what has to be copied stays as it is.
"""

import re
from random import Random

import words

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"<(\w+)>")
_SPACED = re.compile(r"(<[^<>]*>|\s+|[^\w<>]+)")

_ASKING = set(
    "what what's which who who's when where why how is are do does can should at in on".split()
)

ORDERS = [
    "{}",
    "{}",
    "{}",
    "{}",
    "{}",
    "please {}",
    "Please {}",
    "{} please",
    "{}, please",
    "can you {}?",
    "Can you {}?",
    "Could you {}?",
    "could you please {}?",
    "Would you {}?",
    "I want you to {}",
    "I need you to {}",
    "Hey, {}",
    "Hi! {}",
    "Hello, {}",
    "Now {}",
    "ok, {}",
    "Ok now {}",
    "Would you mind to {}?",
    "Kindly {}",
    "Help me {}",
    "Can you please {}?",
    "Go ahead and {}",
    "I'd like you to {}",
    "{} for me",
    "{} now",
    "Can u {}?",
    "pls {}",
    "{}, thanks",
    "{} Thank you!",
    "Quick: {}",
    "you should {}",
    "Try to {}",
]
QUESTIONS = [
    "{}",
    "{}",
    "{}",
    "{}",
    "{}",
    "{}",
    "Tell me: {}",
    "Hi, {}",
    "Hey, {}",
    "Hello! {}",
    "please tell me {}",
    "Quick question: {}",
    "So, {}",
    "I'd like to know: {}",
    "Do you know {}",
    "can you tell me {}",
    "Question: {}",
    "{} Thanks!",
    "Could you tell me {}",
    "Ok, {}",
    "And {}",
    "I wonder {}",
    "now, {}",
    "i need to know {}",
]


def expand(r: Random, pattern: str) -> str:
    """Draws every choice of the pattern; slots stay."""
    while "[" in pattern:
        pattern = _CHOICE.sub(lambda m: r.choice(m[1].split("|")), pattern)
    return pattern


def fill(pattern: str, slots: dict[str, str]) -> str:
    """Puts values into slots."""
    return _SLOT.sub(lambda m: slots[m[1]], pattern)


def _finish(r: Random, text: str, mark: str) -> str:
    """Ends and cases a sentence as people do, carelessly at times."""
    text = re.sub(r"\s+", " ", text).strip()
    if text[-1] not in ".?!":
        text += r.choice([mark, mark, mark, "", ".", "?" if mark == "?" else ""])
    if r.random() < 0.15 and text[-1] in ".?!":
        text = text[:-1]
    manner = r.random()
    if manner < 0.65:
        return text[0].upper() + text[1:]
    return "".join(re.split(r"(<\w+>)", text)) if manner < 0.85 else _lower(text)


def _lower(text: str) -> str:
    """Lower case outside slots."""
    parts = re.split(r"(<\w+>)", text)
    return "".join(p if p.startswith("<") else p.lower() for p in parts)


def jitter(r: Random, text: str, chance: float) -> str:
    """Now and then swaps, drops or adds a word outside the slots: no single word is relied on."""
    if r.random() >= chance:
        return text
    parts = _SPACED.split(text)
    for _ in range(r.choice([1, 1, 2])):
        at = r.randrange(len(parts))
        if not parts[at].isalpha():
            continue
        kind = r.random()
        if kind < 0.3:
            parts[at] = words.any_word(r)
        elif kind < 0.5:
            parts[at] = parts[at][:-1] or parts[at]
        elif kind < 0.8:
            parts[at] += " " + words.any_word(r).lower()
        elif len(parts) > 3:
            parts[at] = ""
    return re.sub(r"  +", " ", "".join(parts))


def order(r: Random, pattern: str, slots: dict[str, str]) -> str:
    """An imperative ("list the users"), with or without courtesies."""
    text = expand(r, pattern)
    frame = r.choice(ORDERS) if r.random() < 0.75 else "{}"
    return fill(_finish(r, _join(frame, text), "."), slots)


def question(r: Random, pattern: str, slots: dict[str, str]) -> str:
    """A question ("how many users are there"), with or without an opening."""
    text = expand(r, pattern)
    frame = r.choice(QUESTIONS) if r.random() < 0.6 else "{}"
    return fill(_finish(r, _join(frame, text), "?"), slots)


def plain(r: Random, pattern: str, slots: dict[str, str]) -> str:
    """A sentence as it stands, its mark by its first word."""
    text = expand(r, pattern)
    asks = text.rsplit(". ", 1)[-1].split()[0].lower() in _ASKING
    return fill(_finish(r, text, "?" if asks else "."), slots)


def _join(frame: str, text: str) -> str:
    body = text
    if frame.endswith((" Thanks!", " Thank you!")) and body[-1] not in ".?!":
        body += "?" if "Thanks" in frame else "."
    return frame.format(body)
