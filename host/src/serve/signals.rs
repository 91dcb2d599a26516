//! What the operator says by signal: stop, stop at once, look at your files.

use std::{io, process, sync::Arc};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::reload::Reload;

/// Exit code of a process that a second signal ended.
const IMPATIENT: i32 = 130;

/// Resolves at the first SIGTERM or SIGINT; the second ends the process.
pub(super) fn shutdown() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        either(&mut terminate, &mut interrupt).await;
        tokio::spawn(async move {
            either(&mut terminate, &mut interrupt).await;
            tracing::warn!("second signal: ending at once");
            process::exit(IMPATIENT);
        });
    })
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// SIGHUP reloads.
pub(super) fn reload_on_hangup(reload: Arc<Reload>) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload.ask();
        }
    });
    Ok(())
}
