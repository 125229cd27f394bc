//! The lab's key: `keys/lab.key`, for nobody but who runs the server, and `keys/lab.pub`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use boot::{LabKey, LabPublicKey};

/// The folder of keys.
pub(crate) const KEYS_DIR: &str = "keys";

/// The secret half.
pub(crate) const SECRET_FILE: &str = "keys/lab.key";

/// The half that phase 1 carries.
pub(crate) const PUBLIC_FILE: &str = "keys/lab.pub";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// It cannot be read or written.
    #[error("cannot {verb} {}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    /// It is something else.
    #[error("{} is not a key", path.display())]
    Format { path: PathBuf, source: boot::signature::FormatError },
    /// Others could sign, too.
    #[error("{} can be read by others (mode {mode:03o}): chmod 600 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    /// The two halves are not one key's.
    #[error(
        "{} is not the public half of {SECRET_FILE}: nodes would refuse what is signed; bring back \
         the right key, or remove the public half and build phase 1 anew",
        path.display()
    )]
    Pair { path: PathBuf },
    /// Nodes trust a key that is not there.
    #[error(
        "{} is missing, and phase 1 trusts the key of {PUBLIC_FILE}: bring it back, or remove \
         {PUBLIC_FILE} too for a new key, and build phase 1 anew",
        path.display()
    )]
    Lost { path: PathBuf },
    /// No randomness.
    #[error("no randomness from the system for a key")]
    Random(#[source] getrandom::Error),
}

/// The key of the lab in `dir`. One that was never given a key (an environment of the original) gets
/// one.
pub(crate) fn load(dir: &Path) -> Result<LabKey, KeyError> {
    let path = dir.join(SECRET_FILE);
    let refuse = |source| KeyError::Io { verb: "read", path: path.clone(), source };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match dir.join(PUBLIC_FILE).exists() {
                true => Err(KeyError::Lost { path }),
                false => create(dir),
            };
        }
        Err(error) => return Err(refuse(error)),
    };
    let mode = fs::metadata(&path).map_err(refuse)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path, mode });
    }
    let key: LabKey =
        text.parse().map_err(|source| KeyError::Format { path: path.clone(), source })?;
    let path = dir.join(PUBLIC_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => match text.parse::<LabPublicKey>() {
            Ok(public) if public == key.public() => Ok(key),
            Ok(_) => Err(KeyError::Pair { path }),
            Err(source) => Err(KeyError::Format { path, source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write(&path, 0o644, &key.public().to_string())?;
            Ok(key)
        }
        Err(source) => Err(KeyError::Io { verb: "read", path, source }),
    }
}

/// A new key for the lab in `dir`, which has none.
pub(crate) fn create(dir: &Path) -> Result<LabKey, KeyError> {
    let folder = dir.join(KEYS_DIR);
    fs::create_dir_all(&folder).map_err(|source| KeyError::Io {
        verb: "make",
        path: folder,
        source,
    })?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(KeyError::Random)?;
    let key = LabKey::from_seed(seed);
    write(&dir.join(SECRET_FILE), 0o600, &key.to_secret_text())?;
    write(&dir.join(PUBLIC_FILE), 0o644, &key.public().to_string())?;
    Ok(key)
}

/// Writes a file that is not there yet.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), KeyError> {
    let mut options = OpenOptions::new();
    let written =
        options.write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|source| KeyError::Io { verb: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let lab = tempfile::tempdir().unwrap();
        let key = load(lab.path()).unwrap();
        assert_eq!(load(lab.path()).unwrap().public(), key.public());
        let mode = fs::metadata(lab.path().join(SECRET_FILE)).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        fs::remove_file(lab.path().join(PUBLIC_FILE)).unwrap();
        load(lab.path()).unwrap();
        let text = fs::read_to_string(lab.path().join(PUBLIC_FILE)).unwrap();
        assert_eq!(text.parse(), Ok(key.public()));
    }

    #[test]
    fn a_key_that_nodes_trust_is_not_replaced_in_silence() {
        let lab = tempfile::tempdir().unwrap();
        create(lab.path()).unwrap();
        let secret = lab.path().join(SECRET_FILE);
        fs::rename(&secret, lab.path().join("kept")).unwrap();
        assert!(matches!(load(lab.path()), Err(KeyError::Lost { .. })));
        let other = LabKey::from_seed([9; 32]).to_secret_text();
        write(&secret, 0o600, &other).unwrap();
        assert!(matches!(load(lab.path()), Err(KeyError::Pair { .. })));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let lab = tempfile::tempdir().unwrap();
        create(lab.path()).unwrap();
        let path = lab.path().join(SECRET_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load(lab.path()).unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
    }
}
