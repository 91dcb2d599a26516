//! Carries calls from the generated exports to the plugin's traits. [`crate::export!`] supplies the
//! one thing that can't be generic, the static that holds the configured instance.

use std::cell::{OnceCell, RefCell};
use std::marker::PhantomData;

use crate::bindings::{base, parser, router, template};
use crate::{
    AnswerParams, Chunk, Config, Decision, Event, FinishReason, Parser, Plugin, PluginError,
    Rendered, Router, Stream, Template, TemplateInput, log,
};

/// A plugin as its component exports it.
pub trait Export: 'static {
    /// The plugin's type.
    type Plugin: Plugin;
    /// The crate's name.
    const NAME: &'static str;
    /// The crate's version.
    const VERSION: &'static str;

    /// Lends the place of the configured instance.
    fn with<R>(call: impl FnOnce(&OnceCell<Self::Plugin>) -> R) -> R;

    /// Lends the configured instance.
    fn configured<R>(
        call: impl FnOnce(&Self::Plugin) -> Result<R, PluginError>,
    ) -> Result<R, PluginError> {
        Self::with(|cell| match cell.get() {
            Some(plugin) => call(plugin),
            None => Err(PluginError::Internal("called before configure".to_owned())),
        })
    }
}

/// Implements the generated traits for `E`.
pub struct Guest<E>(PhantomData<E>);

impl<E: Export> base::exports::switchyard::plugin::lifecycle::Guest for Guest<E> {
    fn describe() -> base::exports::switchyard::plugin::lifecycle::Info {
        base::exports::switchyard::plugin::lifecycle::Info {
            name: E::NAME.to_owned(),
            version: E::VERSION.to_owned(),
            doc: E::Plugin::DOC.map(str::to_owned),
            needs_special_tokens: E::Plugin::NEEDS_SPECIAL_TOKENS,
            ext: Vec::new(),
        }
    }

    fn configure() -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| log::error(&panic.to_string())));
        let plugin = E::Plugin::configure(Config::from_host())?;
        E::with(|cell| cell.set(plugin)).map_err(|_| "configured twice".to_owned())
    }

    fn self_test() -> Result<(), String> {
        E::with(|cell| match cell.get() {
            Some(plugin) => plugin.self_test(),
            None => Err("called before configure".to_owned()),
        })
    }
}

impl<E: Export<Plugin: Router>> router::exports::switchyard::plugin::router::Guest for Guest<E> {
    fn route(request: crate::router::Request) -> Result<Decision, PluginError> {
        E::configured(|plugin| plugin.route(request))
    }
}

impl<E> template::exports::switchyard::plugin::template::Guest for Guest<E>
where
    E: Export<Plugin: Template>,
{
    fn render(input: TemplateInput) -> Result<Rendered, PluginError> {
        E::configured(|plugin| plugin.render(input))
    }
}

impl<E: Export<Plugin: Parser>> parser::exports::switchyard::plugin::parser::Guest for Guest<E> {
    type Parse = Parse<E>;
}

/// One open answer, as the host holds it.
pub struct Parse<E: Export<Plugin: Parser>>(RefCell<<E::Plugin as Parser>::Stream>);

impl<E> parser::exports::switchyard::plugin::parser::GuestParse for Parse<E>
where
    E: Export<Plugin: Parser>,
{
    fn open(
        params: AnswerParams,
    ) -> Result<parser::exports::switchyard::plugin::parser::Parse, PluginError> {
        let stream = E::configured(|plugin| plugin.open(params))?;
        Ok(parser::exports::switchyard::plugin::parser::Parse::new(Self(RefCell::new(stream))))
    }

    fn feed(&self, chunk: Chunk) -> Result<Vec<Event>, PluginError> {
        let mut events = Vec::new();
        self.0.borrow_mut().feed(&chunk, &mut events)?;
        Ok(events)
    }

    fn finish(&self, why: FinishReason) -> Result<Vec<Event>, PluginError> {
        let mut events = Vec::new();
        self.0.borrow_mut().finish(why, &mut events)?;
        Ok(events)
    }
}
