use clap::Parser;
use serde_json::Value;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: BenchArgs,
}

/// The JSON lines that these arguments give on the tiny shape.
fn lines(arguments: &str) -> Vec<Value> {
    let words = format!("bench {arguments} --model tiny --threads 1");
    let Command { args } = Command::try_parse_from(words.split(' ')).expect("they parse");
    let mut out = Vec::new();
    run(&args, &mut out).expect("it runs");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

#[test]
fn decoding_is_set_beside_the_bare_batch_and_the_byte_floor() {
    let modes = ["none", "unused", "one", "distinct"];
    let lines = lines(&format!(
        "--batch 1,3 --adapters {} --rank mixed --prompt 17 --output 3 --repeat 1",
        modes.join(",")
    ));
    assert_eq!(lines.len(), 8);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["mode"], modes[i / 2], "{line}");
        assert_eq!(line["B"], [1, 3][i % 2], "{line}");
        assert_eq!(line["rank"], "mixed");
        assert!(line["byte_floor_ms"].as_f64() > Some(0.0), "{line}");
        assert!(line["prefill_ms"].as_f64() > Some(0.0), "{line}");
        assert_eq!(line.get("step_ratio").is_some(), i >= 2, "{line}");
        assert_eq!(line.get("increment_ratio").is_some(), i >= 4, "{line}");
    }
    let bytes: Vec<u64> =
        lines.iter().filter_map(|line| line["distinct_adapter_bytes"].as_u64()).collect();
    assert_eq!(bytes[..4], [0; 4], "rows without adapters read none");
    assert_eq!(bytes[4], bytes[5], "one adapter, however many rows share it");
    assert_eq!(bytes[4], bytes[6], "one row has one adapter");
    assert!(bytes[7] > 5 * bytes[6], "ranks 8, 16 and 32 beside rank 8: {bytes:?}");
}

#[test]
fn many_adapters_go_through_a_pool_that_holds_a_part_of_them() {
    let lines = lines(
        "many --registered 12 --few 2 --requests 40 --concurrent 4 --prompt 9 --output 5 \
         --fits 25 --host-memory 1GiB",
    );
    let titles: Vec<_> =
        lines.iter().map(|line| (line["registered"].as_u64(), line["pass"].as_str())).collect();
    let title = |registered, pass| (Some(registered), Some(pass));
    let expected = [title(2, "cold"), title(2, "warm"), title(12, "cold"), title(12, "warm")];
    assert_eq!(titles, expected);
    for line in &lines {
        assert_eq!((&line["requests"], &line["failed"]), (&40.into(), &0.into()), "{line}");
        assert!(line["steps"].as_u64() >= Some(5), "{line}");
        assert!(line["byte_floor_s"].as_f64() > Some(0.0), "{line}");
        let ttft = |name: &str| line[name].as_f64();
        assert!(ttft("ttft_p50_ms") <= ttft("ttft_p99_ms"), "{line}");
        assert!(ttft("ttft_p99_ms") <= ttft("ttft_max_ms"), "{line}");
        assert!(!line["slabs"].as_array().expect("a series").is_empty(), "{line}");
    }
    let [few_cold, few_warm, cold, warm] = &lines[..] else { panic!("four passes") };
    assert_eq!(few_cold["distinct"], 2);
    assert_eq!((&few_cold["host_loads"], &few_cold["adapter_loads"]), (&2.into(), &2.into()));
    assert_eq!((&few_warm["host_loads"], &few_warm["adapter_loads"]), (&0.into(), &0.into()));
    assert_eq!(cold["host_loads"], cold["distinct"], "another set is cold again");
    assert!(warm["host_hit_rate"].as_f64() > cold["host_hit_rate"].as_f64());
    assert!(cold["adapter_loads"].as_u64() >= cold["distinct"].as_u64());
    assert!(warm["adapter_loads"].as_u64() > Some(0), "a quarter of the adapters fits");
    assert!(few_warm.get("against_few").is_none() && warm.get("against_few").is_some());
}

#[test]
fn a_step_is_profiled_stage_by_stage() {
    let lines =
        lines("profile --batch 1,3 --adapters none,one,distinct --context 20 --steps 3 --rank 8");
    assert_eq!(lines.len(), 6);
    for (i, line) in lines.iter().enumerate() {
        let stages = line["stages"].as_array().expect("a list");
        let stage = |name: &str| stages.iter().find(|stage| stage["stage"] == name);
        let calls = |name: &str| stage(name).and_then(|stage| stage["calls"].as_u64());
        assert_eq!(calls("norm"), Some(9), "two for each of four layers and the last: {line}");
        for product in ["qkv", "output", "gate_up", "down"] {
            assert_eq!(calls(product), Some(4), "{product}: {line}");
        }
        assert_eq!((calls("head"), calls("sample")), (Some(1), Some(1)), "{line}");
        assert_eq!(calls("shrink"), (i >= 2).then_some(16), "{line}");
        let expands = stage("activate").is_some_and(|stage| stage["bytes"] != 0);
        assert_eq!(expands, i >= 2, "{line}");
        let sum: f64 = stages.iter().filter_map(|stage| stage["us"].as_f64()).sum();
        let whole = line["sum_ms"].as_f64().expect("a number");
        assert!((whole - sum / 1e3).abs() < 0.001, "{line}");
    }
}

#[test]
fn a_step_that_prefills_is_profiled_too() {
    let lines = lines("profile --batch 2 --adapters distinct --context 20 --tokens 5 --steps 2");
    let [line] = &lines[..] else { panic!("one line") };
    let bytes = |name: &str| {
        let stages = line["stages"].as_array().expect("a list");
        stages.iter().find(|stage| stage["stage"] == name).and_then(|it| it["bytes"].as_u64())
    };
    assert_eq!(bytes("embed"), Some(2 * 5 * 256 * 2), "bf16 rows of ten tokens: {line}");
    assert_eq!(bytes("sample"), Some(2 * 4096 * 4), "f32 logits of two: {line}");
}

#[test]
fn sequences_that_no_step_has_are_refused_by_their_flags() {
    for words in ["--context 4 --tokens 5", "--context 8193"] {
        let words = format!("bench profile --model tiny --batch 1 --adapters none {words}");
        let Command { args } = Command::try_parse_from(words.split(' ')).expect("they parse");
        let error = run(&args, &mut Vec::new()).expect_err("no such sequence");
        assert!(error.to_string().starts_with("--context "), "{error}");
    }
}

#[test]
fn a_sequence_that_the_model_cannot_hold_is_refused_by_its_flags() {
    let words = "bench --model tiny --batch 1 --adapters none --prompt 8192";
    let Command { args } = Command::try_parse_from(words.split(' ')).expect("they parse");
    let error = run(&args, &mut Vec::new()).expect_err("8192 positions and no more");
    assert!(error.to_string().starts_with("--prompt 8192 --output 129: "), "{error}");
}
