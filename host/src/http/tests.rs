//! The routes, over HTTP, on a real engine with a tiny random model.
