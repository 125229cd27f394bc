//! What is wrong with a lab's files, and where: all of it is gathered before any of it is told.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Nothing starts with it.
    Error,
    /// It works, perhaps not as was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Problem {
    /// The file, relative to the lab.
    pub(crate) file: String,
    /// Its line, counted from one; none if the file as a whole is meant.
    pub(crate) line: Option<usize>,
    pub(crate) severity: Severity,
    /// What is wrong, and what to write instead.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        let label = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, ": {label}{}", self.message)
    }
}

/// All that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Adds what nothing starts with.
    pub(crate) fn error(&mut self, file: &str, line: Option<usize>, message: impl Into<String>) {
        self.add(file, line, Severity::Error, message.into());
    }

    /// Adds what should be known.
    pub(crate) fn warn(&mut self, file: &str, line: Option<usize>, message: impl Into<String>) {
        self.add(file, line, Severity::Warning, message.into());
    }

    fn add(&mut self, file: &str, line: Option<usize>, severity: Severity, message: String) {
        self.list.push(Problem { file: file.to_owned(), line, severity, message });
    }

    /// Adds those of another list.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.list.extend(other.list.iter().cloned());
    }

    /// Whether nothing can start.
    pub(crate) fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many there are of this kind.
    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|problem| problem.severity == severity).count()
    }

    /// In the order of files and lines, as somebody would go through them, each once.
    pub(crate) fn sorted(mut self) -> Self {
        self.list.sort();
        self.list.dedup();
        self
    }

    /// As they are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let separator = if index > 0 { "\n" } else { "" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}
