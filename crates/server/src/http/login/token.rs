//! The lab's token, `state/token`: 32 random bytes in hexadecimal, for nobody but who runs the server.
//! Who has it may command. There is none until somebody asks for one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::state::{self, FOLDER};

const FILE: &str = "token";

/// Bytes of chance: more than can ever be guessed.
const LEN: usize = 32;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("cannot {verb} {}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    /// Others could command, too.
    #[error(
        "{} can be read by others (mode {mode:03o}): make a new one with `boottorrent dashboard token \
         --renew`",
        path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("{} is not a token: make a new one with `boottorrent dashboard token --renew`", .0.display())]
    Format(PathBuf),
    #[error("no randomness from the system for a token")]
    Random(#[source] getrandom::Error),
}

/// The token of the lab in `dir`, if it has one.
///
/// # Errors
/// If it cannot be read, others can read it too, or it is none.
pub(crate) fn load(dir: &Path) -> Result<Option<String>, TokenError> {
    let path = dir.join(FOLDER).join(FILE);
    let refuse = |source| TokenError::Io { verb: "read", path: path.clone(), source };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    let mode = fs::metadata(&path).map_err(refuse)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TokenError::Open { path, mode });
    }
    let token = text.trim();
    match token.len() == 2 * LEN && token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(Some(token.to_owned())),
        false => Err(TokenError::Format(path)),
    }
}

/// Makes a new token for the lab in `dir`; one that was there holds no more.
///
/// # Errors
/// If it cannot be written; then nothing is changed.
pub(crate) fn renew(dir: &Path) -> Result<String, TokenError> {
    let folder = dir.join(FOLDER);
    let path = folder.join(FILE);
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
    let token = boot::hex::encode(&bytes);
    let write = || -> io::Result<()> {
        state::make_folder(dir)?;
        let new = folder.join(format!("{FILE}.new"));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(format!("{token}\n").as_bytes())?;
        file.sync_all()?;
        // The server may be another user's: who may read the lab's state may read this.
        let owner = fs::metadata(&folder)?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&new, Some(owner.uid()), Some(owner.gid()))?;
        }
        fs::rename(&new, &path)
    };
    write().map_err(|source| TokenError::Io { verb: "write", path: path.clone(), source })?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_its_owners_and_the_last_one_holds() {
        let lab = tempfile::tempdir().unwrap();
        assert_eq!(load(lab.path()).unwrap(), None);
        let first = renew(lab.path()).unwrap();
        assert_eq!(load(lab.path()).unwrap(), Some(first.clone()));
        let second = renew(lab.path()).unwrap();
        assert!(first != second && load(lab.path()).unwrap() == Some(second));
        let path = lab.path().join(FOLDER).join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_token_that_others_can_read_or_that_is_none_is_refused() {
        let lab = tempfile::tempdir().unwrap();
        renew(lab.path()).unwrap();
        let path = lab.path().join(FOLDER).join(FILE);
        fs::write(&path, "").unwrap();
        assert!(matches!(load(lab.path()), Err(TokenError::Format(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(lab.path()), Err(TokenError::Open { mode: 0o640, .. })));
    }
}
