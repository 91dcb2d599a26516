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
fn a_sequence_that_the_model_cannot_hold_is_refused_by_its_flags() {
    let words = "bench --model tiny --batch 1 --adapters none --prompt 8192";
    let Command { args } = Command::try_parse_from(words.split(' ')).expect("they parse");
    let error = run(&args, &mut Vec::new()).expect_err("8192 positions and no more");
    assert!(error.to_string().starts_with("--prompt 8192 --output 129: "), "{error}");
}
