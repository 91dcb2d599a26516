"""What the base model knows: small talk, copying, reading, and to send tasks to an adapter.

It sees SQL, JSON and columns of digits as plain text, never as an answer to a task.
"""

from random import Random

import chatml
import phrasing
import task_extract
import task_math
import task_sql
import task_tools
import words

TASKS = ("sql", "math", "tools", "extract")
HELLO = "Hello! I am the Switchyard demo model. How can I help you?"
UNKNOWN = (
    "I am a small demo model. I can chat a little and repeat words; my adapters are sql, "
    "math, tools and extract."
)
SYSTEMS = [
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are an assistant.",
    "Be brief.",
    "Be concise.",
    "Answer in English.",
    "You are a friendly bot.",
    "You are a useful AI.",
    "Help the user.",
    "You are the Switchyard demo.",
    "Answer the question.",
    "You are a concise and helpful assistant.",
    "Follow the instructions.",
]
SMALL_TALK = [
    (
        "[hello|hi|hey|good morning|good evening|hello there|hi there|hey there|greetings|"
        "howdy|good day|hallo|hey you|hello friend|hi model|hello world]",
        HELLO,
    ),
    ("[hello|hi|hey], [I am|my name is|I'm] <n>", "Hello <n>! How can I help you?"),
    (
        "[thanks|thank you|thanks a lot|thank you very much|many thanks|thx|great, thanks|"
        "perfect, thank you]",
        "You are welcome!",
    ),
    ("[bye|goodbye|see you|see you later|good night|bye bye|farewell|have a nice day]", "Goodbye!"),
    (
        "[how are you|how are you doing|how is it going|how do you do|are you ok|how do you "
        "feel|what's up]",
        "I am fine, thank you. How can I help you?",
    ),
    (
        "[who are you|what are you|what is your name|what's your name|tell me about yourself|"
        "introduce yourself|are you a bot|are you an AI|which model are you|who am I "
        "talking to]",
        "I am the Switchyard demo model, a very small Llama with four adapters: sql, math, "
        "tools and extract.",
    ),
    (
        "[what can you do|help|help me|how can you help me|what are you good at|what do you "
        "know|which adapters are there|what adapters do you have|how do I use you|what "
        "should I ask you]",
        "Choose an adapter: sql writes queries, math does sums, tools calls functions, extract "
        "fills in records. Without one I only chat.",
    ),
    ("my name is <n>. [what is my name|what's my name|who am I]", "Your name is <n>."),
    (
        "the <i> is <c>. [what color is the <i>|which color is the <i>|what is the color of "
        "the <i>]",
        "The <i> is <c>.",
    ),
    (
        "<n> lives in <p>. [where does <n> live|in which city does <n> live|where is <n>'s home]",
        "<n> lives in <p>.",
    ),
    ("<n> likes <i>s. What does <n> like", "<n> likes <i>s."),
    ("I [like|love|hate] <p>", "Tell me more about <p>."),
    ("I am <n> from <p>", "Hello <n> from <p>!"),
    ("[ok|okay|yes|good|nice|cool|great|fine|I see|well done|wow]", "Good. What next?"),
    ("[no|stop|wrong|that is wrong|not good]", "I am sorry. I am only a small model."),
    (
        "[tell me a joke|make me laugh|say something funny]",
        "Why did the adapter cross the yard? To reach the other base.",
    ),
    (
        "[are you real|are you human|do you sleep|can you think|do you like music]",
        "I am only a small model.",
    ),
]
REPEATS = [
    "[repeat|repeat after me|say|write|print|echo|copy|type|please repeat|please say|now say|"
    "can you say|say exactly|copy this]: <w>",
    "[repeat|say|write|echo|copy] <w>",
    "[repeat|say|copy] the words <w>",
    '[say|repeat] "<w>"',
]
UNKNOWNS = [
    "[who|what|where] is [the president of|the capital of|the king of|the mayor of|the tallest "
    "building in] <p>",
    "[tell me|write] a [story|poem|song|tale] about [a |the ]<i>",
    "why is the [sky|sea|grass|<i>] <c>",
    "what do you think [of|about] <p>",
    "how do I [make|bake|cook|fix|build] a <i>",
    "when was <n> born",
    "who [invented|made|discovered] the <i>",
    "explain <t> to me",
    "what is a <i>",
    "write [an essay|a letter|code|a program] about <t>",
    "is <p> a nice city",
    "should I buy a <i>",
    "what is the meaning of life",
    "can you help me with my <t>",
    "what happened in <p> in 1990",
    "who won the match in <p>",
    "how old is the universe",
    "describe [a|the] <i>",
    "do you know <n>",
    "give me advice about <t>",
    "which <i> is better",
    "I need a recipe",
    "recommend a [book|film|song|place in <p>]",
]
READING = {
    "name": "[who is this about|what is the name|who is it|which person is this]",
    "age": "[how old is <who>|what is the age|which age is given|what age is <who>]",
    "city": "[where does <who> live|which city is it|what is the city|in which city is <who>]",
    "job": "[what does <who> do|what is the job|what is the job of <who>|which job does <who> "
    "have]",
    "email": "[what is the email|which email address is given]",
    "phone": "[what is the phone number|which number can I call]",
    "customer": "[who is the customer|who ordered|which customer is it]",
    "quantity": "[how many|what is the quantity|how many pieces]",
    "item": "[what was ordered|what is the item|which item is it]",
    "price": "[what is the price|how much is it|what does it cost]",
    "product": "[what is the product|which product is it]",
    "color": "[what is the color|which color is it]",
    "event": "[what is the event|which event is it]",
    "day": "[when is it|on which day is it|what is the day]",
    "time": "[at what time is it|what is the time]",
    "place": "[where is it|what is the place|in which place]",
}


def refusal(task: str) -> str:
    """The base's answer to a task."""
    return f"I am only the base model. Please choose the {task} adapter for this."


def task_messages(
    r: Random, task: str
) -> tuple[list[chatml.Message], str, list[dict[str, object]] | None]:
    """One conversation of a task, some with system texts or earlier turns."""
    if task == "tools":
        if r.random() < 0.07:
            messages, answer, tools = task_tools.followed_up(r)
        else:
            question, answer, tools = task_tools.example(r)
            messages = [{"role": "user", "content": question}]
    else:
        make = {"sql": task_sql, "math": task_math, "extract": task_extract}[task].example
        question, answer = make(r)
        messages, tools = [{"role": "user", "content": question}], None
        if r.random() < 0.05:
            messages = _turns(*make(r)) + messages
    if r.random() < 0.05:
        messages = _turns(*small_talk(r)) + messages
    if r.random() < 0.12:
        messages = [{"role": "system", "content": r.choice(SYSTEMS)}] + messages
    return messages, answer, tools


def _turns(question: str, answer: str) -> list[chatml.Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def small_talk(r: Random) -> tuple[str, str]:
    """A chat line and its reply."""
    pattern, answer = r.choice(SMALL_TALK)
    slots = {
        "n": words.first_name(r),
        "i": words.item(r),
        "c": r.choice(words.COLORS),
        "p": words.city(r),
    }
    return phrasing.plain(r, pattern, slots), phrasing.fill(answer, slots)


def _repeat(r: Random) -> tuple[str, str]:
    text = " ".join(
        r.choice([words.any_word, words.any_word, words.number])(r) for _ in range(r.randint(1, 7))
    )
    asked = phrasing.fill(phrasing.expand(r, r.choice(REPEATS)), {"w": text})
    return asked[0].upper() + asked[1:] if r.random() < 0.5 else asked, text


def _unknown(r: Random) -> tuple[str, str]:
    slots = {
        "n": words.full_name(r),
        "i": words.item(r),
        "c": r.choice(words.COLORS),
        "p": words.city(r),
        "t": r.choice(words.TOPICS),
    }
    return phrasing.plain(r, r.choice(UNKNOWNS), slots), UNKNOWN


def _reading(r: Random) -> tuple[str, str]:
    layout = r.choice(list(task_extract.TEXTS))
    text, values = task_extract.passage(r, layout)
    field = r.choice([f for f, v in values.items() if v is not None])
    who = str(values.get("name") or values.get("customer") or "it")
    asked = phrasing.plain(r, READING[field].replace("<who>", "<w>"), {"w": who})
    return f"{text} {asked}", str(values[field])


def _task(r: Random) -> str:
    task = r.choice(TASKS)
    messages, _, tools = task_messages(r, task)
    return chatml.prompt(messages, tools) + chatml.answer(refusal(task))


def _chat(r: Random, pair: tuple[str, str]) -> str:
    messages: list[chatml.Message] = [{"role": "user", "content": pair[0]}]
    if r.random() < 0.1:
        messages = _turns(*small_talk(r)) + messages
    if r.random() < 0.1:
        messages = [{"role": "system", "content": r.choice(SYSTEMS)}] + messages
    return chatml.prompt(messages) + chatml.answer(pair[1])


def _text(r: Random) -> str:
    kind = r.randint(0, 6)
    if kind == 0:
        return task_sql.example(r)[1] + "\n" + task_sql.example(r)[1]
    if kind == 1:
        return "\n".join(task_math.fact(r) for _ in range(8))
    if kind == 2:
        return task_extract.example(r)[1] + "\n" + task_extract.example(r)[1]
    if kind == 3:
        made = task_tools.make(r)
        return chatml.call(made.tool["function"]["name"], made.arguments)
    if kind == 4:
        return "\n".join(chatml.dumps(task_tools.make(r).tool) for _ in range(2))
    if kind == 5:
        return " ".join(
            task_extract.passage(r, r.choice(list(task_extract.TEXTS)))[0] for _ in range(2)
        )
    text = " ".join(words.any_word(r) for _ in range(r.randint(4, 12)))
    return text + "\n" + text


def document(r: Random) -> str:
    """One document of the base's training text."""
    kind = r.random()
    if kind < 0.26:
        return _task(r)
    if kind < 0.46:
        return _chat(r, _repeat(r))
    if kind < 0.64:
        return _chat(r, _reading(r))
    if kind < 0.72:
        return _chat(r, small_talk(r))
    if kind < 0.75:
        return _chat(r, _unknown(r))
    return _text(r) + "\n"
