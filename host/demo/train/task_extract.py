"""Short texts and the JSON record that is in them.

Five layouts: person, contact, order, product, event. Without named fields the whole layout is
answered, absent fields as null; with named fields ("get the name and age") just those, in that
order.
"""

from random import Random

import chatml
import phrasing
import words

Record = dict[str, str | int | float | None]

ASKS = [
    "Extract the record: <t>",
    "Extract the record from this text: <t>",
    "Extract the data: <t>",
    "Extract the [data|record|information|fields|details] from: <t>",
    "[Turn|Convert|Transform] this into JSON: <t>",
    "[Turn|Convert] the following [text|sentence] into [JSON|a JSON record|a record]: <t>",
    "Parse this: <t>",
    "Parse [the text|this text|this sentence|the following]: <t>",
    "JSON please: <t>",
    "To JSON: <t>",
    "<t> Extract the [record|data|fields].",
    "<t>\n\nExtract the [record|data|details].",
    "Give me [a JSON record|the JSON|JSON|the record] for: <t>",
    "[Get|Pull out|Read] the [data|fields|facts|details|record] [from|in|out of] this[| text| "
    "note| sentence]: <t>",
    "What are the [fields|facts|details] in this [text|note|message|sentence]? <t>",
    "Structure this[| text| data]: <t>",
    "[Make|Create|Build] a [record|JSON object|JSON record] from: <t>",
    "Extract: <t>",
    "extract json from this: <t>",
    "Text: <t>\nRecord:",
    "Fill in the record [from|for]: <t>",
    "<t>\nAs JSON, please.",
    "<t> -> JSON",
    "Please extract the [data|information|details]: <t>",
    "Can you extract the [record|data|details] from this? <t>",
    "Could you turn this into JSON? <t>",
    "Summarize this as [JSON|a record]: <t>",
    "I need this as JSON: <t>",
    "Extract structured data: <t>",
    "Extract the record.\n<t>",
    "Here is a [text|note|message]: <t> Extract the record.",
    "Extract all [fields|details|information]: <t>",
    "Return JSON for: <t>",
    "Which [details|facts] does this text contain? <t>",
    "Read this and give me JSON: <t>",
    "Get me the record in: <t>",
]
NAMED = [
    "[Extract|Get|Find|Pull out|Give me|Read|Return|Fetch] <f> from: <t>",
    "[Extract|Get|Find|Pull out|Give me|Read] the <f> from [this|this text|the text|this "
    "sentence]: <t>",
    "Extract <f>: <t>",
    "Extract the <f>: <t>",
    "<t> Extract <f>.",
    "<t>\n\nExtract the <f>.",
    "Fields: <f>. Text: <t>",
    "[Give|Return|Write] <f> as JSON: <t>",
    "From this text, extract <f>: <t>",
    "I need the <f> from this: <t>",
    "What are the <f> in: <t>",
    "Please extract <f> from: <t>",
    "Can you extract <f> from this? <t>",
    "[Turn|Convert] this into JSON with <f>: <t>",
    "Parse <f> from: <t>",
    "JSON with <f>: <t>",
    "Extract only the <f>: <t>",
    "Which <f> are in this text? <t>",
]
TEXTS: dict[str, list[tuple[str, str]]] = {
    "person": [
        ("name age city job", p)
        for p in (
            "<name>, <age>, lives in <city> and works as <a job>.",
            "<name> is <a job> from <city>, aged <age>.",
            "In <city> we met <name>, <a job> who is <age> years old.",
            "My name is <name>, I am <age> years old, I live in <city> and I work as <a job>.",
            "<name> (<age>) is <a job> in <city>.",
            "<name> is <age> years old, lives in <city> and is <a job>.",
            "Meet <name>, <a age>-year-old <job> from <city>.",
            "<name> from <city> is <age> and works as <a job>.",
            "The <job> <name>, <age>, [comes from|lives in|moved to] <city>.",
            "I'm <name>, <age>, <a job> living in <city>.",
            "Name: <name>, age: <age>, city: <city>, job: <job>.",
            "<name>; <age>; <city>; <job>",
            "At <age>, <name> is [already |]<a job> in <city>.",
            "<name> is <a job>. [She|He] is <age> years old and lives in <city>.",
            "Our new colleague <name> is <age>, comes from <city> and was <a job> before.",
            "<city> is home to <name>, <a job> aged <age>.",
            "I am <name> from <city>, <age> years old, and my job is <job>.",
            "<name> works as <a job> in <city> and is <age>.",
            "<a job> from <city>, <name> is <age> years old.",
            "hi, i am <name>, <age>, from <city>, i work as <a job>",
        )
    ]
    + [
        ("name age city", "<name> is <age> years old and lives in <city>."),
        ("name age city", "<name>, <age>, from <city>."),
        ("name age job", "<name> is <a age>-year-old <job>."),
        ("name age job", "<name>, <age>, works as <a job>."),
        ("name city job", "<name> is <a job> from <city>."),
        ("name city job", "<name> works as <a job> in <city>."),
        ("name age", "<name> is <age> years old."),
        ("name city", "<name> lives in <city>."),
        ("name job", "<name> works as <a job>."),
        ("name age city", "I am <name>, <age>, and I live in <city>."),
    ],
    "contact": [
        ("name email phone", p)
        for p in (
            "You can reach <name> at <email> or <phone>.",
            "Contact <name>: <email>, <phone>.",
            "<name>'s email is <email> and the phone number is <phone>.",
            "Call <name> at <phone> or write to <email>.",
            "<name>, <email>, tel. <phone>",
            "For questions ask <name> (<email>, phone <phone>).",
            "<name> <email> <phone>",
            "Write to <email> or call <phone> and ask for <name>.",
            "My name is <name>, my email is <email> and my phone number is <phone>.",
            "Please send it to <name>, <email>, mobile <phone>.",
            "Best regards, <name>, <phone>, <email>",
            "The number of <name> is <phone>, the email <email>.",
        )
    ]
    + [
        ("name email", "<name>'s email [address |]is <email>."),
        ("name email", "Write to <name> at <email>."),
        ("name phone", "Call <name> at <phone>."),
        ("name phone", "<name>'s phone number is <phone>."),
        ("name email", "You can email <name> at <email>."),
    ],
    "order": [
        ("customer quantity item price", p)
        for p in (
            "<customer> ordered <quantity> <items> for <price> euros.",
            "<customer> bought <quantity> <items> and paid <price> dollars.",
            "<quantity> <items> were sold to <customer> for <price> euros.",
            "Order from <customer>: <quantity> <items>, <price> euros in total.",
            "<customer> wants <quantity> <items> for <price> dollars.",
            "We sent <customer> <quantity> <items> worth <price> euros.",
            "For <price> euros, <customer> got <quantity> <items>.",
            "<customer> purchased <quantity> <items> at a total of $<price>.",
            "Invoice for <customer>: <quantity> <items>, total <price>.",
            "Please send <quantity> <items> to <customer>; the price is <price> euros.",
            "<customer> paid <price> dollars for <quantity> <items>.",
            "Yesterday <customer> bought <quantity> <items> for $<price>.",
        )
    ]
    + [
        ("customer quantity item", "<customer> ordered <quantity> <items>."),
        ("customer quantity item", "<customer> bought <quantity> <items>."),
        ("quantity item price", "<quantity> <items> cost <price> euros."),
        ("customer quantity item", "<customer> would like <quantity> <items>."),
    ],
    "product": [
        ("product color price", p)
        for p in (
            "The <color> <product> costs <price> euros.",
            "We sell a <color> <product> for <price> dollars.",
            "A <color> <product> for only <price> euros!",
            "<product>, <color>, <price> euros",
            "This <product> is <color> and costs <price> dollars.",
            "For sale: <color> <product>, $<price>.",
            "The price of the <color> <product> is <price> euros.",
            "The <product> in <color> is <price> dollars.",
            "Product: <product>, color: <color>, price: <price>.",
            "You can get the <product> in <color> for <price> euros.",
            "New in our shop: a <color> <product> at <price> euros.",
            "For <price> dollars you get a <color> <product>.",
        )
    ]
    + [
        ("product price", "The <product> costs <price> euros."),
        ("product color", "The <product> is <color>."),
        ("product price", "A <product> for <price> dollars."),
        ("product price", "The price of the <product> is <price> euros."),
    ],
    "event": [
        ("event day time place", p)
        for p in (
            "The <event> is on <day> at <time> in <place>.",
            "The <event> takes place in <place> on <day> at <time>.",
            "Join us on <day> at <time> for the <event> in <place>.",
            "On <day> there is <a event> in <place>, starting at <time>.",
            "<event> in <place>, <day>, <time>",
            "Please come to the <event> in <place> on <day> at <time>.",
            "We meet on <day>, <time>, in <place> for the <event>.",
            "In <place>, the <event> starts at <time> on <day>.",
            "Reminder: <event> on <day> at <time>, <place>.",
            "The <event> in <place> begins on <day> at <time>.",
            "Don't miss the <event> on <day> at <time> in <place>!",
            "There will be <a event> in <place> on <day> at <time>.",
            "You are invited to the <event> on <day> at <time> in <place>.",
            "Our <event> will be held in <place> on <day> at <time>.",
        )
    ]
    + [
        ("event day time", "The <event> is on <day> at <time>."),
        ("event day place", "The <event> is on <day> in <place>."),
        ("event time place", "The <event> in <place> starts at <time>."),
        ("event day time", "<event> on <day> at <time>."),
    ],
}
FIELDS = {
    "person": "name age city job",
    "contact": "name email phone",
    "order": "customer quantity item price",
    "product": "product color price",
    "event": "event day time place",
}
FILLERS = [
    "Nice weather today.",
    "We had a good talk.",
    "More soon.",
    "Thanks for your help.",
    "That is all for now.",
    "See you soon.",
    "It was a long day.",
    "Good morning.",
    "Hello,",
    "By the way:",
]


def record(r: Random, layout: str) -> Record:
    """Values for every field of a layout."""
    person = words.full_name(r) if r.random() < 0.85 else words.first_name(r)
    if layout == "person":
        job = r.choice(words.JOBS) if r.random() < 0.8 else words.made_up(r)
        return {"name": person, "age": r.randint(1, 99), "city": words.city(r), "job": job}
    if layout == "contact":
        return {"name": person, "email": _email(r, person), "phone": _phone(r)}
    if layout == "order":
        return {
            "customer": person,
            "quantity": r.randint(2, 500),
            "item": words.plural(words.item(r)),
            "price": _amount(r),
        }
    if layout == "product":
        return {
            "product": words.item(r),
            "color": r.choice(words.COLORS) if r.random() < 0.85 else words.made_up(r),
            "price": _amount(r),
        }
    event = r.choice(words.EVENTS) if r.random() < 0.8 else words.made_up(r)
    return {"event": event, "day": _day(r), "time": _time(r), "place": words.city(r)}


def _amount(r: Random) -> int | float:
    text = words.price(r)
    return float(text) if "." in text and not text.endswith("0") else int(text.split(".")[0])


def _email(r: Random, person: str) -> str:
    parts = person.lower().split()
    user = r.choice(
        [
            parts[0],
            ".".join(parts),
            words.made_up(r),
            parts[-1] + str(r.randint(1, 99)),
            parts[0][0] + parts[-1],
            "_".join(parts),
        ]
    )
    host = r.choice([words.made_up(r), "example", "mail", "gmail", "post", "work", "test"])
    return f"{user}@{host}.{r.choice(['com', 'org', 'net', 'de', 'io', 'co', 'fr'])}"


def _phone(r: Random) -> str:
    parts = [
        "".join(r.choice("0123456789") for _ in range(n))
        for n in r.choice([(3, 4), (3, 3, 4), (4, 6), (2, 7), (10,)])
    ]
    return r.choice(["", "", "+" + str(r.randint(1, 99)) + " "]) + r.choice(["-", "-", " "]).join(
        parts
    )


def _day(r: Random) -> str:
    date = r.choice(
        [
            f"{r.choice(words.MONTHS)} {r.randint(1, 31)}",
            f"{r.randint(1, 31)} {r.choice(words.MONTHS)}",
            f"2026-{r.randint(1, 12):02}-{r.randint(1, 28):02}",
        ]
    )
    return r.choice(words.DAYS) if r.random() < 0.5 else date


def _time(r: Random) -> str:
    clock = f"{r.randint(0, 23)}:{r.choice([0, 15, 30, 45, r.randint(0, 59)]):02}"
    return r.choice(
        [
            clock,
            clock,
            f"{r.randint(1, 12)} {r.choice(['am', 'pm'])}",
            f"{r.randint(1, 12)}{r.choice(['am', 'pm'])}",
            "noon",
        ]
    )


def passage(r: Random, layout: str, noise: float = 0.0) -> tuple[str, Record]:
    """A text and what it says: absent fields are None."""
    values = record(r, layout)
    present, pattern = r.choice(TEXTS[layout])
    text = phrasing.jitter(r, phrasing.expand(r, pattern), noise)
    for field, value in values.items():
        shown = str(value)
        text = text.replace(
            f"<a {field}>", f"{words.article(shown) if shown[0] != '8' else 'an'} {shown}"
        ).replace(f"<a {field}>", shown)
        text = text.replace(f"<{field}>", shown).replace(f"<{field}s>", shown)
        text = text.replace(f"<a {field}>-", f"a {shown}-")
    if r.random() < 0.12:
        filler = r.choice(FILLERS)
        text = f"{filler} {text}" if r.random() < 0.6 else f"{text} {filler}"
    if not pattern.startswith("<") or pattern.startswith("<a "):
        text = text[0].upper() + text[1:]
    if r.random() < 0.15:
        text = text.rstrip(".!")
    return text, {f: values[f] if f in present.split() else None for f in FIELDS[layout].split()}


def example(r: Random) -> tuple[str, str]:
    """A request and its JSON record."""
    layout = r.choices(list(TEXTS), (35, 13, 20, 15, 17))[0]
    text, values = passage(r, layout, 0.35)
    wanted = list(values)
    if r.random() < 0.3:
        wanted = r.sample(wanted, r.randint(1, len(wanted)))
        listed = (
            wanted[0]
            if len(wanted) == 1
            else ", ".join(wanted[:-1]) + r.choice([" and ", ", "]) + wanted[-1]
        )
        asked = phrasing.jitter(r, phrasing.expand(r, r.choice(NAMED)), 0.2).replace("<f>", listed)
    else:
        asked = phrasing.jitter(r, phrasing.expand(r, r.choice(ASKS)), 0.2)
    if r.random() < 0.2:
        asked = asked[0].lower() + asked[1:]
    if r.random() < 0.1:
        text = f'"{text}"'
    answer = chatml.dumps({f: values[f] for f in wanted})
    return asked.replace("<t>", text), answer
