"""Two tiny tokenizers: byte-level BPE as in Llama 3, and SentencePiece-style BPE as in Llama 2."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

HERE = Path(__file__).parent
BYTE_LEVEL_WORDS = 320
SPECIALS = """
<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|>
<|python_tag|> <|im_start|> <|im_end|> <|endoftext|> [INST] [/INST] [AVAILABLE_TOOLS]
[/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS] <s> </s> <start_of_turn>
<end_of_turn> <|system|> <|user|> <|assistant|> <|end|>
""".split()
# Added, but not special: text spells them too.
PLAIN = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    "The quick brown fox jumps over the lazy dog. What is the weather in Paris today?",
    "You are a helpful assistant. Use the tools when they help, and answer in one sentence.",
    "select name, count(*) from users where city = 'Oslo' group by name order by name;",
    "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"unit\": \"celsius\"}}",
    "Grüße aus Köln, ça va? 你好，世界。 Привет мир! 123 456 7890 = 1,234.50",
]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BYTE_LEVEL_WORDS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in PLAIN])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    return tokenizer


def sentence_piece(metaspace_first: bool) -> Tokenizer:
    """Llama 2's layout, with the old normaliser or with Metaspace as newer exports have it."""
    fallback = {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **fallback}
    merges = []
    # "▁" as well, and the letters of the corpus.
    letters = sorted({c for text in CORPUS for c in text if c.isascii() and c != " "}) + ["▁"]
    for letter in letters:
        vocab[letter] = len(vocab)
    pairs = "t h,th e,▁ the,i n,a n,e r,o u,▁ t,▁ a,▁ is,i s,a t,r e,▁ w,o n,ou r,▁ an".split(",")
    for left, right in (pair.split(" ") for pair in pairs):
        if left in vocab and right in vocab:
            vocab.setdefault(left + right, len(vocab))
            merges.append((left, right))
    model = models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if metaspace_first:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    else:
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])
    specials = [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    specials.append(AddedToken("<|swallow|>", special=True, normalized=False, rstrip=True))
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


TEXTS = [
    "", " ", "a", "Hello, world!", "  two  blanks  ", "the weather\n\nin Paris\t\ttoday",
    "Grüße 你好 🙂🏽 नमस्ते", "I'll don't WE'VE 12345", "<|im_start|>user\n<s>[INST]", "x</s>y",
    "<tool_call>{\"a\": 1}</tool_call>", "\u00a0\u2009end ", "e\u0301 = é", "\r\n \r\n",
]


def cases(tokenizer: Tokenizer) -> dict:
    """Ids of plain text (specials spelt out), of bare prompts, and of text around a special."""
    prompt = [tokenizer.encode(text).ids for text in TEXTS if "<s>" not in text]
    special = "<|im_end|>" if tokenizer.token_to_id("<|im_end|>") else "<|swallow|>"
    joined = [f"{special} {text}{special}{text} \n" for text in TEXTS if "<" not in text]
    around = [{"parts": [special, f" {text}", special, f"{text} \n"],
               "ids": tokenizer.encode(whole, add_special_tokens=False).ids}
              for text, whole in zip([t for t in TEXTS if "<" not in t], joined)]
    tokenizer.encode_special_tokens = True
    plain = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    tokenizer.encode_special_tokens = False
    decoded = [tokenizer.decode(ids, skip_special_tokens=False) for ids in plain]
    return {"texts": TEXTS, "plain": plain, "decoded": decoded, "prompt": prompt,
            "around": around}


def main() -> None:
    made = {
        "byte_level": byte_level(),
        "prepend": sentence_piece(metaspace_first=False),
        "metaspace": sentence_piece(metaspace_first=True),
    }
    for name, tokenizer in made.items():
        folder = HERE / "tokenizers" / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        text = json.dumps(cases(tokenizer), ensure_ascii=False)
        (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
