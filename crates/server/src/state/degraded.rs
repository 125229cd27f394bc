//! What does not work as it should though the server runs, for `status`, `/readyz` and the log.
//!
//! Stores are opened in many places and by many threads of one process; what they have to say is kept here,
//! by the lab and the part or the file, instead of being handed through all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lab, part or file, and whether it passes.
type Key = (PathBuf, String, Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// As long as it is so.
    Suffers,
    /// It has happened, and is to be seen until the next start.
    Noted,
}

static SENTENCES: Mutex<BTreeMap<Key, String>> = Mutex::new(BTreeMap::new());

/// What a part keeps cannot be stored, and what that means. It is said in the log when it begins.
pub(crate) fn suffers(lab: &Path, part: &str, text: &str) {
    let key = (lab.to_owned(), part.to_owned(), Kind::Suffers);
    if sentences().insert(key, text.to_owned()).is_none() {
        tracing::error!(target: "LAB", "{text}");
    }
}

/// What a part keeps can be stored again. It is said in the log if it could not before.
pub(crate) fn recovered(lab: &Path, part: &str) {
    let key = (lab.to_owned(), part.to_owned(), Kind::Suffers);
    if sentences().remove(&key).is_some() {
        tracing::info!(target: "LAB", "state/ is written again: {part}");
    }
}

/// Something has happened to a file.
pub(super) fn notes(lab: &Path, file: &str, text: &str) {
    sentences().insert((lab.to_owned(), file.to_owned(), Kind::Noted), text.to_owned());
}

/// A sentence for each thing that is not as it should be in the lab in `lab`.
pub(crate) fn degraded(lab: &Path) -> Vec<String> {
    let sentences = sentences();
    let of_lab = sentences.iter().filter(|((of, ..), _)| of == lab);
    of_lab.map(|(_, text)| text.clone()).collect()
}

fn sentences() -> MutexGuard<'static, BTreeMap<Key, String>> {
    SENTENCES.lock().unwrap_or_else(PoisonError::into_inner)
}
