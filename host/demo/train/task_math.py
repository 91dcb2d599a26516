"""Arithmetic on paper: the sum restated, one line per column, then the answer."""

from random import Random

import phrasing
import words

PLACES = ["ones", "tens", "hundreds", "thousands", "ten thousands"]
ASKS = [
    "what is <x>",
    "what's <x>",
    "what does <x> equal",
    "what do you get for <x>",
    "how much is <x>",
    "<x>",
    "<x>",
    "<x>",
    "<x> =",
    "<x> = ?",
    "[compute|calculate|solve|work out|evaluate|do|find] <x>",
    "[compute|calculate|solve|work out|evaluate] <x> [step by step|and show the steps|with "
    "steps|on paper]",
    "what is the [result|value|answer] of <x>",
    "tell me <x>",
    "tell me what <x> is",
    "give me the [result|value|answer] of <x>",
    "can you do <x>",
    "I need <x>",
    "what would <x> be",
    "what will <x> be",
    "<x> is what",
    "<x> equals",
    "<x> makes",
    "what number is <x>",
    "the answer to <x>",
    "show me how to [do|compute|calculate] <x>",
    "how do I [do|compute|calculate] <x>",
    "explain <x>",
    "show the steps for <x>",
]
NAMED = {
    "+": [
        "what is the sum of <a> and <b>",
        "add <a> and <b>",
        "add <b> to <a>",
        "add up <a> and <b>",
        "the sum of <a> and <b>",
        "sum <a> and <b>",
        "what do <a> and <b> add up to",
        "what is the total of <a> and <b>",
        "what is <b> more than <a>",
        "what do you get when you add <a> and <b>",
        "increase <a> by <b>",
        "what is <a> increased by <b>",
        "how much do <a> and <b> make",
        "put <a> and <b> together",
    ],
    "-": [
        "subtract <b> from <a>",
        "take <b> from <a>",
        "take <b> away from <a>",
        "what is the difference [between|of] <a> and <b>",
        "what is <a> take away <b>",
        "the difference between <a> and <b>",
        "what is <b> less than <a>",
        "decrease <a> by <b>",
        "what is <a> reduced by <b>",
        "reduce <a> by <b>",
        "what is left if you take <b> from <a>",
        "what remains of <a> after removing <b>",
        "deduct <b> from <a>",
    ],
    "*": [
        "multiply <a> by <b>",
        "multiply <a> and <b>",
        "multiply <a> with <b>",
        "what is the product of <a> and <b>",
        "the product of <a> and <b>",
        "what is <a> multiplied by <b>",
        "what do you get when you multiply <a> by <b>",
    ],
    "/": [
        "divide <a> by <b>",
        "what is <a> divided by <b>",
        "what is the quotient of <a> and <b>",
        "how many times does <b> fit into <a>",
        "how often does <b> go into <a>",
        "split <a> into <b> equal parts",
        "what do you get when you divide <a> by <b>",
        "share <a> among <b>",
    ],
}
STORIES = {
    "+": [
        "<n> has <a> <i> and [buys|gets|finds|receives] <b> more. How many <i> does <n> have "
        "[now|in total]?",
        "There are <a> <i> in one box and <b> in another. How many are there [in total|"
        "altogether|together]?",
        "<n> has <a> <i> and <m> has <b> <i>. How many do they have [together|in total|"
        "altogether]?",
        "I have <a> <i> and get <b> more. How many do I have?",
        "If I buy <a> <i> and then <b> more <i>, how many do I have?",
        "<n> [walked|drove|ran] <a> km on <d> and <b> km the next day. How far [is that in "
        "total|did <n> go]?",
    ],
    "-": [
        "<n> has <a> <i> and [gives away|loses|sells|eats] <b>. How many are left?",
        "I had <a> <i> and [lost|sold|gave away] <b>. How many do I have left?",
        "There were <a> <i> and <b> were [sold|taken|lost|stolen]. How many remain?",
        "<n> has <a> <i> and gives <b> [of them |]to <m>. How many <i> does <n> have left?",
        "If I have <a> <i> and sell <b>, how many are left?",
        "<n> had <a> dollars and spent <b>. How much is left?",
    ],
    "*": [
        "There are <a> boxes with <b> <i> each. How many <i> are there [in total|altogether|]?",
        "<n> buys <a> <i> at <b> dollars each. How much [is that|does <n> pay|do they cost]?",
        "Each of <a> <i> costs <b> dollars. What is the total [price|cost]?",
        "One box holds <b> <i>. How many <i> are in <a> boxes?",
        "<n> earns <a> dollars a day. How much is that in <b> days?",
    ],
    "/": [
        "<n> shares <a> <i> among <b> friends. How many does each get?",
        "<a> <i> are packed into <b> boxes equally. How many are in each box?",
        "If <b> people share <a> <i> equally, how many does each person get?",
        "<a> <i> are divided among <b> children. How many does each child get?",
    ],
}
SIGNS = {
    "+": ["<a> + <b>", "<a> + <b>", "<a>+<b>", "<a> plus <b>"],
    "-": ["<a> - <b>", "<a> - <b>", "<a>-<b>", "<a> minus <b>"],
    "*": [
        "<a> * <b>",
        "<a>*<b>",
        "<a> x <b>",
        "<a> times <b>",
        "<a> × <b>",
        "<a> multiplied by <b>",
        "<a>x<b>",
    ],
    "/": ["<a> / <b>", "<a>/<b>", "<a> divided by <b>", "<a> ÷ <b>", "<a> over <b>", "<a> : <b>"],
}


def operands(r: Random) -> tuple[str, int, int]:
    """An operation and its two numbers."""
    sign = r.choices("+-*/", (36, 30, 22, 12))[0]
    if sign in "+-":
        a, b = _number(r), _number(r)
        return (sign, max(a, b), min(a, b)) if sign == "-" and r.random() < 0.75 else (sign, a, b)
    if sign == "/":
        b = r.randint(2, 9)
        return sign, b * r.randint(1, 999 // b) if r.random() < 0.5 else r.randint(1, 999), b
    if r.random() < 0.45:
        return sign, r.randint(2, 99), r.randint(10, 99)
    a, b = _number(r), r.randint(0, 10)
    return (sign, a, b) if r.random() < 0.7 else (sign, b, a)


def _number(r: Random) -> int:
    return r.choice(
        [
            r.randint(0, 9),
            r.randint(0, 20),
            r.randint(10, 99),
            r.randint(10, 99),
            r.randint(100, 999),
            r.randint(100, 999),
        ]
    )


def _columns(a: int, b: int) -> list[tuple[str, int, int]]:
    left, right = str(a)[::-1], str(b)[::-1]
    width = max(len(left), len(right))
    pad = [
        (int(x), int(y))
        for x, y in zip(left.ljust(width, "0"), right.ljust(width, "0"), strict=True)
    ]
    return [(PLACES[i], x, y) for i, (x, y) in enumerate(pad)]


def added(a: int, b: int) -> list[str]:
    """The lines of a sum."""
    carry, lines = 0, []
    for place, x, y in _columns(a, b):
        total = x + y + carry
        lines.append(
            f"{place}: {x} + {y} + {carry} = {total}, write {total % 10}, carry {total // 10}"
        )
        carry = total // 10
    return lines


def subtracted(a: int, b: int) -> list[str]:
    """The lines of a difference, a >= b."""
    borrow, lines = 0, []
    for place, x, y in _columns(a, b):
        rest = x - y - borrow
        lines.append(
            f"{place}: {x} - {y} - {borrow} = {rest}, write {rest % 10}, borrow {int(rest < 0)}"
        )
        borrow = int(rest < 0)
    return lines


def multiplied(a: int, digit: int) -> list[str]:
    """The lines of a product with one digit."""
    carry, lines = 0, []
    for place, x in zip(PLACES, map(int, str(a)[::-1]), strict=False):
        total = x * digit + carry
        lines.append(
            f"{place}: {x} * {digit} + {carry} = {total}, write {total % 10}, carry {total // 10}"
        )
        carry = total // 10
    return lines


def divided(a: int, b: int) -> list[str]:
    """The lines of a division by one digit."""
    rest, lines = 0, []
    for x in map(int, str(a)):
        whole = rest * 10 + x
        lines.append(f"{whole} / {b} = {whole // b}, rest {whole % b}")
        rest = whole % b
    return lines


def worked(sign: str, a: int, b: int) -> str:
    """The whole answer."""
    if sign == "+":
        lines = [f"{a} + {b}", *added(a, b), f"Answer: {a + b}"]
    elif sign == "-":
        big, small = max(a, b), min(a, b)
        swap = [] if a >= b else [f"= -({b} - {a})"]
        lines = [f"{a} - {b}", *swap, *subtracted(big, small), f"Answer: {a - b}"]
    elif sign == "/":
        rest = f" remainder {a % b}" if a % b else ""
        lines = [f"{a} / {b}", *divided(a, b), f"Answer: {a // b}{rest}"]
    else:
        lines = [f"{a} * {b}", *_product(a, b), f"Answer: {a * b}"]
    return "\n".join(lines)


def _product(a: int, b: int) -> list[str]:
    if len(str(b)) > len(str(a)):
        a, b = b, a
    if b < 10:
        return multiplied(a, b)
    ones, tens = b % 10, b // 10
    lines = [f"{a} * {ones}", *multiplied(a, ones), f"= {a * ones}"]
    lines += [f"{a} * {tens}", *multiplied(a, tens), f"= {a * tens}, with a zero {a * tens * 10}"]
    return lines + [f"{a * tens * 10} + {a * ones}", *added(a * tens * 10, a * ones)]


def _shown(r: Random, value: int) -> str:
    return words.SMALL_NUMBERS[value] if value <= 20 and r.random() < 0.08 else str(value)


def example(r: Random) -> tuple[str, str]:
    """A question and its worked answer."""
    sign, a, b = operands(r)
    slots = {"a": _shown(r, a), "b": _shown(r, b)}
    kind = r.random()
    if kind < 0.55:
        expression = phrasing.fill(r.choice(SIGNS[sign]), slots)
        question = r.choice([phrasing.question, phrasing.plain])(
            r, r.choice(ASKS), {"x": expression}
        )
    elif kind < 0.85 or (sign == "-" and a < b):
        pattern = r.choice(NAMED[sign])
        pick = (
            phrasing.order
            if pattern.split()[0]
            in (
                "add",
                "sum",
                "subtract",
                "take",
                "multiply",
                "divide",
                "increase",
                "decrease",
                "reduce",
                "deduct",
                "split",
                "share",
                "put",
            )
            else phrasing.question
        )
        question = pick(r, pattern, slots)
    else:
        two = r.sample(words.FIRST, 2)
        slots |= {
            "n": two[0],
            "m": two[1],
            "i": words.plural(words.item(r)),
            "d": r.choice(words.DAYS),
        }
        question = phrasing.plain(r, r.choice(STORIES[sign]), slots)
    return question, worked(sign, a, b)


def fact(r: Random) -> str:
    """One line of a worked answer, or two: plain arithmetic for the base's text."""
    a, b = r.randint(0, 999), r.randint(0, 999)
    lines = r.choice(
        [
            added(a, b),
            subtracted(max(a, b), min(a, b)),
            multiplied(a, b % 10),
            divided(a, b % 9 + 1),
        ]
    )
    return r.choice(lines)
