//! What is said while a phase 1 is built.

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A kernel package is read.
    Reading,
    /// The initramfs is compressed.
    Compressing,
}

impl Step {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Compressing => "compressing",
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Bytes that are done.
    pub done: u64,
    /// Of these.
    pub total: u64,
}
