//! Steps that launch what an earlier step launched are replayed from a graph.
//!
//! The launches of a decoding step are held until something else wants the stream. If they are,
//! byte for byte, those of the latest step of the same [`Class`], the driver prepares a graph of
//! them, and from then on launches that; if they are others, they are issued one by one. So a graph
//! never stands for anything but the launches that it replaces, whatever the caller does.

use std::{collections::HashMap, mem, sync::Arc};

use cudarc::driver::{CudaContext, sys};

use super::{graph::Graph, launch::Launch, step::Class};

/// Launches on hold, and those that are known.
#[derive(Default)]
pub(super) struct Replay {
    /// Of the step at hand; `None` where launches are not held.
    class: Option<Class>,
    held: Vec<Launch>,
    known: HashMap<Class, Known>,
    counts: ReplayCounts,
}

/// What the latest step of a class launched.
struct Known {
    launches: Vec<Launch>,
    /// Once it has come up twice.
    graph: Option<Graph>,
}

/// How steps were launched since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// Graphs prepared.
    pub captured: u64,
    /// Steps launched as a graph.
    pub replayed: u64,
}

impl Replay {
    /// From now on launches are held, if there is a class. Nothing is held yet.
    pub(super) fn hold(&mut self, class: Option<Class>) {
        assert!(self.held.is_empty(), "a step begins when the one before has been launched");
        self.class = class;
    }

    /// Holds a launch, or queues it at once.
    pub(super) fn launch(&mut self, launch: Launch, stream: sys::CUstream) {
        match self.class {
            Some(_) => self.held.push(launch),
            None => launch.issue(stream),
        }
    }

    /// Queues what is held; what comes then is queued at once.
    pub(super) fn flush(&mut self, context: &Arc<CudaContext>, stream: sys::CUstream) {
        let Some(class) = self.class.take() else { return };
        let held = mem::take(&mut self.held);
        match self.known.get_mut(&class) {
            _ if held.is_empty() => {}
            Some(known) if known.launches == held => {
                let graph = known.graph.get_or_insert_with(|| {
                    self.counts.captured += 1;
                    Graph::capture(context, stream, &held)
                });
                graph.launch(stream);
                self.counts.replayed += 1;
            }
            _ => {
                held.iter().for_each(|launch| launch.issue(stream));
                self.known.insert(class, Known { launches: held, graph: None });
            }
        }
    }

    pub(super) fn counts(&self) -> ReplayCounts {
        self.counts
    }
}
