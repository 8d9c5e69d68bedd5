//! What one check says: a verdict, what was seen, and the cure.

use serde::Serialize;

/// What a check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It works, and may cost something some day.
    Warning,
    /// Readings are not taken, not kept or not sent as long as it stays so.
    Wrong,
    /// Not tried, for a reason that another check or the person gave.
    Skipped,
}

impl Verdict {
    /// As it stands in the first column.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
            Self::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub name: String,
    pub verdict: Verdict,
    /// What was seen, or why it was not looked at.
    pub message: String,
    /// The cure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The cure as commands, of which one of a kind is enough.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Command>,
}

/// A command, or a text for another tool, that cures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Command {
    /// The tool it is for.
    pub tool: &'static str,
    pub text: String,
}

impl Check {
    fn new(verdict: Verdict, name: impl Into<String>, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { name: name.into(), verdict, message: message.into(), hint, commands: Vec::new() }
    }

    pub fn ok(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, name, message, None)
    }

    pub fn warning(name: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, name, message, Some(hint.into()))
    }

    pub fn wrong(name: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Verdict::Wrong, name, message, Some(hint.into()))
    }

    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Verdict::Skipped, name, why, None)
    }

    /// With the cure as commands.
    pub fn with(mut self, commands: Vec<Command>) -> Self {
        self.commands = commands;
        self
    }

    /// With a command for this machine.
    pub fn run(self, text: impl Into<String>) -> Self {
        self.with(vec![Command { tool: "run", text: text.into() }])
    }

    /// Without a cure, where there is none to give.
    pub fn plain(mut self) -> Self {
        self.hint = None;
        self
    }
}

/// Checks that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub area: String,
    pub checks: Vec<Check>,
}

impl Group {
    pub fn new(area: impl Into<String>, checks: Vec<Check>) -> Self {
        Self { area: area.into(), checks }
    }
}

/// How many there are of each verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub ok: usize,
    pub warning: usize,
    pub wrong: usize,
    pub skipped: usize,
}

impl Summary {
    pub fn of(groups: &[Group]) -> Self {
        let mut summary = Self::default();
        for check in groups.iter().flat_map(|group| &group.checks) {
            let count = match check.verdict {
                Verdict::Ok => &mut summary.ok,
                Verdict::Warning => &mut summary.warning,
                Verdict::Wrong => &mut summary.wrong,
                Verdict::Skipped => &mut summary.skipped,
            };
            *count += 1;
        }
        summary
    }
}
