//! What the process says about itself in numbers.

use std::collections::BTreeMap;

use super::*;

/// Samples by name and labels. Every one follows the type of its family.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut family, mut found) = (String::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            family = typed.split(' ').next().unwrap_or_default().to_owned();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            assert_eq!(name.split('{').next(), Some(&family[..]), "{line}");
            let value = value.parse().expect("a number");
            assert_eq!(found.insert(name.to_owned(), value), None, "{line} twice");
        }
    }
    found
}

impl Site {
    fn metrics(&self) -> BTreeMap<String, f64> {
        let reply = self.get("/metrics");
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        assert_eq!(reply.status, 200);
        samples(&reply.body)
    }
}

#[test]
fn metrics_follow_a_request_with_an_adapter() {
    let site = Site::start();
    let before = site.metrics();
    assert_eq!(before["switchyard_tokens_total"], 0.0);
    assert_eq!(before["switchyard_pool_slabs{owner=\"free\"}"], 2048.0);
    site.complete(json!({"model": ADAPTER, "max_tokens": 7, "ignore_eos": true})).ok();
    let engine = &site.app.host.engine;
    while engine.status().running > 0 {
        std::thread::yield_now();
    }
    let after = site.metrics();
    let grown = |name: &str| after[name] - before[name];
    assert!(grown("switchyard_tokens_total") >= 1.0 && grown("switchyard_steps_total") >= 1.0);
    let owner = |owner: &str| after[&format!("switchyard_pool_slabs{{owner=\"{owner}\"}}")];
    let slabs: f64 =
        ["free", "kv", "adapter_in_use", "adapter_idle", "adapter_loading"].map(owner).iter().sum();
    assert_eq!(slabs, engine.slabs() as f64);
    assert!(owner("adapter_idle") > 0.0 && owner("kv") == 0.0);
    let bytes = owner("adapter_idle") * engine.slab_bytes() as f64;
    assert_eq!(grown("switchyard_adapter_load_bytes_total"), bytes);
    assert_eq!(grown("switchyard_adapter_loads_total"), 1.0);
    assert_eq!(grown("switchyard_host_hits_total"), 1.0);
    assert_eq!(after["switchyard_host_memory_pinned"], 0.0);
    let pool = after["switchyard_device_memory_bytes{owner=\"pool\"}"];
    assert_eq!(pool, (engine.slabs() * engine.slab_bytes()) as f64);
    assert!(after["switchyard_device_memory_bytes{owner=\"weights\"}"] > 0.0);
    let driver = |name: &String| name.contains("driver");
    assert!(!after.keys().any(driver), "the processor has no driver to ask");
}
