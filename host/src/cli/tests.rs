use std::path::Path;

use clap::{CommandFactory, Parser};

use super::arguments::{Arguments, Command};
use crate::config::{Given, Override};

fn given(arguments: &[&str]) -> Given {
    let words = std::iter::once("switchyard").chain(arguments.iter().copied());
    let Arguments { command, serve } = Arguments::try_parse_from(words).expect("they parse");
    match command {
        None => serve.given(None),
        Some(Command::Serve(config) | Command::Check(config)) => config.given(None),
        Some(Command::Compare(args)) => args.split(None).0,
        Some(_) => panic!("no configuration"),
    }
}

#[test]
fn the_arguments_fit_together() {
    Arguments::command().debug_assert();
}

#[test]
fn serving_is_the_default() {
    for words in [&["--config", "a.toml"][..], &["serve", "--config", "a.toml"]] {
        assert_eq!(given(words).file.as_deref(), Some(Path::new("a.toml")));
    }
    assert_eq!(given(&[]).file.as_deref(), Some(Path::new("config.toml")));
    assert_eq!(given(&["compare", "hello"]).file.as_deref(), Some(Path::new("config.toml")));
}

#[test]
fn another_model_is_served_on_the_built_in_defaults() {
    assert_eq!(given(&["--model", "dir"]).file, None);
    let both = given(&["check", "--model", "dir", "--config", "a.toml"]);
    assert_eq!(both.file.as_deref(), Some(Path::new("a.toml")));
}

#[test]
fn flags_come_before_what_is_set() {
    let given = given(&[
        "--set",
        "server.listen=127.0.0.1:1",
        "--listen",
        "127.0.0.1:0",
        "--adapters",
        "a",
        "--adapters",
        "b",
        "--set",
        "log.level=debug",
    ]);
    let expected = [
        Override::List {
            flag: "--adapters",
            key: "adapters.dirs",
            values: vec!["a".to_owned(), "b".to_owned()],
        },
        Override::Flag { flag: "--listen", key: "server.listen", value: "127.0.0.1:0".to_owned() },
        Override::Set("server.listen=127.0.0.1:1".to_owned()),
        Override::Set("log.level=debug".to_owned()),
    ];
    assert_eq!(given.overrides, expected);
}

#[test]
fn wrong_arguments_are_refused() {
    for words in
        [&["switchyard", "--confg", "x"][..], &["switchyard", "compare"], &["switchyard", "x"]]
    {
        assert!(Arguments::try_parse_from(words).is_err(), "{words:?}");
    }
}
