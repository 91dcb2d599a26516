//! `GET /metrics`: what the process holds and has done, in the text format of Prometheus.

mod exposition;

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use switchyard_kernels::{DeviceMemory, DeviceReading};
use tokio::task::spawn_blocking;

use super::App;
use crate::{
    adapters::AdapterStoreStatus,
    engine::{AdapterTraffic, EngineStatus, SlabCounts},
};
use exposition::Exposition;

const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All of them.
pub(super) async fn show(State(app): State<App>) -> Response {
    let engine = &app.host.engine;
    let (status, slab_bytes) = (engine.status(), engine.slab_bytes());
    let mut out = Exposition::default();
    out.gauge("requests", "Requests in progress.", app.admission.running());
    sequences(&mut out, &status);
    pool(&mut out, &status.slabs, slab_bytes);
    traffic(&mut out, &status.adapters);
    store(&mut out, &app.host.adapters.status());
    let host = app.host.clone();
    // The driver may take its time. A panic has been reported where it happened.
    let reading = spawn_blocking(move || host.monitor.read()).await.ok().flatten();
    memory(&mut out, &status.memory, reading);
    ([(CONTENT_TYPE, TYPE)], out.into_text()).into_response()
}

fn sequences(out: &mut Exposition, status: &EngineStatus) {
    let EngineStatus {
        running, loading, waiting, steps, rows, tokens, preemptions, failed, ..
    } = status;
    let states = [("running", *running), ("loading", *loading), ("waiting", *waiting)];
    let states = states.map(|(state, count)| (state, Some(count)));
    let help = "Sequences of the engine: in the running batch, with memory and an adapter on its \
                way, or queued.";
    out.gauges(("sequences", "state"), help, states);
    out.counter("steps_total", "Steps run.", steps);
    out.counter("rows_total", "Token rows computed.", rows);
    out.counter("tokens_total", "Tokens produced.", tokens);
    out.counter("preemptions_total", "Sequences put back for memory.", preemptions);
    let failed = u8::from(failed.is_some());
    out.gauge("engine_failed", "Whether the engine has died.", failed);
}

fn pool(out: &mut Exposition, slabs: &SlabCounts, slab_bytes: usize) {
    let SlabCounts { free, kv, adapter_in_use, adapter_idle, adapter_loading, total } = *slabs;
    let owners = [
        ("free", free),
        ("kv", kv),
        ("adapter_in_use", adapter_in_use),
        ("adapter_idle", adapter_idle),
        ("adapter_loading", adapter_loading),
    ];
    let owners = owners.map(|(owner, slabs)| (owner, Some(slabs)));
    out.gauges(("pool_slabs", "owner"), "Slabs of the pool by owner.", owners);
    out.gauge("pool_slabs_all", "Slabs of the pool.", total);
    out.gauge("pool_slab_bytes", "Bytes of a slab.", slab_bytes);
}

fn traffic(out: &mut Exposition, traffic: &AdapterTraffic) {
    let AdapterTraffic { loads, prefetches, loaded, load_bytes, load_time, load_waits, evictions } =
        traffic;
    let seconds = load_time.as_secs_f64();
    out.counter("adapter_loads_total", "Copies of adapters to the pool begun.", loads);
    out.counter("adapter_prefetches_total", "Of those, ahead of need.", prefetches);
    out.counter("adapter_loaded_total", "Copies completed.", loaded);
    out.counter("adapter_load_bytes_total", "Their bytes.", load_bytes);
    out.counter("adapter_load_seconds_total", "The time of the copies alone.", seconds);
    let help = "Times that the engine waited for a copy with nothing else to run.";
    out.counter("adapter_load_waits_total", help, load_waits);
    out.counter("adapter_evictions_total", "Adapters that left the pool.", evictions);
}

fn store(out: &mut Exposition, status: &AdapterStoreStatus) {
    let AdapterStoreStatus { images, bytes, memory, budget, .. } = *status;
    let AdapterStoreStatus { hits, misses, loads, load_time, packs, .. } = *status;
    out.gauge("host_images", "Adapters in host memory.", images);
    out.gauge("host_image_bytes", "Memory that they take.", bytes);
    out.gauge("host_budget_bytes", "Memory they may take while not in use.", budget);
    let parts = [("in_use", memory.held - memory.spare), ("spare", memory.spare)];
    let parts = parts.map(|(part, bytes)| (part, Some(bytes)));
    let help = "Host memory that adapters are read into, with what waits for the next.";
    out.gauges(("host_memory_bytes", "state"), help, parts);
    let pinned = u8::from(memory.pinned);
    out.gauge("host_memory_pinned", "Whether all of it is page-locked.", pinned);
    out.counter("host_hits_total", "Requests whose adapter was in host memory.", hits);
    out.counter("host_misses_total", "Requests that had to wait for theirs.", misses);
    out.counter("store_loads_total", "Adapters read from the cache or their directory.", loads);
    let seconds = load_time.as_secs_f64();
    out.counter("store_load_seconds_total", "The time of that, summed.", seconds);
    out.counter("store_packs_total", "Adapters packed from their directory.", packs);
}

fn memory(out: &mut Exposition, counted: &DeviceMemory, seen: Option<DeviceReading>) {
    let DeviceMemory { weights, activations, pool, adapter_tables, workspace, driver } = *counted;
    let owners = [
        ("weights", Some(weights)),
        ("activations", Some(activations)),
        ("pool", Some(pool)),
        ("adapter_tables", Some(adapter_tables)),
        ("workspace", Some(workspace)),
        ("driver", driver),
    ];
    let help = "Device memory by owner, as counted here; the driver's part (context, kernels, \
                libraries) where it can be known.";
    out.gauges(("device_memory_bytes", "owner"), help, owners);
    if let Some(DeviceReading { used, total, process }) = seen {
        let parts = [("used", Some(used)), ("total", Some(total)), ("this_process", process)];
        out.gauges(("device_driver_bytes", "what"), "Device memory as its driver sees it.", parts);
    }
}
