//! The routes, over HTTP, on a real engine with the golden model and its adapters.

mod answers;
mod metrics;
mod plugins;
mod refusals;
mod service;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use switchyard_kernels::{
    Dtype, HostMemory,
    cpu::{Cpu, Isa},
};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinHandle};

use super::{App, admission::Admission};
use crate::{
    adapters::{AdapterStore, BaseIdentity, Registry},
    checkpoint::Checkpoint,
    device::Monitor,
    engine::{Engine, EngineLimits},
    generation::{BaseInfo, Host, RequestLimits, Snapshot},
    model::Model,
    plugins::PluginChain,
    template::ChatTemplate,
    tokenizer::Tokenizer,
};

/// Name of the base in these tests.
const BASE: &str = "base-f32";
/// An adapter of the golden model.
const ADAPTER: &str = "r8";
const TEMPLATE: &str = "{% for m in messages %}\
    <|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// A host that listens.
struct Site {
    address: String,
    app: App,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<std::io::Result<()>>>,
    runtime: Runtime,
}

/// A whole answer.
struct Reply {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: String,
}

fn host(limits: RequestLimits) -> Host {
    let checkpoint = Checkpoint::open(&golden("models/base-f32")).expect("the golden model");
    let config = checkpoint.config.clone();
    let pool_bytes = Some(2048 * config.attention_shape(Dtype::F32).slab_bytes());
    let engine_limits =
        EngineLimits { pool_bytes, max_running: 32, max_step_tokens: 256, max_waiting: 64 };
    let fingerprint = checkpoint.fingerprint().expect("readable");
    let eos = checkpoint.eos.clone();
    let load = move || {
        let weights = checkpoint.weights(None, |_, _| {}).expect("the golden weights");
        let cpu = Cpu::new(Isa::Portable, 1)?;
        Model::new(cpu, &checkpoint.config, weights, engine_limits.model())
    };
    let engine = Engine::spawn(load, engine_limits).expect("an engine");
    let tokenizer = Tokenizer::load(&golden("tokenizers/byte_level")).expect("a tokenizer");
    let dir = tempfile::tempdir().expect("a folder");
    let config_json = json!({"chat_template": TEMPLATE}).to_string();
    fs::write(dir.path().join("tokenizer_config.json"), config_json).expect("written");
    let template = ChatTemplate::load(dir.path(), &tokenizer).expect("a valid template");
    let base = BaseInfo {
        id: BASE.to_owned(),
        aliases: vec!["default".to_owned()],
        max_positions: config.max_positions,
        vocabulary: config.vocabulary,
        eos,
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        fingerprint: fingerprint.clone(),
    };
    let identity = BaseIdentity {
        id: BASE.to_owned(),
        aliases: Vec::new(),
        revision: None,
        fingerprint,
        config,
        dtype: Dtype::F32,
    };
    let options = BTreeMap::new();
    let adapters = AdapterStore::new(identity, None, (HostMemory::pageable(), usize::MAX));
    let found = Registry::new(Arc::clone(&adapters)).refresh(&[golden("adapters")], &options);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let plugins = PluginChain::default();
    let snapshot = Snapshot { generation: 7, limits, plugins, catalogue: found.catalogue };
    let snapshot = ArcSwap::from_pointee(snapshot);
    let monitor = Monitor::default();
    Host { engine, monitor, adapters, tokenizer, template, base, snapshot }
}

impl Site {
    fn start() -> Self {
        Self::with(RequestLimits::default(), Duration::from_secs(60))
    }

    fn with(limits: RequestLimits, drain_timeout: Duration) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let app = App { host: Arc::new(host(limits)), admission: Admission::default() };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let served = runtime.spawn(app.clone().serve(listener, shutdown, drain_timeout));
        let address = format!("http://{address}");
        Self { address, app, stop: Some(stop), served: Some(served), runtime }
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.address))
    }

    fn get(&self, path: &str) -> Reply {
        send(self.request("GET", path), Vec::new())
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        let request = self.request("POST", path).header("content-type", "application/json");
        send(request, body.to_string().into_bytes())
    }

    /// A completion of golden token ids, greedy unless `fields` say otherwise.
    fn complete(&self, fields: Value) -> Reply {
        let body = json!({"model": BASE, "prompt": "one two", "temperature": 0, "max_tokens": 24});
        self.post("/v1/completions", &merged(body, fields))
    }

    /// A greedy chat of one turn.
    fn chat(&self, fields: Value) -> Reply {
        let messages = json!([{"role": "user", "content": "one two"}]);
        let body = json!({"model": BASE, "messages": messages, "temperature": 0, "max_tokens": 24});
        self.post("/v1/chat/completions", &merged(body, fields))
    }

    /// Begins to drain and waits for the end of the service.
    fn stop(&mut self) {
        self.stop.take().expect("still serving").send(()).expect("still serving");
    }

    fn ended(&mut self) -> std::io::Result<()> {
        let served = self.served.take().expect("not awaited yet");
        self.runtime.block_on(served).expect("no panic")
    }
}

fn merged(mut body: Value, fields: Value) -> Value {
    let (Value::Object(body_fields), Value::Object(fields)) = (&mut body, fields) else {
        panic!("two objects");
    };
    body_fields.extend(fields);
    body
}

fn send(request: ureq::http::request::Builder, body: Vec<u8>) -> Reply {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let response = agent.run(request.body(body).expect("a request")).expect("a reply");
    let (parts, mut body) = response.into_parts();
    let body = body.read_to_string().expect("a whole body");
    Reply { status: parts.status.as_u16(), headers: parts.headers, body }
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The chunks of a stream that ended as it should.
    fn chunks(&self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"), "{}", self.body);
        let events: Vec<_> = self.body.split_terminator("\n\n").collect();
        let data = events.iter().filter(|event| !event.starts_with(':'));
        let mut data: Vec<_> = data.map(|e| e.strip_prefix("data: ").expect("data")).collect();
        assert_eq!(data.pop(), Some("[DONE]"));
        data.iter().map(|data| serde_json::from_str(data).expect("a JSON chunk")).collect()
    }
}
