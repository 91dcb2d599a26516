"""Questions about tables and the SQL that answers them.

Tables and columns are taken from the question's own words, so any noun works as a table. A query is
put together from a row phrase ("users older than 30 from Berlin") and what is asked of those rows.
"""

from random import Random

import phrasing
import words

# Column -> (spoken form, plural of the spoken form).
TEXT_COLUMNS = {c: (c.replace("_", " "), words.plural(c.replace("_", " "))) for c in (
    "name city country email color status department category title author brand owner manager phone address type "
    "language genre first_name last_name job_title supplier state region model username destination team").split()}
NUMBER_COLUMNS = {c: (c.replace("_", " "), words.plural(c.replace("_", " "))) for c in (
    "age price salary year total amount quantity stock rating score height weight pages distance duration id points "
    "level discount population budget revenue cost order_id customer_id unit_price size bonus views").split()}
TABLES = """users customers orders products employees books flights students teachers cars movies songs invoices
payments companies hotels rooms courses patients doctors cities countries suppliers items sales accounts members
authors articles posts comments tickets events projects tasks teams players games bookings reservations shipments
vehicles drivers stores shops restaurants animals devices messages categories departments managers clients people
friends workers houses apartments loans""".split()

VERB = "[show|list|give|get|find|return|display|fetch|select|retrieve|show me|give me|get me|find me|print|look up|pull up|see]"
OPERATORS = {
    ">": "[above|over|greater than|more than|higher than|larger than|bigger than|exceeding|>]",
    "<": "[below|under|less than|lower than|smaller than|fewer than|<]",
    ">=": "[at least|>=|greater than or equal to|no less than|not below|not less than]",
    "<=": "[at most|<=|less than or equal to|no more than|up to|not above|not more than]",
    "=": "[equal to|=|exactly|exactly]",
}
# Phrases that imply their column: column, operator, pattern.
IMPLIED = [
    ("age", ">", "[older than|aged over|above the age of|over the age of|who are over|who are older than|that are older than|aged above] <v>"),
    ("age", "<", "[younger than|aged under|below the age of|under the age of|who are under|who are younger than|that are younger than] <v>"),
    ("age", ">", "[older than|over|above] <v> years[| old]"),
    ("age", "<", "[younger than|under|below] <v> years[| old]"),
    ("age", "=", "[aged|who are|of age] <v>[| years old]"),
    ("price", "<", "[cheaper than|costing less than|that cost less than|that cost under|priced below|priced under|which cost less than|for less than|for under] <v>[|| euros| dollars]"),
    ("price", ">", "[more expensive than|costing more than|that cost more than|that cost over|priced above|priced over|which cost more than|pricier than] <v>[|| euros| dollars]"),
    ("salary", ">", "[earning more than|who earn more than|that earn over|earning over|paid more than|making more than|who make more than|who earn over] <v>"),
    ("salary", "<", "[earning less than|who earn less than|that earn under|earning under|paid less than|making less than|who make less than|who earn under] <v>"),
    ("year", ">", "[published after|made after|released after|from after|built after|newer than|after|written after|that came out after] <y>"),
    ("year", "<", "[published before|made before|released before|from before|built before|older than the year|before|written before|that came out before] <y>"),
    ("year", "=", "[published in|made in|released in|from the year|built in|from|of the year|written in|that came out in] <y>"),
    ("weight", ">", "[heavier than|weighing more than|that weigh more than|that weigh over] <v>"),
    ("weight", "<", "[lighter than|weighing less than|that weigh less than|that weigh under] <v>"),
    ("height", ">", "[taller than|that are taller than|who are taller than] <v>"),
    ("height", "<", "[shorter than|that are shorter than|who are shorter than] <v>"),
    ("stock", ">", "with [more than|over] <v> in stock"), ("stock", "<", "with [less than|fewer than|under] <v> in stock"),
    ("rating", ">", "rated [above|over|higher than|better than] <v>"), ("rating", "<", "rated [below|under|lower than|worse than] <v>"),
    ("pages", ">", "with [more than|over] <v> pages"), ("pages", "<", "with [less than|fewer than|under] <v> pages"),
    ("city", "=", "[from|in|living in|who live in|that live in|based in|located in|residing in|of] <c>"),
    ("name", "=", "[named|called|with the name|by the name of|whose name is|with name] <n>"),
    ("author", "=", "[by|written by|authored by|from the author|that were written by] <n>"),
    ("department", "=", "[in|from|of|working in|who work in|that work in] the <d> department"),
    ("department", "=", "[working in|who work in] <d>"),
    ("category", "=", "[in|from|of] the <k> category"), ("category", "=", "in [category|the category] <k>"),
    ("id", "=", "with id <v>"), ("id", "=", "[number|with the id|with number|whose id is] <v>"),
]
SUPERLATIVES = [
    ("age", "DESC", "oldest"), ("age", "ASC", "youngest"), ("price", "ASC", "cheapest"), ("price", "ASC", "least expensive"),
    ("price", "DESC", "most expensive"), ("price", "DESC", "priciest"), ("year", "DESC", "newest"),
    ("year", "DESC", "latest"), ("weight", "DESC", "heaviest"), ("weight", "ASC", "lightest"),
    ("height", "DESC", "tallest"), ("height", "ASC", "shortest"), ("rating", "DESC", "best rated"),
    ("rating", "ASC", "worst rated"), ("salary", "DESC", "best paid"), ("salary", "DESC", "highest paid"),
    ("salary", "ASC", "lowest paid"), ("pages", "DESC", "longest"), ("price", "ASC", "lowest priced"),
]
AGGREGATES = {
    "AVG": "[average|mean|avg|average|typical]", "SUM": "[total|sum of the|summed|combined|overall|sum of all]",
    "MAX": "[highest|maximum|largest|max|biggest|greatest|top]", "MIN": "[lowest|minimum|smallest|min|least]",
}


def table(r: Random) -> str:
    """A table: a plural noun, often one never seen before."""
    return r.choice(TABLES) if r.random() < 0.6 else words.plural(r.choice([words.item, words.made_up])(r))


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
    pools = [words.first_name, words.city, words.made_up, lambda r: r.choice(words.COLORS), words.item,
             lambda r: r.choice(words.STATUSES), words.full_name, lambda r: r.choice(words.LANGUAGES)]
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
    values = {"v": number_value(r), "y": str(r.randint(1900, 2026)), "c": words.city(r), "n": person,
              "d": r.choice(words.DEPARTMENTS), "k": r.choice(words.CATEGORIES)}
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
    pattern = r.choice([
        f"[with|having|that have|which have|who have] [a |an |the |||]<c> [|of ]{than} <v>",
        f"[whose|where|where the] <c> is {than} <v>",
        f"[where|with|if|for which] <c> {operator} <v>", f"with <c> {than} <v>"])
    return phrasing.fill(phrasing.expand(r, pattern), {"c": spoken, "v": value}), f"{column} {operator} {value}"


def _equal(r: Random) -> tuple[str, str]:
    column, spoken, _ = text_column(r)
    value = text_value(r)
    slots = {"c": spoken, "v": quoted(r, value)}
    if r.random() < 0.18:
        pattern = "[whose|where|where the] <c> is [not|not equal to|other than|different from|anything but] <v>"
        return phrasing.fill(phrasing.expand(r, pattern), slots), f"{column} != '{value}'"
    pattern = r.choice([
        "[with|having|that have|who have|which have] [the |||]<c> <v>", "[whose|where|where the] <c> is <v>",
        "[whose|where|where the|with|with a] <c> [equals|equal to|=|is equal to] <v>", "with <v> as [the |||]<c>",
        "[whose|where the|where] <c> is <v>"])
    return phrasing.fill(phrasing.expand(r, pattern), slots), f"{column} = '{value}'"


def _between(r: Random) -> tuple[str, str]:
    low, high = sorted((int(words.number(r)[:4]), int(words.number(r)[:4])))
    if r.random() < 0.3:
        return f"between {low} and {high} years old", f"age BETWEEN {low} AND {high}"
    column, spoken, _ = number_column(r)
    pattern = r.choice(["[with|having|that have] [a |the |||]<c> between <a> and <b>", "[whose|where|where the] <c> is between <a> and <b>",
                        "[with|having] [a |||]<c> from <a> to <b>", "with <c> in the range <a> to <b>"])
    text = phrasing.fill(phrasing.expand(r, pattern), {"c": spoken, "a": str(low), "b": str(high)})
    return text, f"{column} BETWEEN {low} AND {high}"


def _like(r: Random) -> tuple[str, str]:
    column, spoken, _ = text_column(r)
    value = r.choice([text_value(r), r.choice("ABCDEFGHIJKLMNOPRSTVW"), r.choice("ABCDEFGHIJKLMNOPRSTVW"), words.made_up(r)[:3]])
    slots = {"c": spoken, "v": quoted(r, value)}
    verb, form = r.choice([("[starts|begins] with", f"{value}%"), ("ends [with|in]", f"%{value}"),
                           ("[contains|includes|has]", f"%{value}%")])
    gerund = {"s": "[starting|beginning] with", "e": "ending [with|in]", "c": "[containing|including]"}
    key = "s" if form[-1] == "%" and form[0] != "%" else "e" if form[-1] != "%" else "c"
    pattern = r.choice([f"[whose|where|where the] <c> {verb} <v>", f"with [a |the |||]<c> {gerund[key]} <v>"])
    return phrasing.fill(phrasing.expand(r, pattern), slots), f"{column} LIKE '{form}'"


def rows(r: Random, chance: float = 0.75) -> tuple[str, str, str]:
    """A row phrase: English, table, WHERE clause (or nothing)."""
    name = table(r)
    noun = r.choice([f"{name}", f"{name}", f"the {name}", f"all {name}", f"all the {name}", f"all of the {name}"])
    if r.random() > chance:
        return noun, name, ""
    if r.random() < 0.12:
        column, value = r.choice([("color", r.choice(words.COLORS)), ("status", r.choice(words.STATUSES))])
        noun = noun[: -len(name)] + f"{value} {name}"
        first = f"{column} = '{value}'"
    else:
        text, first = condition(r)
        noun = f"{noun} {text}"
    if r.random() < 0.22:
        text, second = condition(r)
        joint, word = r.choice([(" and ", "AND"), (" and ", "AND"), (" ", "AND"), (" or ", "OR"), (" but ", "AND")])
        return noun + joint + text, name, f" WHERE {first} {word} {second}"
    return noun, name, f" WHERE {first}"


def _select(r: Random) -> tuple[str, str]:
    text, name, where = rows(r)
    kind = r.random()
    if kind < 0.45:
        pattern = r.choice([f"{VERB} {text}", f"{VERB} {text}", f"[which|what] {text.removeprefix('all ').removeprefix('the ')} [are there|do we have|exist]",
                            f"what are {text}", text, f"who are {text}", f"are there [any |]{text.removeprefix('all ').removeprefix('the ')}",
                            f"[show|give me|get] [everything about|all the data of|all columns of|every column of|all information about|all fields of|the records of] {text}"])
        return _say(r, pattern), f"SELECT * FROM {name}{where};"
    picked = [any_column(r) for _ in range(r.choice([1, 1, 1, 2, 2, 3]))]
    many = r.random() < 0.35
    spoken = [c[2] if many else c[1] for c in picked]
    listed = " and ".join(spoken) if len(spoken) < 3 else ", ".join(spoken[:-1]) + r.choice([" and ", ", and "]) + spoken[-1]
    if r.random() < 0.1:
        listed = ", ".join(spoken)
    pattern = r.choice([f"{VERB} [the |||]{listed} [of|for|from] {text}", f"[what is|what are] the {listed} of {text}",
                        f"[the |]{listed} of {text}", f"{VERB} [only |just |]the {listed} of {text}"])
    return _say(r, pattern), f"SELECT {', '.join(c[0] for c in picked)} FROM {name}{where};"


def _count(r: Random) -> tuple[str, str]:
    text, name, where = rows(r)
    bare = text.removeprefix("all of ").removeprefix("all ").removeprefix("the ")
    pattern = r.choice([f"how many {bare} [are there|do we have|exist|are in the table|are there in total|do you have||]", f"how many {bare}",
                        f"count {text}", f"[what is|what's] the [number|count|total number] of {bare}", f"number of {bare}",
                        f"[count|tell me] how many {bare} [there are|we have|exist]", f"{VERB} the [number|count|total number] of {bare}",
                        f"how many of the {bare} are there"])
    return _say(r, pattern), f"SELECT COUNT(*) FROM {name}{where};"


def _aggregate(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.4)
    column, spoken, _ = number_column(r)
    function = r.choice(list(AGGREGATES))
    word = phrasing.expand(r, AGGREGATES[function])
    pattern = r.choice([f"[what is|what's] the {word} {spoken} of {text}", f"{VERB} the {word} {spoken} of {text}", f"{word} {spoken} [of|for|from] {text}",
                        f"[calculate|compute|find|work out|determine] the {word} {spoken} [of|for|over|across] {text}",
                        f"what {word} {spoken} do {text} have", f"what is the {word} {spoken} [among|for|across] {text}"])
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
        pattern = r.choice([f"[which is|what is|show|find|give me|show me|get] the {word} one of the {name}", f"{VERB} the one {word} of all {name}"]) if single else \
            r.choice([f"{VERB} the {shown} {word} {text}", f"[what|which|who] are the {shown} {word} {text}", f"the {shown} {word} {text}", f"{shown} {word} {text}"])
        return _say(r, pattern), f"SELECT * FROM {name}{'' if single else where} ORDER BY {column} {way} LIMIT {1 if single else count};"
    if r.random() < 0.12:
        pattern = r.choice([f"{VERB} the first {shown} {text}", f"{VERB} [only |]{shown} {text}", f"the first {shown} {text}", f"{VERB} any {shown} {text}"])
        return _say(r, pattern), f"SELECT * FROM {name}{where} LIMIT {count};"
    most = "[highest|largest|biggest|greatest|most]" if way == "DESC" else "[lowest|smallest|least|fewest]"
    end = "top" if way == "DESC" else "bottom"
    pattern = r.choice([f"{VERB} the {end} {shown} {text} by {spoken}", f"[what|which|who] are the {end} {shown} {text} by {spoken}",
                        f"{VERB} the {shown} {text} with the {most} {spoken}", f"{end} {shown} {text} [by|in terms of|according to] {spoken}",
                        f"[which|what] {shown} {text} have the {most} {spoken}", f"the {shown} {text} with the {most} {spoken}"])
    return _say(r, pattern), f"SELECT * FROM {name}{where} ORDER BY {column} {way} LIMIT {count};"


def _one(r: Random) -> tuple[str, str]:
    name = table(r)
    noun = _singular(name)
    if r.random() < 0.5:
        column, way, word = r.choice(SUPERLATIVES)
        pattern = r.choice([f"[which|what|who] is the {word} {noun}", f"{VERB} the {word} {noun}", f"the {word} {noun}", f"what {noun} is the {word}"])
    else:
        column, spoken, _ = number_column(r)
        way = r.choice(["DESC", "ASC"])
        most = "[highest|largest|biggest|greatest|most]" if way == "DESC" else "[lowest|smallest|least]"
        pattern = r.choice([f"which {noun} has the {most} {spoken}", f"{VERB} the {noun} with the {most} {spoken}", f"who is the {noun} with the {most} {spoken}",
                            f"what {noun} has the {most} {spoken}", f"the {noun} with the {most} {spoken}"])
    return _say(r, pattern), f"SELECT * FROM {name} ORDER BY {column} {way} LIMIT 1;"


def _singular(name: str) -> str:
    irregular = {"people": "person", "companies": "company", "cities": "city", "countries": "country", "categories": "category",
                 "movies": "movie", "buses": "bus", "houses": "house", "sales": "sale", "courses": "course", "invoices": "invoice"}
    if name in irregular:
        return irregular[name]
    if name.endswith(("ches", "shes", "xes", "sses")):
        return name[:-2]
    return name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s")


def _sorted(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.3)
    column, spoken, _ = any_column(r)
    way = r.choice(["DESC", "ASC"])
    words_ = {"DESC": "[descending|in descending order|from high to low|highest first|largest first|desc|from highest to lowest|in reverse order|starting with the highest]",
              "ASC": "[|||||ascending|in ascending order|from low to high|lowest first|smallest first|asc|from lowest to highest|alphabetically]"}
    pattern = r.choice([f"{VERB} {text} [sorted|ordered|arranged|ranked] by {spoken} {words_[way]}", f"[sort|order|rank|arrange] {text} by {spoken} {words_[way]}",
                        f"{text} [sorted|ordered|in order] by {spoken} {words_[way]}", f"{VERB} {text} in [order of|the order of] {spoken} {words_[way]}"])
    return _say(r, pattern), f"SELECT * FROM {name}{where} ORDER BY {column} {way};"


def _grouped(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.2)
    text = text.removeprefix("all of ").removeprefix("all ").removeprefix("the ")
    column, spoken, _ = text_column(r)
    per = "[per|for each|for every|by|in each|in every|grouped by|broken down by]"
    if r.random() < 0.5:
        pattern = r.choice([f"how many {text} [are there|do we have||] {per} {spoken}", f"[count|count the] {text} {per} {spoken}",
                            f"[number|count] of {text} {per} {spoken}", f"{VERB} the [number|count] of {text} {per} {spoken}",
                            f"[for each|for every|per] {spoken}, how many {text} are there", f"group {text} by {spoken} and count them"])
        return _say(r, pattern), f"SELECT {column}, COUNT(*) FROM {name}{where} GROUP BY {column};"
    number, said, _ = number_column(r)
    function = r.choice(list(AGGREGATES))
    word = phrasing.expand(r, AGGREGATES[function])
    pattern = r.choice([f"[what is|what's] the {word} {said} of {text} {per} {spoken}", f"{VERB} the {word} {said} of {text} {per} {spoken}",
                        f"{word} {said} of {text} {per} {spoken}", f"[for each|for every|per] {spoken}, [what is|show|give] the {word} {said} of {text}"])
    return _say(r, pattern), f"SELECT {column}, {function}({number}) FROM {name}{where} GROUP BY {column};"


def _distinct(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.25)
    column, spoken, many = text_column(r)
    pattern = r.choice([f"{VERB} [the |all |all the |]{_different(r)} {many} of {text}", f"[what|which] {_different(r)} {many} do {text} have",
                        f"[what|which] {_different(r)} {many} are there [in|among|for] {text}", f"{_different(r)} {many} of {text}",
                        f"{VERB} the {many} of {text} without [duplicates|repetition|repeats]", f"{VERB} every {_different(r)} {spoken} of {text}"])
    return _say(r, pattern), f"SELECT DISTINCT {column} FROM {name}{where};"


def _different(r: Random) -> str:
    return r.choice(["different", "distinct", "unique", "distinct", "unique"])


def _delete(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.95)
    return _say(r, f"[delete|remove|erase|drop|get rid of|throw out|delete|remove] {text}"), f"DELETE FROM {name}{where};"


def _update(r: Random) -> tuple[str, str]:
    text, name, where = rows(r, 0.95)
    if r.random() < 0.5:
        (column, spoken, _), value = text_column(r), text_value(r)
    else:
        (column, spoken, _), value = number_column(r), number_value(r)
    pattern = f"[set|change|update|switch|set|change] the {spoken} [of|for] {text} to {quoted(r, value)}"
    return _say(r, pattern), f"UPDATE {name} SET {column} = {literal(value)}{where};"


def _say(r: Random, pattern: str) -> str:
    """Words the pattern as an order or a question, whichever it is; values stay untouched."""
    first = phrasing.expand(r, pattern)
    if first.split()[0] in {"what", "which", "how", "who", "what's", "are"}:
        return phrasing.question(r, "<q>", {"q": first}) if r.random() < 0.2 else _cased(r, first, "?", phrasing.QUESTIONS)
    verbs = phrasing.expand(r, "[x]") and {"show", "list", "give", "get", "find", "return", "display", "fetch", "select", "retrieve", "print", "look",
                                            "pull", "see", "count", "sort", "order", "rank", "arrange", "delete", "remove", "erase", "drop", "throw",
                                            "set", "change", "update", "switch", "calculate", "compute", "work", "determine", "tell", "group"}
    frames = phrasing.ORDERS if first.split()[0] in verbs else ["{}", "{}", "{}", "{} please", "I need {}", "I want {}", "Query: {}", "We need {}"]
    return _cased(r, first, ".", frames)


def _cased(r: Random, text: str, mark: str, frames: list[str]) -> str:
    framed = r.choice(frames) if r.random() < 0.7 else "{}"
    out = framed.format(text)
    if out[-1] not in ".?!":
        out += r.choice([mark, mark, mark, "", "", "."])
    return out[0].upper() + out[1:] if r.random() < 0.7 else out


_KINDS = [_select] * 9 + [_count] * 4 + [_aggregate] * 4 + [_top] * 3 + [_one] * 2 + [_sorted] * 2 + [_grouped] * 3 + [_distinct, _delete, _update]


def example(r: Random) -> tuple[str, str]:
    """A question and its SQL."""
    question, query = r.choice(_KINDS)(r)
    return " ".join(question.split()), query
