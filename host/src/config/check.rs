//! From the tree to the frozen configuration: defaults, ranges, and what must hold between keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    path::{Path, PathBuf},
    time::Duration,
};

use switchyard_kernels::{Dtype, cpu::Isa};

use super::{
    AdapterConfig, Config, ConfigError, EngineConfig, FixedConfig, LiveConfig, LogFormat,
    ModelSource,
    diagnostic::{Diagnostic, locate},
    node::{Place, Value},
    reader::{Reader, Section},
    source::{Source, Sources},
};
use crate::{
    adapters::AdapterOptions,
    device::{Device, DeviceOptions},
    engine::EngineLimits,
    generation::RequestLimits,
    plugins::{PluginLimits, PluginSpec},
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Longest lists of names, directories and plugins.
const MAX_NAMES: usize = 64;

/// The configuration, or everything that is wrong with it.
pub(super) fn check(sources: Sources) -> Result<Config, ConfigError> {
    let Sources { list, root, diagnostics: syntax } = sources;
    let mut reader = Reader::new(&list);
    let top = reader.root(&root);
    let model = model(&mut reader, &top);
    let (listen, drain_timeout, limits) = server(&mut reader, &top);
    let engine = engine(&mut reader, &top);
    let (adapter_cache, adapters) = adapters(&mut reader, &top);
    let plugins = plugins(&mut reader, &top);
    let (log_level, log_format) = log(&mut reader, &top);
    let Reader { diagnostics, settings, .. } = reader;

    let mut diagnostics = credible(&list, &syntax, diagnostics);
    diagnostics.extend(syntax);
    match model {
        Some(model) if diagnostics.is_empty() => Ok(Config {
            fixed: FixedConfig { listen, drain_timeout, model, engine, adapter_cache, log_format },
            live: LiveConfig { limits, adapters, plugins, log_level },
            settings,
        }),
        _ => Err(ConfigError::new(list, diagnostics)),
    }
}

/// Drops complaints that may only follow from a syntax error: those about a line that did not
/// parse, and those about something that is not there.
fn credible(
    sources: &[Source],
    syntax: &[Diagnostic],
    complaints: Vec<Diagnostic>,
) -> Vec<Diagnostic> {
    let line = |place: Place| {
        let found = locate(sources, place);
        found.rsplit_once(':').map(|(line, _)| line.to_owned())
    };
    let broken: BTreeSet<_> = syntax.iter().filter_map(|error| error.place.map(line)).collect();
    let keep = |error: &Diagnostic| match error.place {
        _ if syntax.is_empty() => true,
        Some(place) => !error.title.ends_with("is missing") && !broken.contains(&line(place)),
        None => false,
    };
    complaints.into_iter().filter(keep).collect()
}

fn server<'a>(
    reader: &mut Reader<'a>,
    top: &Section<'a>,
) -> (std::net::SocketAddr, Duration, RequestLimits) {
    let server = &reader.section(top, "server");
    let listen = reader.get(server, "listen", ([127, 0, 0, 1], 8000).into(), |node| {
        node.parsed("an address such as \"127.0.0.1:8000\"", |text| text.parse().ok())
    });
    let drain_timeout = reader
        .get(server, "drain_timeout", 30 * SECOND, |node| node.duration(Duration::ZERO..=DAY));
    let limits = RequestLimits::default();
    let request_timeout = reader.get(server, "request_timeout", limits.request_timeout, |node| {
        node.duration(SECOND / 1000..=DAY)
    });
    let body_bytes =
        reader.get(server, "body_limit", limits.body_bytes, |node| node.size(1024..=GIB));

    let section = &reader.section(top, "limits");
    let mut count =
        |key, default, high| reader.get(section, key, default, |node| node.count(1..=high));
    let limits = RequestLimits {
        request_timeout,
        body_bytes,
        max_requests: count("requests", limits.max_requests, 65_536),
        max_choices: count("choices", limits.max_choices, 128),
        max_messages: count("messages", limits.max_messages, 65_536),
        max_tools: count("tools", limits.max_tools, 1024),
        max_stop: count("stop", limits.max_stop, 64),
        max_logprobs: count("logprobs", limits.max_logprobs, 64),
    };
    (listen, drain_timeout, limits)
}

fn model<'a>(reader: &mut Reader<'a>, top: &Section<'a>) -> Option<ModelSource> {
    let section = &reader.section(top, "model");
    let why = "give the directory of a model here, or with --model DIR";
    let place = reader.resolver();
    let path = reader.require(section, ("path", why), |node| place.resolve(node));
    let id = reader.get(section, "id", None, |node| node.name().map(Some));
    let aliases = reader
        .get(section, "aliases", Vec::new(), |node| node.list(MAX_NAMES, |item| item.string()));
    let dtypes = [("auto", None), ("bf16", Some(Dtype::Bf16)), ("f32", Some(Dtype::F32))];
    let dtype = reader.get(section, "dtype", None, |node| node.choice(&dtypes));
    let path = path?;
    let id = id.unwrap_or_else(|| directory_name(&path));
    Some(ModelSource { path, id, aliases, dtype })
}

/// The last named part of a path; `.` and `..` are followed to what they stand for.
fn directory_name(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let real = || path.canonicalize().ok().as_deref().and_then(name);
    name(path).or_else(real).unwrap_or_else(|| "model".to_owned())
}

fn engine<'a>(reader: &mut Reader<'a>, top: &Section<'a>) -> EngineConfig {
    let section = &reader.section(top, "engine");
    let isas: Vec<_> =
        [("auto", None)].into_iter().chain(Isa::ALL.map(|isa| (isa.name(), Some(isa)))).collect();
    EngineConfig {
        device: DeviceOptions {
            device: reader.get(section, "device", Device::Auto, |node| {
                node.parsed("\"auto\", \"cpu\" or \"cuda:N\"", |text| text.parse().ok())
            }),
            isa: reader.get(section, "isa", None, |node| node.choice(&isas)),
            threads: reader
                .get(section, "threads", None, |node| node.count(0..=1024).map(NonZero::new)),
            kernel_cache: None,
        },
        limits: EngineLimits {
            pool_bytes: reader.get(section, "memory", None, |node| match &node.value {
                Value::String(text) if text == "auto" => Ok(None),
                _ => node.size(MIB..=64 * 1024 * GIB).map(Some),
            }),
            max_running: reader.get(section, "max_running", 64, |node| node.count(1..=4096)),
            max_step_tokens: reader
                .get(section, "max_step_tokens", 512, |node| node.count(16..=65_536)),
            max_waiting: reader.get(section, "max_waiting", 256, |node| node.count(1..=65_536)),
        },
    }
}

fn adapters<'a>(reader: &mut Reader<'a>, top: &Section<'a>) -> (Option<PathBuf>, AdapterConfig) {
    let section = &reader.section(top, "adapters");
    let place = reader.resolver();
    let dirs = reader
        .get(section, "dirs", Vec::new(), |node| node.list(MAX_NAMES, |item| place.resolve(item)));
    let cache = reader.get(section, "cache", None, |node| place.resolve(node).map(Some));
    let host_memory =
        reader.get(section, "host_memory", 4 << 30, |node| node.size(0..=64 * 1024 * GIB));
    let named = reader.section(section, "options");
    let mut options = BTreeMap::new();
    for (name, section) in reader.named(&named) {
        let settings = AdapterOptions {
            allow_base_mismatch: reader
                .get(&section, "allow_base_mismatch", false, |node| node.boolean()),
            tags: reader.get(&section, "tags", Vec::new(), |node| node.strings(MAX_NAMES)),
        };
        options.insert(name.to_owned(), settings);
    }
    (cache, AdapterConfig { dirs, host_memory, options })
}

fn plugins<'a>(reader: &mut Reader<'a>, top: &Section<'a>) -> Vec<PluginSpec> {
    let sections = reader.tables(top, "plugins");
    let mut plugins: Vec<PluginSpec> = Vec::new();
    for section in &sections {
        let Some(plugin) = plugin(reader, section) else { continue };
        if plugins.iter().any(|other| other.name == plugin.name) {
            reader.refuse(section, "name", "is taken by a plugin above");
        }
        plugins.push(plugin);
    }
    if sections.len() > MAX_NAMES {
        reader.refuse(&sections[MAX_NAMES], "name", "is one plugin too many: 64 are the limit");
    }
    let order: Vec<_> = plugins.iter().map(|plugin| &plugin.name).collect();
    reader.note("plugins", format!("{order:?}"));
    plugins
}

fn plugin<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Option<PluginSpec> {
    let place = reader.resolver();
    let why = "every plugin needs a name and the path of its component";
    let name = reader.require(section, ("name", why), |node| node.name());
    let path = reader.require(section, ("path", why), |node| place.resolve(node));
    let empty = serde_json::Value::Object(serde_json::Map::new());
    let config = reader.get(section, "config", empty, |node| node.json());
    let limits = PluginLimits::default();
    let limits = PluginLimits {
        memory_bytes: reader.get(section, "memory", limits.memory_bytes, |node| {
            node.size(MIB..=PluginLimits::MEMORY_MAX as u64)
        }),
        deadline: reader.get(section, "deadline", limits.deadline, |node| {
            node.duration(Duration::from_millis(1)..=60 * SECOND)
        }),
        output_bytes: reader
            .get(section, "output", limits.output_bytes, |node| node.size(1024..=GIB)),
    };
    let grant = reader.get(section, "grant", Vec::new(), |node| {
        node.list(1, |item| item.choice(&[("prompt", "prompt")]))
    });
    let grant_prompt = !grant.is_empty();
    Some(PluginSpec { name: name?, path: path?, config, limits, grant_prompt })
}

fn log<'a>(reader: &mut Reader<'a>, top: &Section<'a>) -> (String, LogFormat) {
    let section = &reader.section(top, "log");
    let what = "a level (error, warn, info, debug, trace), or several as \"info,switchyard=debug\"";
    let level = reader.get(section, "level", "info".to_owned(), |node| {
        node.parsed(what, |text| is_filter(text).then(|| text.to_owned()))
    });
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = reader.get(section, "format", LogFormat::Text, |node| node.choice(&formats));
    (level, format)
}

/// Whether every comma-separated part ends in a level; a mistyped level alone would otherwise
/// pass as the name of a module.
fn is_filter(text: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    text.split(',').all(|part| {
        let (module, level) = part.trim().rsplit_once('=').unwrap_or(("all", part.trim()));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        levels.contains(&level) && !module.is_empty() && module.chars().all(plain)
    })
}
