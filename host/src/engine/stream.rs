//! The receiving end of one sequence's tokens.

use tokio::sync::mpsc;

use super::TokenOutput;

/// Tokens of one sequence, as they are produced.
///
/// The stream ends after a token with `finish`; if it ends without one, the engine failed or was
/// shut down. Dropping it cancels the sequence: the engine frees what it held at the next step.
pub struct TokenStream {
    receiver: mpsc::Receiver<TokenOutput>,
}

impl TokenStream {
    /// A stream with room for all of a sequence's tokens, and its sending end.
    pub(super) fn with_room(tokens: usize) -> (mpsc::Sender<TokenOutput>, Self) {
        let (sender, receiver) = mpsc::channel(tokens);
        (sender, Self { receiver })
    }

    /// The next token; `None` after the last.
    pub async fn recv(&mut self) -> Option<TokenOutput> {
        self.receiver.recv().await
    }

    /// The next token if there is one already.
    pub fn try_recv(&mut self) -> Option<TokenOutput> {
        self.receiver.try_recv().ok()
    }

    /// The next token, for callers outside the async runtime; `None` after the last.
    pub fn blocking_recv(&mut self) -> Option<TokenOutput> {
        self.receiver.blocking_recv()
    }
}
