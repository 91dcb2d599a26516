//! A choice put together again from its deltas, for replies that are not streamed.

use crate::generation::{Delta, Finish, Part, Token};

/// All of one choice.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Joined {
    pub(super) content: String,
    pub(super) reasoning: String,
    pub(super) calls: Vec<JoinedCall>,
    /// Parts that are neither text nor calls, in order.
    pub(super) remarks: Vec<Part>,
    pub(super) tokens: Vec<Token>,
    pub(super) finish: Option<Finish>,
}

/// One function call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JoinedCall {
    index: u32,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
}

impl Joined {
    /// Appends what came next.
    pub(super) fn push(&mut self, delta: Delta) {
        self.tokens.extend(delta.tokens);
        self.finish = delta.finish;
        for part in delta.parts {
            match part {
                Part::Content(text) => self.content.push_str(&text),
                Part::Reasoning(text) => self.reasoning.push_str(&text),
                Part::ToolBegin { index, id, name } => {
                    self.calls.push(JoinedCall { index, id, name, arguments: String::new() });
                }
                Part::ToolArguments { index, fragment } => {
                    let call = self.calls.iter_mut().rfind(|call| call.index == index);
                    if let Some(call) = call {
                        call.arguments.push_str(&fragment);
                    }
                }
                remark @ (Part::Structured { .. } | Part::Annotation { .. }) => {
                    self.remarks.push(remark);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{FinishCause, FinishKind};

    #[test]
    fn interleaved_calls_are_joined_by_index() {
        let begin = |index, name: &str| {
            let (id, name) = (format!("call_{index}"), name.to_owned());
            Part::ToolBegin { index, id, name }
        };
        let more = |index, fragment: &str| {
            let fragment = fragment.to_owned();
            Part::ToolArguments { index, fragment }
        };
        let text = |text: &str| Part::Content(text.to_owned());
        let finish = Finish { kind: FinishKind::ToolCalls, cause: FinishCause::Model };
        let mut joined = Joined::default();
        for (parts, finish) in [
            (vec![text("a"), begin(0, "f"), more(0, "{\"x\"")], None),
            (vec![begin(1, "g"), more(1, "{}"), more(0, ":1}"), text("b")], None),
            (vec![], Some(finish.clone())),
        ] {
            joined.push(Delta { choice: 0, parts, tokens: Vec::new(), finish });
        }
        let calls: Vec<_> = joined.calls.iter().map(|c| (&*c.name, &*c.arguments)).collect();
        assert_eq!(calls, [("f", "{\"x\":1}"), ("g", "{}")]);
        assert_eq!((joined.content.as_str(), joined.finish), ("ab", Some(finish)));
    }
}
