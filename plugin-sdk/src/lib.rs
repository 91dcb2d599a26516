//! Write a Switchyard plugin: implement [`Plugin`] and the trait of one role, then export it.
//!
//! ```
//! use switchyard_plugin::{Config, Decision, Plugin, PluginError, Router, router};
//!
//! /// Sends every request that brings tools to the adapter `tools`.
//! struct ToolsFirst;
//!
//! impl Plugin for ToolsFirst {
//!     fn configure(_: Config) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//! }
//!
//! impl Router for ToolsFirst {
//!     fn route(&self, request: router::Request) -> Result<Decision, PluginError> {
//!         Ok(if request.has_tools { Decision::adapter("tools") } else { Decision::Pass })
//!     }
//! }
//!
//! switchyard_plugin::export!(router: ToolsFirst);
//! ```
//!
//! The ABI itself is `wit/plugin.wit`; `README.md` tells how a plugin lives, what limits it has and
//! how it is built. Calls to the host ([`log`], [`tokenizer`], [`adapters`], [`prompt`]) work
//! inside the host only: keep what decides in functions that take their answers, and test those
//! natively.

#[doc(hidden)]
pub mod bindings;
mod config;
mod decision;
#[doc(hidden)]
pub mod guest;
pub mod log;
pub mod markers;
pub mod object;
mod role;

pub use bindings::base::switchyard::plugin::types::{
    AnswerParams, Kv, Message, PluginError, Role, Tool, ToolCall, ToolChoice,
};
pub use bindings::parser::exports::switchyard::plugin::parser::{
    Chunk, Event, FinishReason, Structured, ToolArgs, ToolStart,
};
pub use bindings::router::exports::switchyard::plugin::router::{Decision, Rejection, Selection};
pub use bindings::template::exports::switchyard::plugin::template::{
    Input as TemplateInput, Rendered, Segment,
};
pub use config::Config;
pub use role::{Parser, Plugin, Router, Stream, Template};

/// What a router is told of a request.
pub mod router {
    pub use crate::bindings::router::exports::switchyard::plugin::router::Request;
}

/// The adapters that the host can serve now. Routers only.
pub mod adapters {
    pub use crate::bindings::base::switchyard::plugin::adapters::{
        Adapter, Residency, find, generation, get,
    };
}

/// The text of the request. Routers only, and only where the operator grants `prompt`; a plugin
/// that calls any of these asks for the grant.
pub mod prompt {
    pub use crate::bindings::base::switchyard::plugin::prompt::{last_user_text, messages};
}

/// The tokenizer of the model that is served. For routers, templates and parsers.
pub mod tokenizer {
    pub use crate::bindings::base::switchyard::plugin::tokenizer::{
        count, decode, encode, special_id,
    };
}

/// Exports a type as a plugin: `export!(router: T)`, `export!(template: T)`, `export!(parser: T)`.
///
/// The plugin's name and version are those of the crate. Outside of wasm32 nothing is exported and
/// only the trait is checked.
#[macro_export]
macro_rules! export {
    (router: $plugin:ty) => {
        $crate::export!(@ router, Router, $plugin);
    };
    (template: $plugin:ty) => {
        $crate::export!(@ template, Template, $plugin);
    };
    (parser: $plugin:ty) => {
        $crate::export!(@ parser, Parser, $plugin);
    };
    (@ $world:ident, $role:ident, $plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: ::std::cell::OnceCell<$plugin> =
                    const { ::std::cell::OnceCell::new() };
            }

            struct Export;

            impl $crate::guest::Export for Export {
                type Plugin = $plugin;
                const NAME: &'static str = ::std::env!("CARGO_PKG_NAME");
                const VERSION: &'static str = ::std::env!("CARGO_PKG_VERSION");

                fn with<R>(call: impl FnOnce(&::std::cell::OnceCell<$plugin>) -> R) -> R {
                    PLUGIN.with(call)
                }
            }

            type Guest = $crate::guest::Guest<Export>;
            $crate::bindings::base::export!(Guest with_types_in $crate::bindings::base);
            $crate::bindings::$world::export!(Guest with_types_in $crate::bindings::$world);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = || {
            fn implements<T: $crate::$role>() {}
            implements::<$plugin>();
        };
    };
}
