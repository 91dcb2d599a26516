"""The official OpenAI client against a running host.

    python tests/openai_client.py target/debug/switchyard

Starts the demo on a free port, runs every case, and ends with "N passed, N failed".
"""

import asyncio
import json
import subprocess
import sys
import traceback
import urllib.error
import urllib.request

import openai

BASE = "switchyard-demo"
QUESTION = [{"role": "user", "content": "How many orders are there?"}]
HELLO = [{"role": "user", "content": "Hello!"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
CASES = []


def case(function):
    """Registers a case."""
    CASES.append(function)
    return function


def refused(status_class, call, param=None):
    """The call raises that error of the client's, with the body's fields filled in."""
    try:
        call()
    except status_class as error:
        assert error.body["message"], error.body
        if param is not None:
            assert error.body["param"] == param, error.body
        return error
    raise AssertionError(f"no {status_class.__name__}")


def raw(client, path, body=None):
    """Status and JSON of a request that the client would not send."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{client.base_url}{path}", body, headers)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def chat(client, model=BASE, messages=None, **fields):
    """One greedy chat call."""
    fields.setdefault("temperature", 0)
    fields.setdefault("max_tokens", 60)
    return client.chat.completions.create(model=model, messages=messages or HELLO, **fields)


@case
def models_are_listed(client):
    models = list(client.models.list())
    assert models[0].id == BASE and models[0].parent is None
    assert {"sql", "math", "tools", "extract"} <= {m.id for m in models[1:]}
    assert all(m.parent == BASE for m in models[1:])


@case
def a_model_is_retrieved(client):
    assert client.models.retrieve("sql").parent == BASE


@case
def an_unknown_model_is_not_found(client):
    error = refused(openai.NotFoundError, lambda: client.models.retrieve("nobody"))
    assert error.code == "model_not_found"


@case
def a_chat_answers(client):
    answer = chat(client)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


@case
def usage_adds_up(client):
    usage = chat(client).usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@case
def an_adapter_answers_by_name(client):
    answer = chat(client, "sql", QUESTION)
    assert answer.model == "sql"
    assert answer.choices[0].message.content.startswith("SELECT COUNT(*)")


@case
def a_chat_with_an_unknown_model_is_not_found(client):
    refused(openai.NotFoundError, lambda: chat(client, "nobody"), param="model")


@case
def greedy_answers_repeat(client):
    first, second = (chat(client, "sql", QUESTION) for _ in range(2))
    assert first.choices[0].message.content == second.choices[0].message.content


@case
def a_stream_joins_to_the_whole_answer(client):
    whole = chat(client, "sql", QUESTION).choices[0].message.content
    chunks = list(chat(client, "sql", QUESTION, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len({c.id for c in chunks}) == 1


@case
def a_stream_reports_usage_when_asked(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert all(c.usage is None for c in chunks[:-1])
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0


@case
def usage_options_need_a_stream(client):
    options = {"include_usage": True}
    refused(openai.BadRequestError, lambda: chat(client, stream_options=options))


@case
def the_length_limit_is_reported(client):
    answer = chat(client, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


@case
def max_completion_tokens_is_the_newer_name(client):
    answer = client.chat.completions.create(
        model=BASE, messages=HELLO, max_completion_tokens=3, temperature=0
    )
    assert answer.usage.completion_tokens == 3


@case
def a_stop_string_ends_the_answer(client):
    whole = chat(client, "sql", QUESTION).choices[0].message.content
    stop = whole[8:14]
    answer = chat(client, "sql", QUESTION, stop=stop)
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@case
def a_stop_string_does_not_leak_into_a_stream(client):
    whole = chat(client, "sql", QUESTION).choices[0].message.content
    stop = whole[8:14]
    chunks = chat(client, "sql", QUESTION, stop=[stop], stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole[: whole.index(stop)]


@case
def a_seed_repeats_a_draw(client):
    def draw(seed):
        answer = chat(client, temperature=1.5, seed=seed, max_tokens=20)
        return answer.choices[0].message.content

    assert draw(7) == draw(7)
    assert len({draw(seed) for seed in range(6)}) > 1


@case
def several_choices_differ(client):
    joke = [{"role": "user", "content": "Say something else"}]
    answer = chat(client, messages=joke, n=3, temperature=2, seed=42, max_tokens=20)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert len({c.message.content for c in answer.choices}) > 1


@case
def logprobs_come_with_alternatives(client):
    answer = chat(client, "sql", QUESTION, logprobs=True, top_logprobs=3)
    for token in answer.choices[0].logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob >= token.top_logprobs[2].logprob
        assert bytes(token.bytes).decode(errors="replace") is not None
    text = b"".join(bytes(t.bytes) for t in answer.choices[0].logprobs.content).decode()
    assert answer.choices[0].message.content in text


@case
def too_many_logprobs_are_refused(client):
    call = lambda: chat(client, logprobs=True, top_logprobs=21)  # noqa: E731
    refused(openai.BadRequestError, call, param="top_logprobs")


@case
def a_tool_is_called(client):
    answer = chat(client, "tools", WEATHER, tools=TOOLS, max_tokens=120)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls", choice
    call = choice.message.tool_calls[0]
    assert call.function.name == "get_weather" and call.id
    assert json.loads(call.function.arguments) == {"city": "Paris"}


@case
def a_streamed_tool_call_is_rebuilt(client):
    with client.chat.completions.stream(
        model="tools", messages=WEATHER, tools=TOOLS, temperature=0, max_tokens=120
    ) as stream:
        for _ in stream:
            pass
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Paris"}


@case
def tool_results_go_back_in(client):
    call = chat(client, "tools", WEATHER, tools=TOOLS, max_tokens=120).choices[0].message
    result = {
        "role": "tool",
        "tool_call_id": call.tool_calls[0].id,
        "content": '{"sky": "clear"}',
    }
    history = WEATHER + [call.model_dump(exclude_none=True), result]
    assert chat(client, "tools", history, tools=TOOLS).usage.completion_tokens > 0


@case
def no_tool_is_called_when_forbidden(client):
    answer = chat(client, "tools", WEATHER, tools=TOOLS, tool_choice="none")
    assert not answer.choices[0].message.tool_calls


@case
def a_tool_choice_without_tools_is_refused(client):
    refused(openai.BadRequestError, lambda: chat(client, tool_choice="required"))


@case
def the_router_chooses_for_auto(client):
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=QUESTION, temperature=0, max_tokens=60
    )
    assert raw.headers["x-switchyard-adapter"] == "sql"
    assert raw.parse().choices[0].message.content.startswith("SELECT")


@case
def a_request_id_is_echoed(client):
    raw = client.chat.completions.with_raw_response.create(
        model=BASE, messages=HELLO, max_tokens=1, extra_headers={"x-request-id": "abc-123"}
    )
    assert raw.headers["x-request-id"] == "abc-123"


@case
def a_completion_continues_text(client):
    answer = client.completions.create(model=BASE, prompt="Ada Smith", max_tokens=5, temperature=0)
    assert answer.object == "text_completion" and answer.choices[0].text
    assert answer.usage.completion_tokens <= 5


@case
def completions_take_lists_and_token_ids(client):
    answer = client.completions.create(model=BASE, prompt=["Ada", "Rome"], max_tokens=3)
    assert [c.index for c in answer.choices] == [0, 1]
    answer = client.completions.create(model=BASE, prompt=[[5, 6, 7], [8, 9]], max_tokens=3)
    assert answer.usage.prompt_tokens == 5


@case
def a_completion_has_logprobs(client):
    answer = client.completions.create(
        model=BASE, prompt="Ada", max_tokens=4, logprobs=2, temperature=0
    )
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == 4
    assert all(len(top) >= 2 for top in logprobs.top_logprobs)
    assert logprobs.text_offset == sorted(logprobs.text_offset)


@case
def a_prompt_beyond_the_context_is_refused(client):
    long = [{"role": "user", "content": "word " * 5000}]
    error = refused(openai.BadRequestError, lambda: chat(client, messages=long))
    assert error.code == "context_length_exceeded"


@case
def ranges_are_checked(client):
    refused(openai.BadRequestError, lambda: chat(client, temperature=3), param="temperature")
    refused(openai.BadRequestError, lambda: chat(client, top_p=0), param="top_p")
    refused(openai.BadRequestError, lambda: chat(client, n=0), param="n")
    refused(openai.BadRequestError, lambda: chat(client, max_tokens=0), param="max_tokens")


@case
def empty_messages_are_refused(client):
    call = lambda: client.chat.completions.create(model=BASE, messages=[])  # noqa: E731
    refused(openai.BadRequestError, call, param="messages")


@case
def what_is_not_supported_says_so(client):
    form = {"type": "json_object"}
    call = lambda: chat(client, response_format=form)  # noqa: E731
    refused(openai.BadRequestError, call, param="response_format")


@case
def an_unknown_route_is_a_json_error(client):
    status, body = raw(client, "nowhere")
    assert status == 404 and body["error"]["message"]


@case
def a_broken_body_is_a_json_error(client):
    status, body = raw(client, "chat/completions", b'{"model": ')
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"


@case
def a_disconnect_leaves_the_host_well(client):
    for _ in range(10):
        stream = chat(client, stream=True, max_tokens=500, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    assert chat(client).choices[0].message.content


@case
def many_clients_at_once_get_their_own_answers(client):
    async def ask(asynchronous, model):
        return await asynchronous.chat.completions.create(
            model=model, messages=QUESTION, temperature=0, max_tokens=60
        )

    async def crowd():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none") as asynchronous:
            models = [BASE, "sql", "math", "extract"] * 8
            return models, await asyncio.gather(*(ask(asynchronous, m) for m in models))

    models, answers = asyncio.run(crowd())
    texts = {}
    for model, answer in zip(models, answers):
        texts.setdefault(model, set()).add(answer.choices[0].message.content)
    assert all(len(answer) == 1 for answer in texts.values()), texts


def main():
    """Runs the cases against a host of its own."""
    command = [sys.argv[1], "serve", "--listen", "127.0.0.1:0", "--set", "log.level=warn"]
    host = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    failed = 0
    try:
        address = host.stdout.readline().strip().removeprefix("listening on ")
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        for run in CASES:
            try:
                run(client)
                print(f"ok   {run.__name__}")
            except Exception:
                failed += 1
                print(f"FAIL {run.__name__}\n{traceback.format_exc()}")
    finally:
        host.terminate()
        host.wait()
    print(f"{len(CASES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
