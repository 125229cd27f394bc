//! What ends an attempt: one failure of the closed set, and a sentence about the case.

use std::error::Error;
use std::fmt;

use boot::Failure;

/// The most bytes of a reason: it goes into a report and onto a screen.
const REASON_LEN_MAX: usize = 1024;

/// Why an attempt to boot ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Which.
    pub(crate) failure: Failure,
    /// In one sentence, with the names and numbers of the case.
    pub(crate) reason: String,
}

/// An error that knows which failure it is.
pub(crate) trait Fails: Error {
    /// Which.
    fn failure(&self) -> Failure;
}

impl Failed {
    /// A failure with its reason, which is cut to what a report takes.
    pub(crate) fn new(failure: Failure, reason: impl Into<String>) -> Self {
        let mut reason: String = reason.into();
        if reason.len() > REASON_LEN_MAX {
            reason.truncate(reason.floor_char_boundary(REASON_LEN_MAX));
        }
        Self { failure, reason }
    }

    /// Something that nobody thought of.
    pub(crate) fn internal(what: &str, error: &dyn Error) -> Self {
        Self::new(Failure::Internal, format!("{what}: {}", chain(error)))
    }
}

impl<E: Fails> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::new(error.failure(), chain(&error))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.failure, self.reason)
    }
}

/// An error and its causes, in one line. A cause that its error already names is not said twice.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let failed = Failed::new(Failure::Internal, "ä".repeat(1000));
        assert_eq!(failed.reason.len(), REASON_LEN_MAX);
        let failed = Failed::new(Failure::Internal, format!("x{}", "ä".repeat(1000)));
        assert_eq!(failed.reason.len(), REASON_LEN_MAX - 1);
    }
}
