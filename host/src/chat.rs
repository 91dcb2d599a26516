//! The vocabulary of a conversation, shared by the wire, the templates and the plugins.

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Operator's instructions.
    System,
    /// The newer name of `system`.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The wire's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A call the model made in an earlier turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Joins the call to its result.
    pub id: String,
    /// The function.
    pub name: String,
    /// JSON text, as the model wrote it.
    pub arguments: String,
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Text; empty where the turn has none.
    pub content: String,
    /// The speaker's name, if several share a role.
    pub name: Option<String>,
    /// What the model thought before it answered.
    pub reasoning: Option<String>,
    /// Calls made in this turn.
    pub tool_calls: Vec<ToolCall>,
    /// The call that this turn answers.
    pub tool_call_id: Option<String>,
}

/// A function the model may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON Schema of its arguments, as text.
    pub schema: String,
    /// Whether arguments must follow the schema exactly.
    pub strict: bool,
}

/// Which tools the model may, must or must not call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// No call.
    None,
    /// At least one call.
    Required,
    /// This function.
    Named(String),
}
