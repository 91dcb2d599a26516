//! The host functions a plugin may call, and which interfaces each role may import.
//!
//! Every function counts against the call's budget; all answer from the [`Sandbox`] alone, so
//! none waits for anything.

use std::time::Instant;

use wasmtime::{
    Engine, Result,
    component::{HasSelf, Linker},
};

use super::{
    PluginRole,
    bindings::switchyard::plugin::{adapters, config, log, prompt, tokenizer, types},
    fault::guest_text,
    messages,
    router::RouteScope,
    sandbox::Sandbox,
};
use crate::{
    adapters::{AdapterLease, Residency},
    chat::Role,
};

/// Adapters one `find` may return.
const FIND_MAX: u32 = 1000;

/// The interfaces a role may import; `prompt` only with the operator's grant.
pub(super) fn allowed(role: PluginRole, grant_prompt: bool) -> &'static [&'static str] {
    match (role, grant_prompt) {
        (PluginRole::Router, true) => {
            &["types", "log", "config", "tokenizer", "adapters", "prompt"]
        }
        (PluginRole::Router, false) => &["types", "log", "config", "tokenizer", "adapters"],
        (PluginRole::Template | PluginRole::Parser, _) => &["types", "log", "config", "tokenizer"],
    }
}

/// Links every interface a plugin could be allowed; `prompt` only with the operator's grant.
pub(super) fn linker(engine: &Engine, grant_prompt: bool) -> Result<Linker<Sandbox>> {
    let mut linker = Linker::new(engine);
    types::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
    log::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
    config::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
    tokenizer::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
    adapters::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
    if grant_prompt {
        prompt::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox)?;
    }
    Ok(linker)
}

impl types::Host for Sandbox {}

impl log::Host for Sandbox {
    fn log(&mut self, level: log::Level, message: String) -> Result<()> {
        self.host_call()?;
        let Some(dropped) = self.grant.log.take(Instant::now()) else { return Ok(()) };
        let (plugin, message) = (self.grant.plugin.as_str(), guest_text(&message));
        if dropped != 0 {
            tracing::warn!(plugin, dropped, "the plugin logged too much");
        }
        match level {
            log::Level::Trace => tracing::trace!(plugin, "{message}"),
            log::Level::Debug => tracing::debug!(plugin, "{message}"),
            log::Level::Info => tracing::info!(plugin, "{message}"),
            log::Level::Warn => tracing::warn!(plugin, "{message}"),
            log::Level::Error => tracing::error!(plugin, "{message}"),
        }
        Ok(())
    }
}

impl config::Host for Sandbox {
    /// A string as it is, any other value as JSON text.
    fn get(&mut self, key: String) -> Result<Option<String>> {
        self.host_call()?;
        let value = self.grant.config.get(key);
        Ok(value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    }

    fn json(&mut self) -> Result<String> {
        self.host_call()?;
        Ok(self.grant.config_json.clone())
    }
}

impl tokenizer::Host for Sandbox {
    fn encode(&mut self, text: String) -> Result<Vec<u32>> {
        self.host_call()?;
        Ok(self.grant.tokenizer.encode(&text))
    }

    fn decode(&mut self, tokens: Vec<u32>) -> Result<Vec<u8>> {
        self.host_call()?;
        let tokenizer = &self.grant.tokenizer;
        Ok(tokens.iter().flat_map(|&token| tokenizer.token_bytes(token)).collect())
    }

    fn count(&mut self, text: String) -> Result<u32> {
        self.host_call()?;
        Ok(u32::try_from(self.grant.tokenizer.encode(&text).len())?)
    }

    fn special_id(&mut self, name: String) -> Result<Option<u32>> {
        self.host_call()?;
        Ok(self.grant.tokenizer.special_id(&name))
    }
}

impl adapters::Host for Sandbox {
    fn generation(&mut self) -> Result<u64> {
        self.host_call()?;
        Ok(self.scope.as_ref().map_or(0, |scope| scope.catalogue.generation))
    }

    fn get(&mut self, name: String) -> Result<Option<adapters::Adapter>> {
        self.host_call()?;
        let Some(scope) = &self.scope else { return Ok(None) };
        Ok(scope.catalogue.get(&name).map(|lease| adapter(&lease, scope)))
    }

    fn find(&mut self, tag: types::Kv, limit: u32) -> Result<Vec<adapters::Adapter>> {
        self.host_call()?;
        let Some(scope) = &self.scope else { return Ok(Vec::new()) };
        let tagged = |lease: &&AdapterLease| {
            lease.tags.iter().any(|(key, value)| *key == tag.key && *value == tag.value)
        };
        let limit = limit.min(FIND_MAX) as usize;
        Ok(scope
            .catalogue
            .iter()
            .filter(tagged)
            .take(limit)
            .map(|lease| adapter(lease, scope))
            .collect())
    }
}

fn adapter(lease: &AdapterLease, scope: &RouteScope) -> adapters::Adapter {
    let (residency, in_flight) = lease.content.standing();
    adapters::Adapter {
        name: lease.name.clone(),
        base_model: scope.base_model.clone(),
        rank: lease.content.rank,
        residency: match residency {
            Residency::Pool => adapters::Residency::Device,
            Residency::Host => adapters::Residency::Host,
            Residency::Disk => adapters::Residency::Disk,
        },
        in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
        tags: messages::pairs(&lease.tags),
    }
}

impl prompt::Host for Sandbox {
    /// At most `max_bytes`, cut at a character.
    fn last_user_text(&mut self, max_bytes: u32) -> Result<String> {
        self.host_call()?;
        let Some(scope) = &self.scope else { return Ok(String::new()) };
        let last = scope.messages.iter().rfind(|message| message.role == Role::User);
        let text = last.map_or("", |message| message.content.as_str());
        Ok(text[..text.floor_char_boundary(max_bytes as usize)].to_owned())
    }

    fn messages(&mut self) -> Result<Vec<types::Message>> {
        self.host_call()?;
        let Some(scope) = &self.scope else { return Ok(Vec::new()) };
        Ok(scope.messages.iter().map(messages::message).collect())
    }
}
