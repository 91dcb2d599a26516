//! A plugin in service: one generation of one component with one configuration.
//!
//! Every route, render and stream gets a guest that nobody has used; one is kept ready ahead.
//! Replacing a plugin means loading another: whoever holds this one ends on it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{
    AnswerParams, AnswerParser, Decision, FaultKind, PluginFault, PluginRole, PluginSpec,
    RenderInput, Rendered, RouteRequest,
    executor::Executor,
    instance::{Blueprint, Info, Instance},
    parser::Stream,
    router, template,
};

/// Configured guests kept ready: one in steady use, more after calls that came together.
const SPARES_MAX: usize = 4;

/// A loaded plugin.
pub struct Plugin {
    /// The operator's name.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// What it does, from its exports.
    pub role: PluginRole,
    /// BLAKE3 of the component's bytes, in hex.
    pub digest: String,
    /// Whether the text fed to this parser keeps special tokens.
    pub needs_special_tokens: bool,
    spec: PluginSpec,
    blueprint: Blueprint,
    spares: Mutex<Vec<Instance>>,
    executor: Arc<Executor>,
}

/// What a load found out, on the way to a [`Plugin`].
pub(super) struct Candidate {
    pub(super) spec: PluginSpec,
    pub(super) role: PluginRole,
    pub(super) digest: String,
    pub(super) info: Info,
    pub(super) blueprint: Blueprint,
}

impl Plugin {
    pub(super) fn new(candidate: Candidate, spare: Instance, executor: Arc<Executor>) -> Self {
        Self {
            name: candidate.spec.name.clone(),
            version: candidate.info.version,
            role: candidate.role,
            digest: candidate.digest,
            needs_special_tokens: candidate.info.needs_special_tokens,
            spec: candidate.spec,
            blueprint: candidate.blueprint,
            spares: Mutex::new(vec![spare]),
            executor,
        }
    }

    /// Asks a router which adapter serves a request.
    pub async fn route(self: &Arc<Self>, request: RouteRequest) -> Result<Decision, PluginFault> {
        let work = |plugin: &Self| {
            let mut instance = plugin.instance()?;
            Ok((router::route(&mut instance, request)?, instance))
        };
        self.run("route", work).await
    }

    /// Asks a template for the prompt.
    pub async fn render(self: &Arc<Self>, input: RenderInput) -> Result<Rendered, PluginFault> {
        let work = move |plugin: &Self| {
            let mut instance = plugin.instance()?;
            Ok((template::render(&mut instance, &input)?, instance))
        };
        self.run("render", work).await
    }

    /// Starts to parse one answer.
    pub async fn open(self: &Arc<Self>, params: AnswerParams) -> Result<AnswerParser, PluginFault> {
        let work = move |plugin: &Self| Ok((Stream::open(plugin.instance()?, &params)?, ()));
        let stream = self.run("open", work).await?;
        Ok(AnswerParser::new(Arc::clone(self), stream))
    }

    /// Runs `work` on a plugin thread. What it leaves behind besides the answer is dropped there,
    /// after the answer has gone; work whose caller has gone before its turn is not done.
    pub(super) async fn run<T, S>(
        self: &Arc<Self>,
        hook: &'static str,
        work: impl FnOnce(&Self) -> Result<(T, S), FaultKind> + Send + 'static,
    ) -> Result<T, PluginFault>
    where
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let plugin = Arc::clone(self);
        let job = move || {
            if reply.is_closed() {
                return;
            }
            // An answer that nobody waits for any more comes back here and is dropped.
            let (unheard, spent) = match work(&plugin) {
                Ok((answer, spent)) => (reply.send(Ok(answer)), Some(spent)),
                Err(kind) => (reply.send(Err(kind)), None),
            };
            drop((unheard, spent));
            plugin.stock_spare();
        };
        let outcome = match self.executor.submit(job) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(lost_answer())),
            Err(_full) => Err(FaultKind::Busy),
        };
        outcome.map_err(|kind| self.fault(hook, kind))
    }

    /// Names this plugin in a fault.
    pub(super) fn fault(&self, hook: &'static str, kind: FaultKind) -> PluginFault {
        PluginFault { plugin: self.name.clone(), role: self.role, hook, kind }
    }

    /// Drops a guest on a plugin thread, or here if they are all taken.
    pub(super) fn discard(&self, guest: impl Send + 'static) {
        // The job that does not fit is dropped with the guest in it.
        if self.executor.submit(move || drop(guest)).is_err() {
            tracing::debug!(plugin = self.name, "dropped a guest on the caller's thread");
        }
    }

    /// Whether loading `spec` from bytes of this `digest` would give this plugin again.
    pub(super) fn serves(&self, spec: &PluginSpec, digest: &str) -> bool {
        self.digest == digest && self.spec == *spec
    }

    /// The compiled code and what is needed to run it.
    pub(super) const fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A configured guest that nobody has used.
    fn instance(&self) -> Result<Instance, FaultKind> {
        let spare = self.spares().pop();
        spare.map_or_else(|| self.blueprint.configured(), Ok)
    }

    /// Keeps a guest ready for the next call, unless this generation has been let go.
    fn stock_spare(self: &Arc<Self>) {
        if Arc::strong_count(self) == 1 || !self.spares().is_empty() {
            return;
        }
        match self.blueprint.configured() {
            Ok(instance) => {
                let mut spares = self.spares();
                if spares.len() < SPARES_MAX {
                    spares.push(instance);
                }
            }
            Err(kind) => tracing::warn!(plugin = self.name, "no spare instance: {kind}"),
        }
    }
}

fn lost_answer() -> FaultKind {
    FaultKind::Trap("the host panicked in the call".into())
}
