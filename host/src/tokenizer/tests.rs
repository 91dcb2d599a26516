use std::{fs, sync::LazyLock};

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["byte_level", "prepend", "metaspace"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tokenizers").join(name)
}

fn load(name: &str) -> Tokenizer {
    static LOADED: LazyLock<Vec<Tokenizer>> =
        LazyLock::new(|| NAMES.map(|name| Tokenizer::load(&golden(name)).unwrap()).into());
    LOADED[NAMES.iter().position(|known| *known == name).unwrap()].clone()
}

fn expected(name: &str) -> Value {
    let text = fs::read_to_string(golden(name).join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn ids_equal_those_of_hugging_face() {
    for name in NAMES {
        let (tokenizer, expected) = (load(name), expected(name));
        let all = texts(&expected["texts"]);
        for (i, text) in all.iter().enumerate() {
            assert_eq!(tokenizer.encode(text), ids(&expected["plain"][i]), "{name} {text:?}");
            let decoded = tokenizer.decode(&ids(&expected["plain"][i]));
            assert_eq!(decoded, expected["decoded"][i], "{name} {text:?}");
        }
        for (i, text) in all.iter().filter(|text| !text.contains("<s>")).enumerate() {
            if !text.contains("</s>") {
                let ids = ids(&expected["prompt"][i]);
                assert_eq!(tokenizer.encode_prompt(text), ids, "{name} {text:?}");
            }
        }
        for case in expected["around"].as_array().unwrap() {
            let parts = texts(&case["parts"]);
            let segments: Vec<_> = parts
                .iter()
                .enumerate()
                .map(|(i, part)| match i % 2 {
                    0 => Segment::Special(part.clone()),
                    _ => Segment::Text(part.clone()),
                })
                .collect();
            let found = tokenizer.encode_segments(&segments).unwrap();
            assert_eq!(found, ids(&case["ids"]), "{name} {parts:?}");
        }
    }
}

#[test]
fn no_text_forges_a_special_token() {
    for name in NAMES {
        let tokenizer = load(name);
        let all: String = tokenizer.specials().into_iter().map(|(literal, _)| literal).collect();
        let special = |ids: Vec<u32>| ids.into_iter().any(|id| tokenizer.is_special(id));
        assert!(!special(tokenizer.encode(&all)), "{name}");
        assert!(!special(tokenizer.encode_prompt(&all)[1..].to_vec()), "{name}");
        let halves: Vec<_> = all.chars().map(|c| Segment::Text(c.to_string())).collect::<Vec<_>>();
        let joined = tokenizer.encode_segments(&halves).unwrap();
        assert_eq!(joined, tokenizer.encode(&all), "adjacent text is one text");
        assert!(!special(joined), "{name}");
    }
}

#[test]
fn segments_name_what_there_is() {
    let tokenizer = load("byte_level");
    let error = tokenizer.encode_segments(&[Segment::Special("<|nope|>".into())]).unwrap_err();
    assert!(error.to_string().contains("<|nope|>") && error.to_string().contains("<|im_end|>"));
    let error = tokenizer.encode_segments(&[Segment::Tokens(vec![9999])]).unwrap_err();
    assert!(error.to_string().contains("9999"));
    let mixed = [
        Segment::Text("a".into()),
        Segment::Tokens(vec![5, 321, 5]),
        Segment::Special("<tool_call>".into()),
        Segment::Text("b".into()),
    ];
    let tool_call = tokenizer.special_id("<tool_call>").unwrap();
    assert!(!tokenizer.is_special(tool_call), "added, but text all the same");
    let ids = [tokenizer.encode("a"), vec![5, 321, 5, tool_call], tokenizer.encode("b")].concat();
    assert_eq!(tokenizer.encode_segments(&mixed).unwrap(), ids);
}

#[test]
fn a_split_character_is_held_back() {
    for name in NAMES {
        let tokenizer = load(name);
        let text = "é 你 🙂";
        let mut detokenizer = tokenizer.detokenizer(false);
        let mut steps: Vec<String> =
            tokenizer.encode(text).into_iter().map(|id| detokenizer.push(id)).collect();
        steps.push(detokenizer.finish());
        assert!(steps.iter().any(String::is_empty), "{name}: some token completes nothing");
        assert_eq!(steps.concat(), text, "{name}");
    }
    let tokenizer = load("byte_level");
    let ids = tokenizer.encode("🙂");
    let mut detokenizer = tokenizer.detokenizer(false);
    assert_eq!(detokenizer.push(ids[0]), "");
    assert_eq!(detokenizer.finish(), "\u{fffd}", "an answer may end within a character");
}

#[test]
fn specials_are_skipped_unless_kept() {
    let tokenizer = load("byte_level");
    let end = tokenizer.special_id("<|im_end|>").unwrap();
    let ids = [tokenizer.encode("a"), vec![end, 1_000_000]].concat();
    assert_eq!(tokenizer.decode(&ids), "a<|im_end|>");
    let mut detokenizer = tokenizer.detokenizer(false);
    assert_eq!(ids.iter().map(|&id| detokenizer.push(id)).collect::<String>(), "a");
    assert_eq!(tokenizer.token_bytes(end), b"<|im_end|>");
    assert!(tokenizer.token_bytes(1_000_000).is_empty());
}

#[test]
fn what_could_fail_later_is_refused_now() {
    let cases: [(&str, &str, &str); 6] = [
        ("\"type\":\"BPE\"", "\"type\":\"WordPiece\"", "BPE or Unigram"),
        ("\"dropout\":null", "\"dropout\":0.5", "dropout"),
        ("\"unk_token\":\"<unk>\"", "\"unk_token\":\"<none>\"", "unk_token"),
        ("\"stop\":0", "\"stop\":1", "decoder"),
        ("\"pattern\":{\"String\":\"▁\"}", "\"pattern\":{\"Regex\":\"▁\"}", "decoder"),
        ("\"<s>\":1,", "\"<s>\":4294967290,", "tokenizer.json"),
    ];
    for (from, to, part) in cases {
        let dir = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(golden("prepend").join("tokenizer.json")).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(dir.path().join("tokenizer.json"), text.replacen(from, to, 1)).unwrap();
        match Tokenizer::load(dir.path()) {
            Ok(_) => panic!("{to} was taken"),
            Err(error) => assert!(
                error.to_string().contains("tokenizer.json") && error.to_string().contains(part),
                "{error}"
            ),
        }
    }
    let error = Tokenizer::load(Path::new("/nowhere")).err().unwrap().to_string();
    assert!(error.contains("/nowhere/tokenizer.json") && error.contains("save_pretrained"));
}

fn any_ids(tokenizer: &Tokenizer) -> impl Strategy<Value = Vec<u32>> + use<> {
    prop::collection::vec(0..tokenizer.vocabulary() as u32 + 2, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pieces_join_to_the_whole(
        (name, ids) in (0usize..3).prop_flat_map(|i| (Just(NAMES[i]), any_ids(&load(NAMES[i]))))
    ) {
        let tokenizer = load(name);
        let mut detokenizer = tokenizer.detokenizer(true);
        let mut joined: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        joined.push_str(&detokenizer.finish());
        prop_assert_eq!(&joined, &tokenizer.decode(&ids));
        let whole = tokenizer.inner.hugging_face.decode(&ids, false).unwrap();
        if name == "byte_level" || !whole.contains('\u{fffd}') {
            prop_assert_eq!(joined, whole);
        }
    }

    #[test]
    fn text_survives(text in "\\PC{0,40}") {
        for name in NAMES {
            let tokenizer = load(name);
            let ids = tokenizer.encode(&text);
            let mut detokenizer = tokenizer.detokenizer(false);
            let pieces: Vec<String> = ids.iter().map(|&id| detokenizer.push(id)).collect();
            let same = text.contains('\u{fffd}') || !pieces.concat().contains('\u{fffd}');
            prop_assert!(same, "a replacement character came from {:?}", text);
            if name == "byte_level" {
                prop_assert_eq!(pieces.concat(), text.clone());
            }
        }
    }

    #[test]
    fn damaged_files_do_not_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = fs::read(golden("prepend").join("tokenizer.json")).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), bytes).unwrap();
        if let Err(error) = Tokenizer::load(dir.path()) {
            prop_assert!(error.to_string().contains("tokenizer.json"), "{error}");
        }
    }
}
