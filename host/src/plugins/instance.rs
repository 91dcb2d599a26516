//! One guest: a store, an instance in it, and the only way to call it.
//!
//! A [`Blueprint`] makes instances that have never been used; an instance that faulted is dropped
//! with its store and never called again.

use std::{sync::Arc, time::Duration};

use wasmtime::{
    Error, PoolConcurrencyLimitError, Store, Trap, UpdateDeadline,
    component::{Component, InstancePre},
};

use super::{
    FaultKind, PluginLimits, PluginRole, Refusal,
    bindings::exports::switchyard::plugin::{lifecycle, parser, router, template},
    deadline::{Deadline, Ticker},
    fault::guest_text,
    router::RouteScope,
    sandbox::{Grant, Sandbox},
};

/// CPU time of `describe`, `configure` and `self-test`: they run ahead of requests, and a large
/// configuration or an interpreter needs it.
const SETUP_LIMIT: Duration = Duration::from_millis(500);

/// Everything that instances of one plugin generation have in common.
pub(super) struct Blueprint {
    pre: InstancePre<Sandbox>,
    lifecycle: lifecycle::GuestIndices,
    role: RoleIndices,
    grant: Arc<Grant>,
    limits: PluginLimits,
    ticker: Arc<Ticker>,
}

/// Where the role's functions lie in the component.
enum RoleIndices {
    Router(router::GuestIndices),
    Template(template::GuestIndices),
    Parser(parser::GuestIndices),
}

/// The role's functions in one instance.
pub(super) enum RoleGuest {
    Router(router::Guest),
    Template(template::Guest),
    Parser(parser::Guest),
}

/// What `describe` says, as far as the host uses it.
pub(super) struct Info {
    pub(super) version: String,
    pub(super) needs_special_tokens: bool,
}

/// A guest that has been instantiated.
pub(super) struct Instance {
    store: Store<Sandbox>,
    lifecycle: lifecycle::Guest,
    role: RoleGuest,
    limits: PluginLimits,
    ticker: Arc<Ticker>,
}

impl Blueprint {
    /// Fails where the component lacks a function of its role or has one of another type.
    pub(super) fn new(
        pre: InstancePre<Sandbox>,
        role: PluginRole,
        grant: Grant,
        limits: PluginLimits,
        ticker: Arc<Ticker>,
    ) -> wasmtime::Result<Self> {
        let lifecycle = lifecycle::GuestIndices::new(&pre)?;
        let role = match role {
            PluginRole::Router => RoleIndices::Router(router::GuestIndices::new(&pre)?),
            PluginRole::Template => RoleIndices::Template(template::GuestIndices::new(&pre)?),
            PluginRole::Parser => RoleIndices::Parser(parser::GuestIndices::new(&pre)?),
        };
        Ok(Self { pre, lifecycle, role, grant: Arc::new(grant), limits, ticker })
    }

    /// The compiled code.
    pub(super) fn component(&self) -> &Component {
        self.pre.component()
    }

    /// A guest that has run nothing but its start functions.
    pub(super) fn instantiate(&self) -> Result<Instance, FaultKind> {
        let sandbox = Sandbox::new(Arc::clone(&self.grant), self.limits.memory_bytes);
        let mut store = Store::new(self.pre.engine(), sandbox);
        store.limiter(|sandbox| &mut sandbox.limiter);
        store.set_hostcall_fuel(self.limits.output_bytes);
        store.epoch_deadline_callback(|store| {
            store.data().check_deadline()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let running = begin(&mut store, SETUP_LIMIT, &self.ticker);
        let loaded = self.load(&mut store);
        drop(running);
        let (lifecycle, role) =
            loaded.map_err(|error| fault(&error, store.data(), &self.limits))?;
        let (limits, ticker) = (self.limits.clone(), Arc::clone(&self.ticker));
        Ok(Instance { store, lifecycle, role, limits, ticker })
    }

    fn load(&self, store: &mut Store<Sandbox>) -> wasmtime::Result<(lifecycle::Guest, RoleGuest)> {
        let instance = self.pre.instantiate(&mut *store)?;
        let lifecycle = self.lifecycle.load(&mut *store, &instance)?;
        let role = match &self.role {
            RoleIndices::Router(indices) => RoleGuest::Router(indices.load(store, &instance)?),
            RoleIndices::Template(indices) => RoleGuest::Template(indices.load(store, &instance)?),
            RoleIndices::Parser(indices) => RoleGuest::Parser(indices.load(store, &instance)?),
        };
        Ok((lifecycle, role))
    }

    /// A guest that is ready for its first call.
    pub(super) fn configured(&self) -> Result<Instance, FaultKind> {
        let mut instance = self.instantiate()?;
        instance.configure()?;
        Ok(instance)
    }
}

impl Instance {
    /// Calls the role's functions within the plugin's deadline.
    pub(super) fn call<T>(
        &mut self,
        work: impl FnOnce(&mut Store<Sandbox>, &RoleGuest) -> wasmtime::Result<T>,
    ) -> Result<T, FaultKind> {
        let running = begin(&mut self.store, self.limits.deadline, &self.ticker);
        let answer = work(&mut self.store, &self.role);
        drop(running);
        answer.map_err(|error| fault(&error, self.store.data(), &self.limits))
    }

    /// What the plugin says of itself.
    pub(super) fn describe(&mut self) -> Result<Info, FaultKind> {
        let info = self.set_up(|store, guest| guest.call_describe(store))?;
        let version = guest_text(&info.version);
        Ok(Info { version, needs_special_tokens: info.needs_special_tokens })
    }

    /// Lets the plugin read its configuration.
    pub(super) fn configure(&mut self) -> Result<(), FaultKind> {
        self.set_up(|store, guest| guest.call_configure(store))?.map_err(|why| declined(&why))
    }

    /// Lets the plugin try itself.
    pub(super) fn self_test(&mut self) -> Result<(), FaultKind> {
        self.set_up(|store, guest| guest.call_self_test(store))?.map_err(|why| declined(&why))
    }

    fn set_up<T>(
        &mut self,
        work: impl FnOnce(&mut Store<Sandbox>, &lifecycle::Guest) -> wasmtime::Result<T>,
    ) -> Result<T, FaultKind> {
        let running = begin(&mut self.store, SETUP_LIMIT, &self.ticker);
        let answer = work(&mut self.store, &self.lifecycle);
        drop(running);
        answer.map_err(|error| fault(&error, self.store.data(), &self.limits))
    }

    /// What host functions may tell this guest about the request.
    pub(super) fn set_scope(&mut self, scope: RouteScope) {
        self.store.data_mut().scope = Some(scope);
    }

    /// What this guest was made with.
    pub(super) fn grant(&self) -> &Grant {
        &self.store.data().grant
    }

    /// What this guest may use.
    pub(super) const fn limits(&self) -> &PluginLimits {
        &self.limits
    }
}

/// Starts the clock of one call and keeps the epoch moving until the answer is dropped.
fn begin<'a>(
    store: &mut Store<Sandbox>,
    cpu_limit: Duration,
    ticker: &'a Ticker,
) -> super::deadline::Running<'a> {
    store.data_mut().begin(Deadline::start(cpu_limit));
    store.set_epoch_deadline(1);
    ticker.enter()
}

fn declined(why: &str) -> FaultKind {
    FaultKind::Refused(Refusal::Internal(guest_text(why)))
}

/// Names what stopped a guest.
fn fault(error: &Error, sandbox: &Sandbox, limits: &PluginLimits) -> FaultKind {
    if let Some(kind) = error.downcast_ref::<FaultKind>() {
        return kind.clone();
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return FaultKind::Busy;
    }
    // A guest that was refused memory aborts with whatever trap its language ends in.
    if sandbox.limiter.refused {
        return FaultKind::Memory(limits.memory_bytes);
    }
    let cause = error.root_cause().to_string();
    // wasmtime keeps this error's type to itself.
    if cause.contains("fuel allocated for hostcalls has been exhausted") {
        return FaultKind::Output(limits.output_bytes);
    }
    let trap = error.downcast_ref::<Trap>().map(ToString::to_string);
    FaultKind::Trap(guest_text(&trap.unwrap_or(cause)))
}
