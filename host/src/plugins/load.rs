//! From a file to a component that may be run: read, hash, compile, check what it wants.

use std::{fs::File, io::Read};

use wasmtime::{Engine, component::Component};

use super::{PluginError, PluginRole, PluginSpec, imports};

/// A component's file may have this many bytes; a Python guest has 18 MB.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The ABI's package.
const PACKAGE: &str = "switchyard:plugin/";
/// The ABI's versions this host speaks.
const VERSION: &str = "0.1.";

/// The bytes of a plugin's file, and their name.
pub(super) struct Artifact {
    bytes: Vec<u8>,
    /// BLAKE3 in hex.
    pub(super) digest: String,
}

impl Artifact {
    /// Reads the file through one descriptor, up to the cap.
    pub(super) fn read(spec: &PluginSpec) -> Result<Self, PluginError> {
        let mut bytes = Vec::new();
        let read = File::open(&spec.path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        read.map_err(|source| PluginError::Read {
            plugin: spec.name.clone(),
            path: spec.path.clone(),
            source,
        })?;
        if FILE_BYTES_MAX < bytes.len() as u64 {
            return Err(unfit(spec, format!("has more than {FILE_BYTES_MAX} bytes")));
        }
        let digest = blake3::hash(&bytes).to_hex().to_string();
        Ok(Self { bytes, digest })
    }

    /// Validates and compiles. Takes tens of milliseconds for a small guest, seconds for one that
    /// carries an interpreter.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        spec: &PluginSpec,
    ) -> Result<Component, PluginError> {
        match self.bytes.get(..8) {
            Some(b"\0asm\x0d\0\x01\0") => {}
            Some(b"\0asm\x01\0\0\0") => {
                let why = "is a core module, not a component: run `switchyard plugin build`";
                return Err(unfit(spec, why.into()));
            }
            _ => return Err(unfit(spec, "is not a WebAssembly component".into())),
        }
        Component::from_binary(engine, &self.bytes)
            .map_err(|error| unfit(spec, format!("does not compile: {error:#}")))
    }
}

/// The component's role, once everything it imports, exports and needs is allowed.
pub(super) fn inspect(
    component: &Component,
    engine: &Engine,
    spec: &PluginSpec,
) -> Result<PluginRole, PluginError> {
    let ty = component.component_type();
    let exports: Vec<&str> = ty.exports(engine).map(|(name, _)| name).collect();
    let role = role(&exports).map_err(|why| unfit(spec, why))?;
    for (import, _) in ty.imports(engine) {
        check_import(import, role, spec.grant_prompt).map_err(|why| unfit(spec, why))?;
    }
    check_memory(component, spec)?;
    Ok(role)
}

fn role(exports: &[&str]) -> Result<PluginRole, String> {
    let has = |name: &str| exports.iter().any(|export| interface(export) == Some(name));
    if !has("lifecycle") {
        return Err(format!("does not export {PACKAGE}lifecycle@{VERSION}x"));
    }
    let roles: Vec<_> = PluginRole::ALL.into_iter().filter(|role| has(role.name())).collect();
    match roles[..] {
        [role] => Ok(role),
        [] => Err(format!("exports none of router, template and parser of {PACKAGE}")),
        _ => Err("exports several roles: build one component for each".into()),
    }
}

fn check_import(import: &str, role: PluginRole, grant_prompt: bool) -> Result<(), String> {
    let Some(name) = interface(import) else {
        let remedy = format!("a plugin may import {PACKAGE}*@{VERSION}x only");
        return Err(format!("imports {import}, which this host does not have: {remedy}"));
    };
    if imports::allowed(role, grant_prompt).contains(&name) {
        return Ok(());
    }
    if name == "prompt" && role == PluginRole::Router {
        let grant = "imports prompt, which was not granted: add `grant = [\"prompt\"]` to it";
        return Err(grant.into());
    }
    Err(format!("imports {name}, which a {role} can't have"))
}

/// The interface of the ABI that an import or export names, if it is one of this version.
fn interface(name: &str) -> Option<&str> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    version.starts_with(VERSION).then_some(interface)
}

fn check_memory(component: &Component, spec: &PluginSpec) -> Result<(), PluginError> {
    let Some(needs) = component.resources_required() else {
        return Err(unfit(spec, "instantiates modules that it imports".into()));
    };
    let pages = needs.max_initial_memory_size.unwrap_or(0);
    let (bytes, limit) = (pages.saturating_mul(64 << 10), spec.limits.memory_bytes);
    if (limit as u64) < bytes {
        let why = format!("starts with {bytes} bytes of memory; its limit is {limit}");
        return Err(unfit(spec, why));
    }
    Ok(())
}

pub(super) fn unfit(spec: &PluginSpec, why: String) -> PluginError {
    PluginError::Unfit { plugin: spec.name.clone(), path: spec.path.clone(), why }
}
