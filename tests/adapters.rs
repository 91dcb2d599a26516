//! Adapter directories come, go and change while the host runs.

use std::fs;

use crate::harness::{Server, Site, root, wait_until};

const SQL: &str = "host/demo/adapters/sql";
const QUESTION: &str = "How many orders are there?";

fn listed(server: &Server) -> Vec<String> {
    let models = server.get("/v1/models").json;
    let data = models["data"].as_array().expect("a list");
    data.iter().filter_map(|card| card["id"].as_str().map(str::to_owned)).collect()
}

fn lists(server: &Server, name: &str) -> bool {
    listed(server).iter().any(|id| id == name)
}

#[test]
fn a_new_directory_appears_and_a_removed_one_disappears() {
    let site = Site::bare();
    let server = site.serve(&[]);
    assert_eq!(listed(&server).len(), 1, "the base alone");
    site.add_adapter(&root().join(SQL), "sql");
    wait_until("the adapter is listed", || lists(&server, "sql"));
    let card = server.get("/v1/models/sql").json;
    assert_eq!(card["parent"], listed(&server)[0].as_str());
    assert!(server.ask("sql", QUESTION).content().starts_with("SELECT"));

    fs::remove_dir_all(site.path("adapters/sql")).expect("removed");
    wait_until("the adapter is gone", || !lists(&server, "sql"));
    let reply = server.post("/v1/chat/completions", &crate::harness::chat("sql", QUESTION));
    assert_eq!(reply.status, 404);
    assert_eq!(reply.json["error"]["code"], "model_not_found");
}

#[test]
fn a_replaced_directory_is_a_new_generation() {
    let site = Site::bare();
    site.add_adapter(&root().join(SQL), "task");
    let server = site.serve(&[]);
    let generation = |server: &Server| {
        let reply = server.ask("task", QUESTION);
        reply.header("x-switchyard-adapter-generation").expect("a generation").to_owned()
    };
    let before = generation(&server);
    fs::remove_dir_all(site.path("adapters/task")).expect("removed");
    site.add_adapter(&root().join("host/demo/adapters/math"), "task");
    wait_until("the new generation serves", || {
        let reply = server.post("/v1/chat/completions", &crate::harness::chat("task", QUESTION));
        reply.status == 200
            && reply.header("x-switchyard-adapter-generation") != Some(before.as_str())
    });
}

#[test]
fn a_broken_replacement_keeps_the_old_generation() {
    let site = Site::bare();
    site.add_adapter(&root().join(SQL), "sql");
    let server = site.serve(&[]);
    let before = server.ask("sql", QUESTION).content().to_owned();
    site.write("adapters/sql/adapter_config.json", "{ \"peft_type\": ");
    wait_until("the refusal is logged", || server.log().contains("adapter_config.json"));
    assert_eq!(server.ask("sql", QUESTION).content(), before);
}

#[test]
fn an_adapter_of_another_base_is_refused_unless_allowed() {
    let site = Site::bare();
    site.add_adapter(&root().join("host/demo/mismatched/sql-other-base"), "foreign");
    let server = site.serve(&[]);
    assert!(!lists(&server, "foreign"));
    let log = server.log();
    assert!(log.contains("switchyard-demo-b"), "names the adapter's base: {log}");
    assert!(log.contains("allow_base_mismatch"), "names the remedy: {log}");

    site.append_config("[adapters.options.foreign]\nallow_base_mismatch = true");
    wait_until("the adapter is listed", || lists(&server, "foreign"));
    assert_eq!(server.ask("foreign", QUESTION).status, 200);
}
