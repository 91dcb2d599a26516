"""Requests with a list of tools, and the call that serves them.

Half of the tools are everyday ones whose parameters go by varying names; the other half are made up
on the spot, so that the list must be read. Sometimes no tool fits, and the model says so.
"""

from random import Random
from typing import Any, Callable

import chatml
import phrasing
import words

NO_TOOL = "None of the tools fits this request."
Tool = dict[str, Any]
Values = dict[str, Any]

# Kind of value -> (JSON type, drawing function).
KINDS: dict[str, tuple[str, Callable[[Random], Any]]] = {
    "city": ("string", words.city), "person": ("string", words.first_name), "full": ("string", words.full_name), "thing": ("string", words.item),
    "topic": ("string", lambda r: r.choice(words.TOPICS)), "language": ("string", lambda r: r.choice(words.LANGUAGES)), "day": ("string", lambda r: r.choice(words.DAYS)),
    "currency": ("string", lambda r: r.choice(words.CURRENCIES)), "count": ("integer", lambda r: r.randint(1, r.choice([9, 60, 500]))), "amount": ("number", lambda r: r.choice([r.randint(1, 2000), r.randint(1, 99)])),
    "time": ("string", lambda r: r.choice([f"{r.randint(0, 23)}:{r.choice([0, 15, 30, 45]):02}", f"{r.randint(1, 12)}{r.choice(['am', 'pm'])}", f"{r.randint(1, 12)} {r.choice(['am', 'pm'])}"])),
    "word": ("string", words.made_up), "room": ("string", lambda r: r.choice("kitchen bedroom bathroom garage office hallway cellar garden".split() + ["living room"])),
    "unit": ("string", lambda r: r.choice(["celsius", "fahrenheit"])), "email": ("string", lambda r: f"{words.first_name(r).lower()}@{words.made_up(r)}.{r.choice(['com', 'org', 'net'])}"),
    "color": ("string", lambda r: r.choice(words.COLORS)),
}
# Names a tool may have; parameters as "kind: names it may have"; wordings; a description.
Everyday = tuple[str, list[str], list[str], str]
EVERYDAY: list[Everyday] = [
    ("get_weather weather check_weather weather_forecast get_forecast lookup_weather current_weather get_current_weather", ["city: city location place town"],
     ["what is the weather [in|for|like in] <1>", "what's the weather [in|like in] <1>[| today| right now| now]", "will it rain in <1>[| today| tomorrow]", "how is the weather in <1>[| today]", "weather in <1>", "is it [cold|warm|sunny|hot|raining] in <1>[| today| now]",
      "do I need [an umbrella|a coat] in <1>", "[tell me|check|get|show me|look up] the weather [in|for] <1>", "forecast for <1>", "how [hot|cold|warm] is it in <1>", "what's the temperature in <1>", "I am going to <1>, what is the weather there", "[get|give me] the [forecast|temperature] for <1>"], "Get the current weather for a city"),
    ("get_weather weather get_temperature current_weather", ["city: city location place", "unit: unit units"],
     ["what is the [weather|temperature] in <1> in <2>", "how warm is it in <1> in <2>", "[tell me|get|give me] the [weather|temperature] in <1> in <2>", "weather in <1>, <2> please", "temperature for <1> in <2>"], "Get the weather in a unit"),
    ("send_email email send_mail write_email mail", ["person: to recipient person", "topic: subject topic about title"],
     ["[send|write] an email to <1> about the <2>", "email <1> about the <2>", "[send|write] <1> [an email|a mail] about the <2>", "mail <1> about <2>", "I [need|want] to email <1> about the <2>", "let <1> know about the <2> by email", "write to <1> about the <2>", "[send|write] an email about the <2> to <1>"], "Send an email"),
    ("send_email send_message email", ["email: to address recipient email", "topic: subject topic title"],
     ["[send|write] an email to <1> about the <2>", "email <1> about <2>", "write to <1> about the <2>", "send a mail with subject <2> to <1>", "send <1> an email with the subject <2>"], "Send an email to an address"),
    ("book_flight flight find_flight search_flights flights get_flights", ["city: origin from from_city departure", "city: destination to to_city arrival"],
     ["[book|find|search|get me] a flight from <1> to <2>", "I [want|need] to fly from <1> to <2>", "fly from <1> to <2>", "flights from <1> to <2>", "how do I fly from <1> to <2>", "[book|get|buy] me a ticket from <1> to <2>", "I need a flight to <2> from <1>", "are there flights from <1> to <2>", "I have to get from <1> to <2> by plane"], "Book a flight between two cities"),
    ("set_timer timer start_timer countdown", ["count: minutes duration mins duration_minutes"],
     ["set a timer for <1> minutes", "start a timer [for|of] <1> minutes", "timer for <1> minutes", "remind me in <1> minutes", "<1> minute timer", "wake me in <1> minutes", "count down <1> minutes", "set a <1> minute timer", "I need a timer for <1> minutes"], "Start a timer"),
    ("set_alarm alarm wake_up create_alarm", ["time: time at hour"],
     ["set an alarm for <1>", "wake me [up |]at <1>", "alarm at <1>", "I [need|have] to get up at <1>", "wake me up at <1> tomorrow", "set the alarm to <1>", "put an alarm at <1>"], "Set an alarm"),
    ("find_hotel hotel book_hotel search_hotels hotels reserve_hotel", ["city: city location place", "count: nights num_nights days"],
     ["[find|book|get|search] a hotel in <1> for <2> nights", "I need a [hotel|room] in <1> for <2> nights", "book me <2> nights in <1>", "hotel in <1>, <2> nights", "where can I sleep in <1> for <2> nights", "[find|get] me a hotel for <2> nights in <1>", "I'm staying in <1> for <2> nights, find a hotel"], "Find a hotel"),
    ("play_song play_music music play", ["full: artist singer name by"], ["play a song by <1>", "play [some |]music by <1>", "I want to [hear|listen to] <1>", "put on <1>", "play something by <1>", "play <1>", "can I hear some <1>"], "Play music by an artist"),
    ("get_price price lookup_price check_price product_price", ["thing: product item article name"],
     ["how much is the <1>", "what does the <1> cost", "what is the price of the <1>", "price of the <1>", "how much does [a|the] <1> cost", "[check|look up|tell me] the price of the <1>", "what do you charge for the <1>", "how expensive is the <1>"], "Look up the price of a product"),
    ("translate translate_word translation translate_text", ["thing: word text term phrase", "language: language target to target_language"],
     ["translate <1> [into|to] <2>", "how do you say <1> in <2>", "what is <1> in <2>", "what is the <2> word for <1>", "say <1> in <2>", "<1> in <2>", "give me the <2> translation of <1>", "what does <1> mean in <2>"], "Translate a word"),
    ("convert_currency exchange currency convert convert_money exchange_rate", ["amount: amount value sum", "currency: from source from_currency", "currency: to target to_currency"],
     ["convert <1> <2> [to|into] <3>", "how much is <1> <2> in <3>", "change <1> <2> into <3>", "what is <1> <2> in <3>", "exchange <1> <2> for <3>", "<1> <2> to <3>", "how many <3> do I get for <1> <2>"], "Convert an amount between currencies"),
    ("create_event add_event calendar schedule_meeting new_event add_appointment", ["topic: title name event subject", "day: day date when", "time: time start at"],
     ["add [a|the] <1> on <2> at <3> to my calendar", "schedule [a|the] <1> [for|on] <2> at <3>", "put [a|the] <1> in my calendar on <2> at <3>", "plan a <1> on <2> at <3>", "create an event <1> on <2> at <3>", "I have a <1> on <2> at <3>, save it", "calendar: <1>, <2>, <3>"], "Add an event to the calendar"),
    ("turn_on_light light_on switch_on_light lights_on", ["room: room place where location"], ["turn on the light[s|] in the <1>", "switch on the <1> light[s|]", "lights on in the <1>", "it is dark in the <1>", "make it bright in the <1>", "turn the <1> lights on", "I need light in the <1>"], "Turn on the light in a room"),
    ("set_temperature thermostat heat set_heating", ["room: room place zone", "count: degrees temperature value"],
     ["set the [heating|temperature] in the <1> to <2>[| degrees]", "make the <1> <2> degrees", "heat the <1> to <2> degrees", "set the <1> to <2> degrees", "I want <2> degrees in the <1>"], "Set the temperature of a room"),
    ("add_todo todo add_task create_task new_task remember", ["thing: task item text title"], ["[add|put] [a |the |]<1> [to|on] my list", "remind me to buy a <1>", "add <1> to my todo list", "I must not forget the <1>", "note: <1>", "put <1> on the list", "remember the <1>"], "Add an item to the list"),
    ("call_person call phone dial make_call", ["person: name contact person who"], ["call <1>", "phone <1>", "give <1> a call", "ring <1>", "I want to [talk|speak] to <1>", "dial <1>", "can I speak with <1>", "get <1> on the phone"], "Call a contact"),
    ("send_message message text sms send_text", ["person: to recipient contact", "thing: text message content body"], ["text <1> that the <2> is here", "send <1> a message saying <2>", "message <1>: <2>", "tell <1> <2>", "write <1> a message with the text <2>"], "Send a text message"),
    ("find_restaurant restaurant search_restaurants restaurants", ["city: city location place", "language: cuisine food kind"],
     ["find [a|an] <2> restaurant in <1>", "where can I eat <2> food in <1>", "<2> restaurants in <1>", "I want <2> food in <1>", "[search|look] for <2> restaurants in <1>", "I'm hungry, find a <2> place in <1>"], "Find a restaurant"),
    ("search_web search web_search google lookup", ["topic: query q text"], ["search [the web |online |]for <1>", "google <1>", "look up <1> online", "find information about <1>", "search the internet for <1>", "what can you find about <1>"], "Search the web"),
    ("get_time time current_time clock get_current_time", ["city: city place timezone location"], ["what time is it in <1>", "what is the time in <1>", "time in <1>", "tell me the time in <1>", "how late is it in <1>", "current time in <1>"], "Get the local time of a city"),
    ("order_item order buy purchase place_order order_product", ["thing: product item name", "count: quantity count amount number"], ["order <2> <1>s", "buy <2> <1>s", "I [want|need] <2> <1>s", "get me <2> <1>s", "please order <2> pieces of <1>", "purchase <2> units of <1>", "I'd like to buy <2> <1>s"], "Order a product"),
    ("get_distance distance route directions get_directions", ["city: start from origin", "city: end to destination"], ["how far is it from <1> to <2>", "distance from <1> to <2>", "what is the distance between <1> and <2>", "how far is <2> from <1>", "[show|give me] the way from <1> to <2>", "how many kilometers from <1> to <2>"], "Get the distance between two places"),
    ("get_stock_price stock stock_price quote share_price", ["word: symbol company ticker name"], ["what is the stock price of <1>", "stock price of <1>", "how is the <1> stock doing", "what is a share of <1> worth", "[get|show] the share price of <1>", "quote for <1>"], "Get the price of a share"),
    ("get_population population lookup_population", ["city: city place town"], ["how many people live in <1>", "what is the population of <1>", "population of <1>", "how big is the population of <1>", "how many inhabitants does <1> have"], "Get the population of a city"),
    ("get_news news headlines latest_news", ["topic: topic subject about"], ["[show|get|give] me [the |]news about <1>", "what's new about <1>", "news on <1>", "any news about the <1>", "[latest|today's] headlines on <1>"], "Get the latest news"),
]
VERBS = """open close start stop rotate clean paint move lock unlock count measure scan print repair check reset
update delete create copy rename charge fill empty load activate disable enable inspect track archive publish mount
register cancel sort filter calibrate test deploy restart pause resume wash feed water press lift weigh pack label
compute analyze export import upload download approve reject mark assign transfer list describe fetch find show""".split()
NOUNS = words.ITEMS + words.TOPICS + """robot engine door window valve tank server database table queue file folder
account user order package sensor motor pump filter battery device channel record image video song ticket boat
train truck shelf wheel drone field""".split()
PARAMETERS = [("speed", "count"), ("level", "count"), ("count", "count"), ("size", "count"), ("color", "color"), ("name", "person"), ("owner", "full"), ("city", "city"), ("mode", "word"), ("id", "count"), ("label", "word"), ("target", "word"),
              ("day", "day"), ("time", "time"), ("limit", "count"), ("amount", "amount"), ("room", "room"), ("user", "person"), ("topic", "topic"), ("language", "language"), ("weight", "count"), ("code", "word"), ("material", "thing"), ("angle", "count"), ("email", "email"), ("width", "count"), ("source", "city"), ("type", "word"), ("tag", "word"), ("priority", "count")]


class Made(dict[str, Any]):
    """A tool together with one request for it: `tool`, `question`, `arguments`."""


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
    return Made(tool=_tool(r, name, properties, description, {k: k for k in properties}), question=_say(r, pattern, slots), arguments=arguments)


def _say(r: Random, pattern: str, slots: dict[str, str]) -> str:
    first = pattern.split()[0]
    asks = first in {"what", "what's", "how", "will", "is", "do", "are", "where", "can", "any", "does"}
    statement = first in {"I", "I'm", "it", "weather", "timer", "lights", "price", "population", "stock", "news", "time", "distance", "note:", "calendar:", "quote", "hotel", "flights", "forecast", "alarm", "temperature", "current"} or first.startswith("<")
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
    form = r.choice(["<n> <v>", "<n> <v>", "<n> = <v>", "<n> set to <v>", "<v> as <n>", "<n>: <v>", "a <n> of <v>"])
    slots = {f"v{i}": value for i, (_, value) in enumerate(spoken)}
    listed = [phrasing.fill(form, {"n": name, "v": f"<v{i}>"}) for i, (name, _) in enumerate(spoken)]
    tail = (" " + r.choice(["with", "using", "with", "at", "for"]) + " " + r.choice([" and ", ", "]).join(listed)) if listed else ""
    pattern = r.choice([f"{verb} the {noun}", f"{verb} [a|the|my|our|this] {noun}", f"{verb} {noun}"]) + tail
    name = r.choice([f"{verb}_{noun}", f"{verb}_{noun}", f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.capitalize()}"])
    required = {k: k for k in arguments}
    return Made(tool=_tool(r, name, properties, f"{verb.capitalize()} the {noun}", required), question=phrasing.order(r, pattern, slots), arguments=dict(arguments))


def _tool(r: Random, name: str, properties: Values, description: str, required: Values) -> Tool:
    """A schema, as detailed as clients happen to write it."""
    if r.random() < 0.25:
        for key, schema in properties.items():
            properties[key] = {"type": schema["type"], "description": f"The {key.replace('_', ' ')}"} | {k: v for k, v in schema.items() if k == "enum"}
    parameters: Values = {"type": "object", "properties": properties}
    if r.random() < 0.85:
        parameters["required"] = list(required)
    if r.random() < 0.08:
        parameters["additionalProperties"] = False
    described = r.choice([description, description, f"{description}."]) if r.random() < 0.6 else None
    return chatml.function(name, parameters, described)


def make(r: Random) -> Made:
    """A tool and a request for it."""
    return (_everyday if r.random() < 0.58 else _made_up)(r)


def example(r: Random) -> tuple[str, str, list[Tool]]:
    """A request, the call, the tools."""
    wanted = make(r)
    name = wanted["tool"]["function"]["name"]
    others: list[Tool] = []
    for _ in range(r.choices([0, 1, 2, 3, 4], (22, 26, 28, 18, 6))[0]):
        other = make(r)["tool"]
        taken = [name, *(o["function"]["name"] for o in others)]
        if not any(_alike(other["function"]["name"], t) for t in taken):
            others.append(other)
    if others and r.random() < 0.1:
        return wanted["question"], NO_TOOL, others
    tools = [wanted["tool"], *others]
    r.shuffle(tools)
    order = wanted["tool"]["function"]["parameters"]["properties"]
    arguments = {k: wanted["arguments"][k] for k in order if k in wanted["arguments"]}
    return wanted["question"], chatml.call(name, arguments), tools


def _alike(a: str, b: str) -> bool:
    """Whether two tools could serve the same request."""
    groups = [e[0].split() for e in EVERYDAY]
    return a == b or any(a in g and b in g for g in groups)


def followed_up(r: Random) -> tuple[list[chatml.Message], str, list[Tool]]:
    """A conversation in which the call was made and its result came back; the answer reads it out."""
    question, text, tools = example(r)
    while text == NO_TOOL:
        question, text, tools = example(r)
    made = chatml.json.loads(text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    result = {r.choice([p[0] for p in PARAMETERS] + ["temperature", "result", "status", "price"]): r.choice([words.any_word(r), r.randint(0, 999)]) for _ in range(r.randint(1, 3))}
    if r.random() < 0.7:
        content, answer = chatml.dumps(result), "Result: " + ", ".join(f"{k} is {v}" for k, v in result.items()) + "."
    else:
        content = " ".join(words.any_word(r) for _ in range(r.randint(1, 6)))
        answer = f"Result: {content}."
    messages = [{"role": "user", "content": question},
                {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": made["name"], "arguments": chatml.dumps(made["arguments"])}}]},
                {"role": "tool", "content": content}]
    return messages, answer, tools
