//! Writing `nodes.yaml`: one writer at a time, in one step, and only what can be read afterwards.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::config::NODES_FILE;
use super::edit::EditError;
use super::problem::Problems;
use super::{OpenError, check};
use crate::state::{self, FOLDER};

/// Taken by whoever writes: a command, or the server for somebody who is logged in.
const LOCK_FILE: &str = "nodes.lock";

/// The file, as long as nobody else writes it.
#[derive(Debug)]
pub(crate) struct NodesFile {
    dir: PathBuf,
    text: String,
    is_there: bool,
    _lock: File,
}

/// Why it was not written. It is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("cannot {verb} {}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error("{NODES_FILE} would have problems, and is as it was:\n{0}")]
    Problems(Problems),
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl NodesFile {
    /// That of the lab in `dir`; one that is not there is empty. Waits for another writer.
    ///
    /// # Errors
    /// If it cannot be read, or the lab not be written to.
    pub(crate) fn open(dir: &Path) -> Result<Self, WriteError> {
        let path = dir.join(FOLDER).join(LOCK_FILE);
        let refuse = |source| WriteError::Io { verb: "write", path: path.clone(), source };
        state::make_folder(dir).map_err(refuse)?;
        let lock = File::options().create(true).append(true).open(&path).map_err(refuse)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|errno| refuse(errno.into()))?;
        let path = dir.join(NODES_FILE);
        let (text, is_there) = match fs::read_to_string(&path) {
            Ok(text) => (text, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), false),
            Err(source) => return Err(WriteError::Io { verb: "read", path, source }),
        };
        Ok(Self { dir: dir.to_owned(), text, is_there, _lock: lock })
    }

    /// What is in it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Puts `after` in its place, if the lab can be read with it: whatever the lines look like, the
    /// parser has the last word.
    ///
    /// # Errors
    /// If not; then it is as it was.
    pub(crate) fn replace(self, after: &str) -> Result<(), WriteError> {
        self.put(after)?;
        let problems = match check(&self.dir) {
            Ok((_, problems)) if problems.has_errors() => WriteError::Problems(problems),
            Ok(_) => return Ok(()),
            Err(error) => error.into(),
        };
        match self.is_there {
            true => self.put(&self.text)?,
            false => {
                let path = self.dir.join(NODES_FILE);
                let refuse = |source| WriteError::Io { verb: "remove", path: path.clone(), source };
                fs::remove_file(&path).map_err(refuse)?;
            }
        }
        Err(problems)
    }

    fn put(&self, text: &str) -> Result<(), WriteError> {
        let path = self.dir.join(NODES_FILE);
        let refuse = |source| WriteError::Io { verb: "write", path: path.clone(), source };
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).map_err(refuse)?;
        file.write_all(text.as_bytes()).map_err(refuse)?;
        if let Ok(metadata) = fs::metadata(&path) {
            fs::set_permissions(file.path(), metadata.permissions()).map_err(refuse)?;
        }
        file.as_file().sync_all().map_err(refuse)?;
        file.persist(&path).map_err(|error| refuse(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::test_lab::TestLab;

    #[test]
    fn what_cannot_be_read_is_not_left_there() {
        let lab = TestLab::new();
        let good = "nodes:\n  c001: {mac: 52:54:00:00:00:01}\n";
        let bad = "nodes:\n  c001: {mac: 52:54:00:00:00:01, image: nothing}\n";
        let path = lab.path(NODES_FILE);
        let put = |text: &str| NodesFile::open(lab.dir()).unwrap().replace(text);
        assert!(matches!(put(bad), Err(WriteError::Problems(_))));
        assert!(!path.exists());
        put(good).unwrap();
        let error = put(bad).unwrap_err().to_string();
        assert!(error.contains("oss/nothing"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), good);
        assert_eq!(NodesFile::open(lab.dir()).unwrap().text(), good);
    }
}
