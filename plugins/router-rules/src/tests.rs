//! Which rule decides.

use super::*;

fn rules(json: &str) -> Rules {
    Rules::configure(Config::new(json)).expect("a valid configuration")
}

/// The adapter chosen among `sql`, `math`, `tools` and `chat`.
fn check(json: &str, text: &str, has_tools: bool, expected: Option<&str>) {
    let rules = rules(json);
    let exists = |adapter: &str| ["sql", "math", "tools", "chat"].contains(&adapter);
    let chosen = rules.choose(text, has_tools, exists).map(|(adapter, _)| adapter.to_owned());
    assert_eq!(chosen.as_deref(), expected, "{json} on {text:?}");
}

#[test]
fn the_first_rule_that_fits_decides() {
    let json = r#"{ "rules": [
        { "adapter": "tools", "tools": true },
        { "adapter": "absent", "any": ["select"] },
        { "adapter": "sql", "any": ["Table", "select", "how many"] },
        { "adapter": "math", "prefix": ["compute", "what is"], "any": ["+", "plus"] },
        { "adapter": "chat", "all": ["tell", "joke"] }
    ] }"#;
    let cases = [
        ("how many users?", true, Some("tools")),
        ("How Many users?", false, Some("sql")),
        ("SELECT the best", false, Some("sql")),
        ("the tables", false, None),
        ("selection", false, None),
        ("  What is 3+4?", false, Some("math")),
        ("what is three plus 4", false, Some("math")),
        ("so what is 3+4?", false, None),
        ("what is surplus", false, None),
        ("Tell me a joke!", false, Some("chat")),
        ("Tell me", false, None),
        ("", false, None),
    ];
    for (text, has_tools, expected) in cases {
        check(json, text, has_tools, expected);
    }
}

#[test]
fn the_default_serves_what_no_rule_fits() {
    let rule = r#"{ "adapter": "sql", "any": ["table"] }"#;
    check(&format!(r#"{{ "rules": [{rule}], "default": "chat" }}"#), "hello", false, Some("chat"));
    check(&format!(r#"{{ "rules": [{rule}], "default": "absent" }}"#), "hello", false, None);
    check(r#"{ "rules": [{ "adapter": "math" }], "default": "chat" }"#, "", true, Some("math"));
}

#[test]
fn words_end_where_letters_end() {
    let cases = [
        ("or", "word", false),
        ("or", "this or that", true),
        ("or", "or", true),
        ("or", "word or", true),
        ("é", "né", false),
        ("ß", "groß ß", true),
        ("c++", "in c++ now", true),
        ("+", "3+4", true),
    ];
    for (phrase, text, expected) in cases {
        assert_eq!(occurs(phrase, text), expected, "{phrase} in {text}");
    }
}

#[test]
fn the_stamp_is_in_the_reason() {
    let rules = rules(r#"{ "rules": [{ "adapter": "sql" }], "stamp": "v7" }"#);
    let Decision::Select(selection) = rules.decide(rules.choose("", false, |_| true)) else {
        panic!("the rule without conditions fits everything");
    };
    assert_eq!(selection.reason.as_deref(), Some("rule 1 [v7]"));
    assert_eq!(selection.ext, [Kv::new("stamp", "v7")]);
    assert_eq!(rules.decide(None), Decision::Pass);
}

#[test]
fn a_wrong_configuration_is_refused_by_key() {
    for (json, word) in [
        (r#"{ "rules": [{ "adaptor": "sql" }] }"#, "adaptor"),
        (r#"{ "rules": [{ "any": ["x"] }] }"#, "adapter"),
        (r#"{}"#, "rules"),
    ] {
        let error = Rules::configure(Config::new(json)).err().expect("refused");
        assert!(error.contains(word), "{error}");
    }
}
