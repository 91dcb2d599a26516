//! Policy in sandboxed WebAssembly components: routers, templates and parsers.
//!
//! A [`PluginHost`] loads a component, proves it and gives a [`Plugin`]; a [`PluginChain`] is what
//! one configuration runs. Guests run on threads of their own, within limits on CPU time, memory,
//! output and host calls, and import nothing but the interfaces of `switchyard:plugin`: no clock,
//! no network, no files. Whatever a guest does costs its own request a [`PluginFault`] and nothing
//! else: the host drops the guest's store after any fault and every call gets an unused guest.

mod bindings;
pub mod build;
mod deadline;
mod engine;
mod events;
mod executor;
mod fault;
mod host;
mod imports;
mod instance;
mod limiter;
mod load;
mod log_budget;
mod messages;
mod parser;
mod plugin;
mod router;
mod sandbox;
mod spec;
mod template;

use std::{fmt, sync::Arc};

pub use self::{
    events::Event,
    fault::{FaultKind, PluginError, PluginFault, Refusal},
    host::PluginHost,
    parser::{AnswerParams, AnswerParser, ParseEnd},
    plugin::Plugin,
    router::{Decision, RouteRequest},
    spec::{PluginLimits, PluginSpec},
    template::{RenderInput, Rendered},
};

/// What a plugin does, known from the interface it exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginRole {
    /// Picks the adapter that serves a request.
    Router,
    /// Turns a conversation into a prompt.
    Template,
    /// Turns the model's text into events.
    Parser,
}

impl PluginRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Router, Self::Template, Self::Parser];

    /// The name of the interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Template => "template",
            Self::Parser => "parser",
        }
    }
}

impl fmt::Display for PluginRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The plugins of one configuration.
#[derive(Clone, Default)]
pub struct PluginChain {
    /// Asked in order until one does not pass.
    pub routers: Vec<Arc<Plugin>>,
    /// Renders prompts; without one the model's own chat template does.
    pub template: Option<Arc<Plugin>>,
    /// Parses answers; without one an answer is content.
    pub parser: Option<Arc<Plugin>>,
}

impl PluginChain {
    /// Sorts plugins by role, routers in the order given; a second template or parser is refused.
    pub fn assemble(plugins: impl IntoIterator<Item = Arc<Plugin>>) -> Result<Self, PluginError> {
        let mut chain = Self::default();
        for plugin in plugins {
            let place = match plugin.role {
                PluginRole::Router => {
                    chain.routers.push(plugin);
                    continue;
                }
                PluginRole::Template => &mut chain.template,
                PluginRole::Parser => &mut chain.parser,
            };
            if let Some(first) = place {
                return Err(PluginError::Rivals {
                    first: first.name.clone(),
                    second: plugin.name.clone(),
                    role: plugin.role,
                });
            }
            *place = Some(plugin);
        }
        Ok(chain)
    }
}

#[cfg(test)]
mod tests;
