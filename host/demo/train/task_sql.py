"""Questions about tables and the SQL that answers them.

Tables and columns are taken from the question's own words, so any noun works as a table. A query is
put together from a row phrase ("users older than 30 from Berlin") and what is asked of those rows.
"""

from random import Random

import phrasing
import words
from sql_phrases import AGGREGATES, SUPERLATIVES, VERB
from sql_rows import (
    any_column,
    literal,
    number_column,
    number_value,
    quoted,
    rows,
    table,
    text_column,
    text_value,
)


def _select(r: Random) -> tuple[str, str]:
    text, name, where = rows(r)
    kind = r.random()
    if kind < 0.45:
        pattern = r.choice(
            [
                f"{VERB} {text}",
                f"{VERB} {text}",
                f"[which|what] {text.removeprefix('all ').removeprefix('the ')} [are there|do "
                f"we have|exist]",
                f"what are {text}",
                text,
                f"who are {text}",
                f"are there [any |]{text.removeprefix('all ').removeprefix('the ')}",
                f"[show|give me|get] [everything about|all the data of|all columns of|every "
                f"column of|all information about|all fields of|the records of] {text}",
            ]
        )
        return _say(r, pattern), f"SELECT * FROM {name}{where};"
    picked = [any_column(r) for _ in range(r.choice([1, 1, 1, 2, 2, 3]))]
    many = r.random() < 0.35
    spoken = [c[2] if many else c[1] for c in picked]
    listed = (
        " and ".join(spoken)
        if len(spoken) < 3
        else ", ".join(spoken[:-1]) + r.choice([" and ", ", and "]) + spoken[-1]
    )
    if r.random() < 0.1:
        listed = ", ".join(spoken)
    pattern = r.choice(
        [
            f"{VERB} [the |||]{listed} [of|for|from] {text}",
            f"[what is|what are] the {listed} of {text}",
            f"[the |]{listed} of {text}",
            f"{VERB} [only |just |]the {listed} of {text}",
        ]
    )
    return _say(r, pattern), f"SELECT {', '.join(c[0] for c in picked)} FROM {name}{where};"


def _count(r: Random) -> tuple[str, str]:
    text, name, where = rows(r)
    bare = text.removeprefix("all of ").removeprefix("all ").removeprefix("the ")
    pattern = r.choice(
        [
            f"how many {bare} [are there|do we have|exist|are in the table|are there in total|"
            f"do you have||]",
            f"how many {bare}",
            f"count {text}",
            f"[what is|what's] the [number|count|total number] of {bare}",
            f"number of {bare}",
            f"[count|tell me] how many {bare} [there are|we have|exist]",
            f"{VERB} the [number|count|total number] of {bare}",
            f"how many of the {bare} are there",
        ]
    )
    return _say(r, pattern), f"SELECT COUNT(*) FROM {name}{where};"


def _aggregate(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.4)
    column, spoken, _ = number_column(r)
    function = r.choice(list(AGGREGATES))
    word = phrasing.expand(r, AGGREGATES[function])
    pattern = r.choice(
        [
            f"[what is|what's] the {word} {spoken} of {text}",
            f"{VERB} the {word} {spoken} of {text}",
            f"{word} {spoken} [of|for|from] {text}",
            f"[calculate|compute|find|work out|determine] the {word} {spoken} [of|for|over|"
            f"across] {text}",
            f"what {word} {spoken} do {text} have",
            f"what is the {word} {spoken} [among|for|across] {text}",
        ]
    )
    if function == "AVG" and r.random() < 0.1:
        pattern = f"what is the {spoken} of {text} on average"
    return _say(r, pattern), f"SELECT {function}({column}) FROM {name}{where};"


def _top(r: Random) -> tuple[str, str]:
    count = r.randint(1, 20) if r.random() < 0.7 else r.randint(21, 100)
    shown = words.SMALL_NUMBERS[count] if 1 < count <= 20 and r.random() < 0.35 else str(count)
    text, name, where = rows(r, 0.2)
    text = text.removeprefix("all of ").removeprefix("all ").removeprefix("the ")
    column, spoken, _ = number_column(r)
    way = r.choice(["DESC", "ASC"])
    if r.random() < 0.35:
        column, way, word = r.choice(SUPERLATIVES)
        single = r.random() < 0.4
        pattern = (
            r.choice(
                [
                    f"[which is|what is|show|find|give me|show me|get] the {word} one of the "
                    f"{name}",
                    f"{VERB} the one {word} of all {name}",
                ]
            )
            if single
            else r.choice(
                [
                    f"{VERB} the {shown} {word} {text}",
                    f"[what|which|who] are the {shown} {word} {text}",
                    f"the {shown} {word} {text}",
                    f"{shown} {word} {text}",
                ]
            )
        )
        return (
            _say(r, pattern),
            f"SELECT * FROM {name}{'' if single else where} ORDER BY {column} {way} LIMIT "
            f"{1 if single else count};",
        )
    if r.random() < 0.12:
        pattern = r.choice(
            [
                f"{VERB} the first {shown} {text}",
                f"{VERB} [only |]{shown} {text}",
                f"the first {shown} {text}",
                f"{VERB} any {shown} {text}",
            ]
        )
        return _say(r, pattern), f"SELECT * FROM {name}{where} LIMIT {count};"
    most = (
        "[highest|largest|biggest|greatest|most]"
        if way == "DESC"
        else "[lowest|smallest|least|fewest]"
    )
    end = "top" if way == "DESC" else "bottom"
    pattern = r.choice(
        [
            f"{VERB} the {end} {shown} {text} by {spoken}",
            f"[what|which|who] are the {end} {shown} {text} by {spoken}",
            f"{VERB} the {shown} {text} with the {most} {spoken}",
            f"{end} {shown} {text} [by|in terms of|according to] {spoken}",
            f"[which|what] {shown} {text} have the {most} {spoken}",
            f"the {shown} {text} with the {most} {spoken}",
        ]
    )
    return _say(r, pattern), f"SELECT * FROM {name}{where} ORDER BY {column} {way} LIMIT {count};"


def _one(r: Random) -> tuple[str, str]:
    name = table(r)
    noun = _singular(name)
    if r.random() < 0.5:
        column, way, word = r.choice(SUPERLATIVES)
        pattern = r.choice(
            [
                f"[which|what|who] is the {word} {noun}",
                f"{VERB} the {word} {noun}",
                f"the {word} {noun}",
                f"what {noun} is the {word}",
            ]
        )
    else:
        column, spoken, _ = number_column(r)
        way = r.choice(["DESC", "ASC"])
        most = (
            "[highest|largest|biggest|greatest|most]"
            if way == "DESC"
            else "[lowest|smallest|least]"
        )
        pattern = r.choice(
            [
                f"which {noun} has the {most} {spoken}",
                f"{VERB} the {noun} with the {most} {spoken}",
                f"who is the {noun} with the {most} {spoken}",
                f"what {noun} has the {most} {spoken}",
                f"the {noun} with the {most} {spoken}",
            ]
        )
    return _say(r, pattern), f"SELECT * FROM {name} ORDER BY {column} {way} LIMIT 1;"


def _singular(name: str) -> str:
    irregular = {
        "people": "person",
        "companies": "company",
        "cities": "city",
        "countries": "country",
        "categories": "category",
        "movies": "movie",
        "buses": "bus",
        "houses": "house",
        "sales": "sale",
        "courses": "course",
        "invoices": "invoice",
    }
    if name in irregular:
        return irregular[name]
    if name.endswith(("ches", "shes", "xes", "sses")):
        return name[:-2]
    return name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s")


def _sorted(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.3)
    column, spoken, _ = any_column(r)
    way = r.choice(["DESC", "ASC"])
    words_ = {
        "DESC": "[descending|in descending order|from high to low|highest first|largest first|"
        "desc|from highest to lowest|in reverse order|starting with the highest]",
        "ASC": "[|||||ascending|in ascending order|from low to high|lowest first|smallest "
        "first|asc|from lowest to highest|alphabetically]",
    }
    pattern = r.choice(
        [
            f"{VERB} {text} [sorted|ordered|arranged|ranked] by {spoken} {words_[way]}",
            f"[sort|order|rank|arrange] {text} by {spoken} {words_[way]}",
            f"{text} [sorted|ordered|in order] by {spoken} {words_[way]}",
            f"{VERB} {text} in [order of|the order of] {spoken} {words_[way]}",
        ]
    )
    return _say(r, pattern), f"SELECT * FROM {name}{where} ORDER BY {column} {way};"


def _grouped(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.2)
    text = text.removeprefix("all of ").removeprefix("all ").removeprefix("the ")
    column, spoken, _ = text_column(r)
    per = "[per|for each|for every|by|in each|in every|grouped by|broken down by]"
    if r.random() < 0.5:
        pattern = r.choice(
            [
                f"how many {text} [are there|do we have||] {per} {spoken}",
                f"[count|count the] {text} {per} {spoken}",
                f"[number|count] of {text} {per} {spoken}",
                f"{VERB} the [number|count] of {text} {per} {spoken}",
                f"[for each|for every|per] {spoken}, how many {text} are there",
                f"group {text} by {spoken} and count them",
            ]
        )
        return _say(r, pattern), f"SELECT {column}, COUNT(*) FROM {name}{where} GROUP BY {column};"
    number, said, _ = number_column(r)
    function = r.choice(list(AGGREGATES))
    word = phrasing.expand(r, AGGREGATES[function])
    pattern = r.choice(
        [
            f"[what is|what's] the {word} {said} of {text} {per} {spoken}",
            f"{VERB} the {word} {said} of {text} {per} {spoken}",
            f"{word} {said} of {text} {per} {spoken}",
            f"[for each|for every|per] {spoken}, [what is|show|give] the {word} {said} of {text}",
        ]
    )
    return _say(
        r, pattern
    ), f"SELECT {column}, {function}({number}) FROM {name}{where} GROUP BY {column};"


def _distinct(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.25)
    column, spoken, many = text_column(r)
    pattern = r.choice(
        [
            f"{VERB} [the |all |all the |]{_different(r)} {many} of {text}",
            f"[what|which] {_different(r)} {many} do {text} have",
            f"[what|which] {_different(r)} {many} are there [in|among|for] {text}",
            f"{_different(r)} {many} of {text}",
            f"{VERB} the {many} of {text} without [duplicates|repetition|repeats]",
            f"{VERB} every {_different(r)} {spoken} of {text}",
        ]
    )
    return _say(r, pattern), f"SELECT DISTINCT {column} FROM {name}{where};"


def _different(r: Random) -> str:
    return r.choice(["different", "distinct", "unique", "distinct", "unique"])


def _delete(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.95)
    return _say(
        r, f"[delete|remove|erase|drop|get rid of|throw out|delete|remove] {text}"
    ), f"DELETE FROM {name}{where};"


def _update(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.95)
    if r.random() < 0.5:
        (column, spoken, _), value = text_column(r), text_value(r)
    else:
        (column, spoken, _), value = number_column(r), number_value(r)
    pattern = (
        f"[set|change|update|switch|set|change] the {spoken} [of|for] {text} to {quoted(r, value)}"
    )
    return _say(r, pattern), f"UPDATE {name} SET {column} = {literal(value)}{where};"


def _say(r: Random, pattern: str) -> str:
    """Words the pattern as an order or a question, whichever it is; values stay untouched."""
    first = phrasing.expand(r, pattern)
    if first.split()[0] in {"what", "which", "how", "who", "what's", "are"}:
        return (
            phrasing.question(r, "<q>", {"q": first})
            if r.random() < 0.2
            else _cased(r, first, "?", phrasing.QUESTIONS)
        )
    verbs = phrasing.expand(r, "[x]") and {
        "show",
        "list",
        "give",
        "get",
        "find",
        "return",
        "display",
        "fetch",
        "select",
        "retrieve",
        "print",
        "look",
        "pull",
        "see",
        "count",
        "sort",
        "order",
        "rank",
        "arrange",
        "delete",
        "remove",
        "erase",
        "drop",
        "throw",
        "set",
        "change",
        "update",
        "switch",
        "calculate",
        "compute",
        "work",
        "determine",
        "tell",
        "group",
    }
    frames = (
        phrasing.ORDERS
        if first.split()[0] in verbs
        else ["{}", "{}", "{}", "{} please", "I need {}", "I want {}", "Query: {}", "We need {}"]
    )
    return _cased(r, first, ".", frames)


def _cased(r: Random, text: str, mark: str, frames: list[str]) -> str:
    framed = r.choice(frames) if r.random() < 0.7 else "{}"
    out = framed.format(text)
    if out[-1] not in ".?!":
        out += r.choice([mark, mark, mark, "", "", "."])
    return out[0].upper() + out[1:] if r.random() < 0.7 else out


_KINDS = (
    [_select] * 9
    + [_count] * 4
    + [_aggregate] * 4
    + [_top] * 3
    + [_one] * 2
    + [_sorted] * 2
    + [_grouped] * 3
    + [_distinct, _delete, _update]
)


def example(r: Random) -> tuple[str, str]:
    """A question and its SQL."""
    question, query = r.choice(_KINDS)(r)
    return " ".join(question.split()), query
