"""Phrases for rows of a table (\"users older than 30 from Berlin\") and their WHERE clauses."""

from random import Random

import phrasing
import words
from sql_phrases import IMPLIED, NUMBER_COLUMNS, OPERATORS, TABLES, TEXT_COLUMNS


def table(r: Random) -> str:
    """A table: a plural noun, often one never seen before."""
    return (
        r.choice(TABLES)
        if r.random() < 0.6
        else words.plural(r.choice([words.item, words.made_up])(r))
    )


def text_column(r: Random) -> tuple[str, str, str]:
    """A text column: name, spoken form, plural."""
    return _column(r, TEXT_COLUMNS)


def number_column(r: Random) -> tuple[str, str, str]:
    """A number column: name, spoken form, plural."""
    return _column(r, NUMBER_COLUMNS)


def _column(r: Random, pool: dict[str, tuple[str, str]]) -> tuple[str, str, str]:
    if r.random() < 0.15:
        word = words.made_up(r)
        return word, word, word
    name = r.choice(list(pool))
    spoken, many = pool[name]
    return (name, name, name) if "_" in name and r.random() < 0.5 else (name, spoken, many)


def any_column(r: Random) -> tuple[str, str, str]:
    """Any column."""
    return (text_column if r.random() < 0.6 else number_column)(r)


def text_value(r: Random) -> str:
    """A value of a text column, capitalised or not."""
    pools = [
        words.first_name,
        words.city,
        words.made_up,
        lambda r: r.choice(words.COLORS),
        words.item,
        lambda r: r.choice(words.STATUSES),
        words.full_name,
        lambda r: r.choice(words.LANGUAGES),
    ]
    value = r.choice(pools)(r)
    return value.lower() if r.random() < 0.12 else value


def number_value(r: Random) -> str:
    """A value of a number column."""
    return words.price(r) if r.random() < 0.12 else words.number(r)


def quoted(r: Random, value: str) -> str:
    """The value as people write it, sometimes in quotes."""
    return r.choice([value] * 8 + [f"'{value}'", f'"{value}"'])


def literal(value: str) -> str:
    """The value as SQL writes it."""
    return value if value.replace(".", "").isdigit() else f"'{value}'"


def condition(r: Random) -> tuple[str, str]:
    """A restriction on rows: English and SQL."""
    kind = r.random()
    if kind < 0.34:
        return _implied(r)
    if kind < 0.64:
        return _compared(r)
    if kind < 0.86:
        return _equal(r)
    return _between(r) if kind < 0.92 else _like(r)


def _implied(r: Random) -> tuple[str, str]:
    column, operator, pattern = r.choice(IMPLIED)
    person = r.choice([words.first_name, words.full_name])(r)
    values = {
        "v": number_value(r),
        "y": str(r.randint(1900, 2026)),
        "c": words.city(r),
        "n": person,
        "d": r.choice(words.DEPARTMENTS),
        "k": r.choice(words.CATEGORIES),
    }
    if column == "city" and r.random() < 0.1:
        values["c"] = values["c"].lower()
    slot = next(s for s in values if f"<{s}>" in pattern)
    shown = values | {slot: quoted(r, values[slot]) if slot in "cnk" else values[slot]}
    text = phrasing.fill(phrasing.expand(r, pattern), shown)
    return text, f"{column} {operator} {literal(values[slot])}"


def _compared(r: Random) -> tuple[str, str]:
    column, spoken, _ = number_column(r)
    operator = r.choice([">", ">", "<", "<", ">=", "<=", "="])
    value = number_value(r)
    than = OPERATORS[operator]
    pattern = r.choice(
        [
            f"[with|having|that have|which have|who have] [a |an |the |||]<c> [|of ]{than} <v>",
            f"[whose|where|where the] <c> is {than} <v>",
            f"[where|with|if|for which] <c> {operator} <v>",
            f"with <c> {than} <v>",
        ]
    )
    return phrasing.fill(
        phrasing.expand(r, pattern), {"c": spoken, "v": value}
    ), f"{column} {operator} {value}"


def _equal(r: Random) -> tuple[str, str]:
    column, spoken, _ = text_column(r)
    value = text_value(r)
    slots = {"c": spoken, "v": quoted(r, value)}
    if r.random() < 0.18:
        pattern = (
            "[whose|where|where the] <c> is [not|not equal to|other than|different from|"
            "anything but] <v>"
        )
        return phrasing.fill(phrasing.expand(r, pattern), slots), f"{column} != '{value}'"
    pattern = r.choice(
        [
            "[with|having|that have|who have|which have] [the |||]<c> <v>",
            "[whose|where|where the] <c> is <v>",
            "[whose|where|where the|with|with a] <c> [equals|equal to|=|is equal to] <v>",
            "with <v> as [the |||]<c>",
            "[whose|where the|where] <c> is <v>",
        ]
    )
    return phrasing.fill(phrasing.expand(r, pattern), slots), f"{column} = '{value}'"


def _between(r: Random) -> tuple[str, str]:
    low, high = sorted((int(words.number(r)[:4]), int(words.number(r)[:4])))
    if r.random() < 0.3:
        return f"between {low} and {high} years old", f"age BETWEEN {low} AND {high}"
    column, spoken, _ = number_column(r)
    pattern = r.choice(
        [
            "[with|having|that have] [a |the |||]<c> between <a> and <b>",
            "[whose|where|where the] <c> is between <a> and <b>",
            "[with|having] [a |||]<c> from <a> to <b>",
            "with <c> in the range <a> to <b>",
        ]
    )
    text = phrasing.fill(phrasing.expand(r, pattern), {"c": spoken, "a": str(low), "b": str(high)})
    return text, f"{column} BETWEEN {low} AND {high}"


def _like(r: Random) -> tuple[str, str]:
    column, spoken, _ = text_column(r)
    value = r.choice(
        [
            text_value(r),
            r.choice("ABCDEFGHIJKLMNOPRSTVW"),
            r.choice("ABCDEFGHIJKLMNOPRSTVW"),
            words.made_up(r)[:3],
        ]
    )
    slots = {"c": spoken, "v": quoted(r, value)}
    verb, form = r.choice(
        [
            ("[starts|begins] with", f"{value}%"),
            ("ends [with|in]", f"%{value}"),
            ("[contains|includes|has]", f"%{value}%"),
        ]
    )
    gerund = {
        "s": "[starting|beginning] with",
        "e": "ending [with|in]",
        "c": "[containing|including]",
    }
    key = "s" if form[-1] == "%" and form[0] != "%" else "e" if form[-1] != "%" else "c"
    pattern = r.choice(
        [f"[whose|where|where the] <c> {verb} <v>", f"with [a |the |||]<c> {gerund[key]} <v>"]
    )
    return phrasing.fill(phrasing.expand(r, pattern), slots), f"{column} LIKE '{form}'"


def rows(r: Random, chance: float = 0.75) -> tuple[str, str, str]:
    """A row phrase: English, table, WHERE clause (or nothing)."""
    name = table(r)
    noun = r.choice(
        [
            f"{name}",
            f"{name}",
            f"the {name}",
            f"all {name}",
            f"all the {name}",
            f"all of the {name}",
        ]
    )
    if r.random() > chance:
        return noun, name, ""
    if r.random() < 0.12:
        column, value = r.choice(
            [("color", r.choice(words.COLORS)), ("status", r.choice(words.STATUSES))]
        )
        noun = noun[: -len(name)] + f"{value} {name}"
        first = f"{column} = '{value}'"
    else:
        text, first = condition(r)
        noun = f"{noun} {text}"
    if r.random() < 0.22:
        text, second = condition(r)
        joint, word = r.choice(
            [(" and ", "AND"), (" and ", "AND"), (" ", "AND"), (" or ", "OR"), (" but ", "AND")]
        )
        return noun + joint + text, name, f" WHERE {first} {word} {second}"
    return noun, name, f" WHERE {first}"
