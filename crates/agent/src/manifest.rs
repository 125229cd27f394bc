//! The manifest: read from the initramfs and from the server, believed only by its signature.
//!
//! The one of the initramfs needs nobody. The server is asked when that one is missing or refused,
//! when an attempt has failed, and when the server has said that it has a newer one: so whatever is
//! wrong is healed by repairing the server. Of all that verify the newest counts, and it is kept: an
//! older one, signed as it may be, never takes its place within a boot.

use std::path::{Path, PathBuf};

use boot::manifest::{LEN_MAX, ManifestError};
use boot::signature::SignatureError;
use boot::{Failure, LabPublicKey, Manifest, Signature};

use crate::failed::{Fails, chain};
use crate::sources::{Origin, SourceError, Sources};

/// Where the public key of the lab is, in the initramfs.
const KEY_PATH: &str = "etc/boottorrent/lab.pub";

const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.sig";

/// A signature is one line of some 170 bytes.
const SIGNATURE_LEN_MAX: usize = 1024;

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestFailure {
    /// Without the lab's key nothing can be believed.
    #[error("{} has no key to verify with: {reason}", path.display())]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is nowhere.
    #[error("{}", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
    Unreachable(Vec<SourceError>),
    /// The bytes beside it are not a signature.
    #[error("{origin}: there is no signature beside the manifest")]
    NoSignature {
        /// Where.
        origin: Origin,
    },
    /// It was got and is not to be believed.
    #[error("{origin}")]
    Refused {
        /// Where.
        origin: Origin,
        /// Why.
        source: ManifestError,
    },
    /// It is signed, and older than one that this node has seen.
    #[error("{origin}: serial {serial} is older than {newest}, which this node has seen")]
    Stale {
        /// Where.
        origin: Origin,
        /// What it says.
        serial: u64,
        /// What was seen.
        newest: u64,
    },
}

impl ManifestFailure {
    /// There is none in the initramfs, and nothing else is wrong.
    fn is_missing(&self) -> bool {
        matches!(self, Self::Unreachable(errors) if matches!(errors[..], [SourceError::Missing(_)]))
    }
}

impl Fails for ManifestFailure {
    fn failure(&self) -> Failure {
        match self {
            Self::Key { .. } => Failure::OtherKey,
            Self::Unreachable(_) => Failure::ManifestUnreachable,
            Self::NoSignature { .. } => Failure::ManifestAltered,
            Self::Stale { .. } => Failure::ManifestStale,
            Self::Refused { source, .. } => match source {
                ManifestError::Signature(SignatureError::OtherKey { .. }) => Failure::OtherKey,
                ManifestError::Signature(SignatureError::Altered(_)) => Failure::ManifestAltered,
                ManifestError::TooLong(_)
                | ManifestError::Malformed(_)
                | ManifestError::Version(_)
                | ManifestError::NoSuchImage(_)
                | ManifestError::Twice(_) => Failure::ManifestFormat,
            },
        }
    }
}

/// What this node knows of manifests.
#[derive(Debug)]
pub(crate) struct Manifests {
    key: LabPublicKey,
    newest: Option<Manifest>,
}

impl Manifests {
    /// Trusts the key that is in the initramfs at `root`, and nobody else.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn trusting(root: &Path) -> Result<Self, ManifestFailure> {
        let path = root.join(KEY_PATH);
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let key = text.and_then(|text| text.parse().map_err(|error| format!("{error}")));
        match key {
            Ok(key) => Ok(Self { key, newest: None }),
            Err(reason) => Err(ManifestFailure::Key { path, reason }),
        }
    }

    /// The key that this node trusts.
    pub(crate) fn key(&self) -> LabPublicKey {
        self.key
    }

    /// The serial of the newest manifest that this node has seen.
    pub(crate) fn serial(&self) -> u64 {
        self.newest.as_ref().map_or(0, |manifest| manifest.serial)
    }

    /// The manifest of the initramfs, if it has a good one: what is known before there is a network.
    pub(crate) fn local(&mut self, sources: &Sources) -> Option<&Manifest> {
        let _ = self.take(Origin::Initramfs, |path, len_max| sources.local(path, len_max));
        self.newest.as_ref()
    }

    /// The newest manifest that can be had. `ask_server` says to ask it although the initramfs has
    /// a good one; what is refused on the way is told to `refused`.
    ///
    /// # Errors
    /// If there is none: what was wrong with the server's, or else with that of the initramfs.
    pub(crate) fn find(
        &mut self,
        sources: &Sources,
        ask_server: bool,
        refused: &mut dyn FnMut(&ManifestFailure),
    ) -> Result<Manifest, ManifestFailure> {
        let mut worst = None;
        let local = |path: &str, len_max| sources.local(path, len_max);
        if let Err(error) = self.take(Origin::Initramfs, local) {
            worst = Some(error);
        }
        if worst.is_some() || ask_server {
            let origin = Origin::Http(sources.url(MANIFEST).unwrap_or_default());
            let remote = |path: &str, len_max| sources.remote(path, len_max);
            let mut taken = self.take(origin.clone(), remote);
            // The lab may have published another one between the manifest and its signature.
            if taken.as_ref().is_err_and(|error| error.failure() == Failure::ManifestAltered) {
                taken = self.take(origin, remote);
            }
            if let Err(error) = taken {
                worst = Some(match (worst.take(), error) {
                    (None, error) => error,
                    (Some(before), error) => graver(before, error, refused),
                });
            }
        }
        match (&self.newest, worst) {
            (Some(newest), worst) => {
                // A boot program need not bring one.
                if let Some(error) = worst.filter(|error| !error.is_missing()) {
                    refused(&error);
                }
                Ok(newest.clone())
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(ManifestFailure::Unreachable(vec![])),
        }
    }

    /// Takes a manifest in if it is good and not older than what is known.
    fn take(
        &mut self,
        origin: Origin,
        get: impl Fn(&str, usize) -> Result<Vec<u8>, SourceError>,
    ) -> Result<(), ManifestFailure> {
        let unreachable = |error| ManifestFailure::Unreachable(vec![error]);
        let bytes = get(MANIFEST, LEN_MAX).map_err(unreachable)?;
        let signature = get(SIGNATURE, SIGNATURE_LEN_MAX).map_err(unreachable)?;
        self.judge(origin, &bytes, &signature)
    }

    fn judge(
        &mut self,
        origin: Origin,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), ManifestFailure> {
        let signature = str::from_utf8(signature).ok().and_then(|text| text.parse().ok());
        let Some::<Signature>(signature) = signature else {
            return Err(ManifestFailure::NoSignature { origin });
        };
        let manifest = Manifest::open(bytes, &signature, &self.key)
            .map_err(|source| ManifestFailure::Refused { origin: origin.clone(), source })?;
        let (serial, newest) = (manifest.serial, self.serial());
        // The initramfs stays what it was; that is no news.
        if serial < newest && origin != Origin::Initramfs {
            return Err(ManifestFailure::Stale { origin, serial, newest });
        }
        if serial >= newest {
            self.newest = Some(manifest);
        }
        Ok(())
    }
}

/// Of two failures the one to show: one that was refused before one that was not there, the later
/// before the earlier. The other is told to `refused`.
fn graver(
    before: ManifestFailure,
    after: ManifestFailure,
    refused: &mut dyn FnMut(&ManifestFailure),
) -> ManifestFailure {
    match (before, after) {
        (ManifestFailure::Unreachable(mut both), ManifestFailure::Unreachable(after)) => {
            both.extend(after);
            ManifestFailure::Unreachable(both)
        }
        (before, after @ ManifestFailure::Unreachable(_)) => {
            refused(&after);
            before
        }
        (before, after) => {
            refused(&before);
            after
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot::manifest::{Discovery, Menu, VERSION};
    use boot::{Image, LabKey, Loader};

    fn key(seed: u8) -> LabKey {
        LabKey::from_seed([seed; 32])
    }

    fn manifest(serial: u64) -> Manifest {
        let image = Image {
            name: "a".parse().unwrap(),
            title: String::new(),
            description: String::new(),
            password: None,
            len: 1,
            infohash: [0; 32],
            loader: Loader::Unknown,
        };
        Manifest {
            version: VERSION,
            serial,
            menu: Menu {
                default: image.name.clone(),
                timeout_s: Some(0),
                shell: Default::default(),
            },
            seed_time_s: 0,
            seed_auto: false,
            keymap: None,
            discovery: Discovery { lsd: false, pex: false },
            images: vec![image],
            phase1: vec![],
            booted_upload_limit_bytes_per_s: None,
            assignments: vec![],
        }
    }

    /// An initramfs with the lab's key and, if given, a manifest.
    fn initramfs(parts: Option<(&[u8], &str)>) -> (tempfile::TempDir, Manifests, Sources) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/boottorrent")).unwrap();
        std::fs::write(root.path().join(KEY_PATH), key(1).public().to_string()).unwrap();
        std::fs::create_dir(root.path().join("boottorrent")).unwrap();
        if let Some((bytes, signature)) = parts {
            std::fs::write(root.path().join("boottorrent").join(MANIFEST), bytes).unwrap();
            std::fs::write(root.path().join("boottorrent").join(SIGNATURE), signature).unwrap();
        }
        let manifests = Manifests::trusting(root.path()).unwrap();
        let sources = Sources::new(root.path(), None);
        (root, manifests, sources)
    }

    fn check(parts: Option<(&[u8], &str)>, expect: Result<u64, Failure>) {
        let (_root, mut manifests, sources) = initramfs(parts);
        let found = manifests.find(&sources, false, &mut |_| {});
        let found = found.map(|manifest| manifest.serial).map_err(|error| error.failure());
        assert_eq!(found, expect);
    }

    #[test]
    fn each_refusal_has_its_code() {
        let (bytes, signature) = manifest(7).sign(&key(1)).unwrap();
        check(Some((&bytes, &signature.to_string())), Ok(7));
        check(None, Err(Failure::ManifestUnreachable));
        check(Some((&bytes, "nonsense")), Err(Failure::ManifestAltered));
        let mut altered = bytes.clone();
        altered[20] ^= 1;
        check(Some((&altered, &signature.to_string())), Err(Failure::ManifestAltered));
        let (bytes, signature) = manifest(7).sign(&key(2)).unwrap();
        check(Some((&bytes, &signature.to_string())), Err(Failure::OtherKey));
        let later = br#"{"version":9}"#;
        let signature = key(1).sign(boot::signature::Domain::Manifest, later).to_string();
        check(Some((later, &signature)), Err(Failure::ManifestFormat));
    }

    #[test]
    fn without_a_key_nothing_is_believed() {
        let root = tempfile::tempdir().unwrap();
        let error = Manifests::trusting(root.path()).unwrap_err();
        assert_eq!(error.failure(), Failure::OtherKey);
    }

    #[test]
    fn an_older_manifest_never_takes_the_place_of_a_newer_one() {
        let (_root, mut manifests, _) = initramfs(None);
        let http = || Origin::Http("http://h/manifest.json".to_owned());
        let mut judge = |serial| {
            let (bytes, signature) = manifest(serial).sign(&key(1)).unwrap();
            let judged = manifests.judge(http(), &bytes, signature.to_string().as_bytes());
            (judged.map_err(|error| error.failure()), manifests.serial())
        };
        assert_eq!(judge(7), (Ok(()), 7));
        assert_eq!(judge(6), (Err(Failure::ManifestStale), 7));
        assert_eq!(judge(8), (Ok(()), 8));
    }

    #[test]
    fn what_was_refused_is_shown_before_what_was_not_there() {
        let missing = || ManifestFailure::Unreachable(vec![SourceError::NoServer]);
        let altered = || ManifestFailure::NoSignature { origin: Origin::Initramfs };
        let code = |before, after| graver(before, after, &mut |_| {}).failure();
        assert_eq!(code(altered(), missing()), Failure::ManifestAltered);
        assert_eq!(code(missing(), altered()), Failure::ManifestAltered);
        assert_eq!(code(missing(), missing()), Failure::ManifestUnreachable);
    }
}
