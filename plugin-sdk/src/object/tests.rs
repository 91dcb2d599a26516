//! Objects in chunks: the same values as `serde_json` reads, wherever they are cut.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The values as they were handed out, and how reading ended with what was left.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    values: Vec<(String, String, bool)>,
    end: &'static str,
    rest: String,
}

fn read<'a>(chunks: impl IntoIterator<Item = &'a str>) -> Read {
    let mut scanner = ObjectScanner::default();
    let mut values: Vec<(String, String, bool)> = Vec::new();
    let mut end = "more";
    let mut rest = String::new();
    for mut text in chunks {
        loop {
            match scanner.next(&mut text) {
                Step::Value { key, text, complete } => match values.last_mut() {
                    Some((last, value, done)) if !*done => {
                        assert_eq!(last, key);
                        value.push_str(text);
                        *done = complete;
                    }
                    _ => values.push((key.to_owned(), text.to_owned(), complete)),
                },
                Step::End => end = "end",
                Step::Broken => end = "broken",
                Step::More => break,
            }
            if end != "more" {
                rest.push_str(text);
                break;
            }
        }
    }
    Read { values, end, rest }
}

/// Checks a text whole and cut at every place.
fn check(text: &str, values: &[(&str, &str, bool)], end: &str, rest: &str) {
    let owned = |&(key, value, done): &(&str, &str, bool)| (key.to_owned(), value.to_owned(), done);
    let values: Vec<_> = values.iter().map(owned).collect();
    for cut in text.char_indices().map(|(at, _)| at).chain([text.len()]) {
        let found = read([&text[..cut], &text[cut..]]);
        assert_eq!((&found.values, found.end, found.rest.as_str()), (&values, end, rest), "{cut}");
    }
}

#[test]
fn values_are_handed_out_as_written() {
    check("{}", &[], "end", "");
    check(" { \"a\" : 1 } x", &[("a", "1", true)], "end", " x");
    check(
        "{\"a\":\"}\\\"\",\"b\":[{\"c\":[]} ,-1.5e3],\"d\":true}",
        &[("a", "\"}\\\"\"", true), ("b", "[{\"c\":[]} ,-1.5e3]", true), ("d", "true", true)],
        "end",
        "",
    );
    check("{\"a\": {\"é\": \"é", &[("a", "{\"é\": \"é", false)], "more", "");
}

#[test]
fn what_is_no_json_is_noticed_where_it_begins() {
    check("word", &[], "broken", "word");
    check("{\"a\": }", &[], "broken", "}");
    check("{\"a\": 1 \"b\"", &[("a", "1", true)], "broken", "\"b\"");
    check("{\"a\": [1}", &[("a", "[1", false)], "broken", "}");
    check("{\"a\": {\"b\": 1\n</x", &[("a", "{\"b\": 1\n", false)], "broken", "</x");
    check("{\"a\": 1,}", &[("a", "1", true)], "broken", "}");
    check("{\"a\": tr\"ue\"", &[("a", "tr", false)], "broken", "\"ue\"");
    let deep = format!("{{\"a\": {}", "[".repeat(DEPTH_MAX + 1));
    check(&deep, &[("a", &"[".repeat(DEPTH_MAX), false)], "broken", "[");
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a\\\\\"{}\\[\\],: é]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-c ]{0,2}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_object_is_read_whole(
        fields in prop::collection::btree_map("[a-z]{1,4}", json(), 0..5),
        size in 1usize..9,
        pretty: bool,
    ) {
        let fields: serde_json::Map<String, Value> = fields.into_iter().collect();
        let object = Value::Object(fields.clone());
        let text = if pretty { format!("{object:#}") } else { object.to_string() };
        let characters: Vec<char> = text.chars().collect();
        let chunks: Vec<String> = characters.chunks(size).map(|c| c.iter().collect()).collect();
        let found = read(chunks.iter().map(String::as_str));
        prop_assert_eq!(found.end, "end");
        prop_assert_eq!(found.values.len(), fields.len());
        for ((key, value, done), (name, expected)) in found.values.iter().zip(&fields) {
            prop_assert!(*done);
            prop_assert_eq!(key, name);
            let value: Value = serde_json::from_str(value).expect("a value of a valid object");
            prop_assert_eq!(&value, expected);
        }
    }
}
