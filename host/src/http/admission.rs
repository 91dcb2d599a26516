//! Which inference requests are let in: counted before any work, none while draining.

use tokio::sync::watch;

use super::ApiError;

/// Counts requests in progress; clones share the count.
#[derive(Clone, Default)]
pub(super) struct Admission {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    draining: bool,
}

/// One admitted request; dropping it makes room for another.
pub(super) struct Permit {
    admission: Admission,
}

impl Admission {
    /// Admits one request if fewer than `limit` are in progress.
    pub(super) fn enter(&self, limit: usize) -> Result<Permit, ApiError> {
        let mut outcome = Ok(());
        self.state.send_if_modified(|state| {
            outcome = match state {
                State { draining: true, .. } => Err(ApiError::draining()),
                State { running, .. } if *running >= limit => Err(ApiError::too_many(limit)),
                State { running, .. } => {
                    *running += 1;
                    Ok(())
                }
            };
            outcome.is_ok()
        });
        outcome.map(|()| Permit { admission: self.clone() })
    }

    /// Admits no more.
    pub(super) fn drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Whether [`drain`](Self::drain) was called.
    pub(super) fn is_draining(&self) -> bool {
        self.state.borrow().draining
    }

    /// Requests in progress.
    pub(super) fn running(&self) -> usize {
        self.state.borrow().running
    }

    /// Resolves when no request is in progress.
    pub(super) async fn idle(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so that the channel cannot close.
        let _ = state.wait_for(|state| state.running == 0).await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.state.send_modify(|state| state.running -= 1);
    }
}

#[cfg(test)]
mod tests {
    use axum::{http::StatusCode, response::IntoResponse};

    use super::*;

    #[test]
    fn admits_to_the_limit_and_nothing_while_draining() {
        let admission = Admission::default();
        let status = |limit| {
            let refused = |error: ApiError| error.into_response().status();
            admission.enter(limit).map(drop).map_err(refused)
        };
        let first = admission.enter(2).expect("room for one");
        let second = admission.enter(2).expect("room for two");
        assert_eq!(status(2), Err(StatusCode::TOO_MANY_REQUESTS));
        drop(first);
        assert_eq!(status(2), Ok(()));
        assert_eq!(admission.running(), 1);
        admission.drain();
        assert_eq!(status(2), Err(StatusCode::SERVICE_UNAVAILABLE));
        drop(second);
        assert_eq!(admission.running(), 0);
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_request() {
        let admission = Admission::default();
        admission.idle().await;
        let permit = admission.enter(1).expect("room for one");
        let waiting = tokio::spawn({
            let admission = admission.clone();
            async move { admission.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(permit);
        waiting.await.expect("no panic");
    }
}
