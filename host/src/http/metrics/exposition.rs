//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

/// Every name begins with it.
const PREFIX: &str = "switchyard";

/// Families of samples, written one after the other.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// A number that only grows.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        assert!(name.ends_with("_total"), "{name}: what is counted is a total");
        self.head((name, "counter"), help);
        self.line(format_args!("{PREFIX}_{name} {value}"));
    }

    /// A number as it is now.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head((name, "gauge"), help);
        self.line(format_args!("{PREFIX}_{name} {value}"));
    }

    /// The parts of something as they are now, told apart by a label.
    pub(super) fn gauges<const N: usize>(
        &mut self,
        (name, label): (&str, &str),
        help: &str,
        parts: [(&str, Option<usize>); N],
    ) {
        self.head((name, "gauge"), help);
        for (part, value) in parts {
            if let Some(value) = value {
                self.line(format_args!("{PREFIX}_{name}{{{label}=\"{part}\"}} {value}"));
            }
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, (name, kind): (&str, &str), help: &str) {
        self.line(format_args!("# HELP {PREFIX}_{name} {help}"));
        self.line(format_args!("# TYPE {PREFIX}_{name} {kind}"));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.text, "{line}").expect("a string takes what is written");
    }
}
