//! The manifest: which images a lab offers, for whom, and how their pieces are found. Signed by the
//! lab's key; everything that a node executes is covered by it.
//!
//! On the wire it is JSON, beside it the [`Signature`] over exactly those bytes. A node takes it from
//! the archive that its boot program loaded, or from the server by HTTP, and trusts neither: only
//! [`Manifest::open`] makes one out of bytes.

use serde::{Deserialize, Serialize};

use crate::image::{Image, ImageName};
use crate::kernel::{KernelVersion, Phase1};
use crate::keymap::Keymap;
use crate::node::Mac;
use crate::password::PasswordHash;
use crate::signature::{Domain, LabKey, LabPublicKey, Signature, SignatureError};

/// The format written and understood here.
pub const VERSION: u32 = 1;

/// The most bytes of a manifest: 1,000 images of 1 KiB and 50,000 nodes of 64 bytes fit.
pub const LEN_MAX: usize = 4 << 20;

/// What a lab offers to its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format, [`VERSION`].
    pub version: u32,
    /// Grows with each manifest that the lab signs, so that of two the newer is known and an old one
    /// cannot be slipped in for it. Seconds since 1970 at signing, or one more than the last.
    pub serial: u64,
    /// What happens without anybody at the keyboard.
    pub menu: Menu,
    /// Seconds that a node goes on seeding before it loads its image.
    pub seed_time_s: u64,
    /// That it loads its image as soon as nobody downloads it any more; `seed_time_s` is the most then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seed_auto: bool,
    /// How nodes find one another.
    pub discovery: Discovery,
    /// The layout of keyboards; the kernel's own, that of the United States, if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keymap: Option<Keymap>,
    /// The images, in the order of the menu.
    pub images: Vec<Image>,
    /// Every phase 1 that the server has; the first is the lab's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phase1: Vec<Phase1>,
    /// The most that a node sends while its image's system runs, in bytes per second; no limit if
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted_upload_limit_bytes_per_s: Option<u64>,
    /// Nodes whose image is decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assignments: Vec<Assignment>,
}

/// What a node does when nobody chooses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Menu {
    /// The image that is loaded.
    pub default: ImageName,
    /// When: at once, after so many seconds, or never (`null`).
    pub timeout_s: Option<u64>,
    /// Who gets a shell.
    #[serde(default, skip_serializing_if = "Shell::is_allowed")]
    pub shell: Shell,
}

/// Who gets a shell at a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "access", rename_all = "snake_case")]
pub enum Shell {
    /// Whoever presses the key.
    #[default]
    Allowed,
    /// Nobody.
    Forbidden,
    /// Who knows a password.
    Password {
        /// Its hash.
        hash: PasswordHash,
    },
    /// What a newer server says: nobody, to be safe.
    #[serde(other)]
    Unknown,
}

impl Shell {
    /// Whether nothing is asked.
    pub fn is_allowed(&self) -> bool {
        *self == Self::Allowed
    }
}

/// How nodes find one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// Local service discovery (BEP 14).
    pub lsd: bool,
    /// Peer exchange (BEP 11).
    pub pex: bool,
}

/// What is decided for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The node.
    pub mac: Mac,
    /// What it boots, without a menu.
    pub image: ImageName,
    /// Added to the image's command line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cmdline: String,
    /// What the lab calls the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Why bytes are not a manifest of this lab.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is longer than [`LEN_MAX`].
    #[error("the manifest has {0} bytes, more than {LEN_MAX}")]
    TooLong(usize),
    /// Its signature does not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is signed, but is not the JSON that this program understands.
    #[error("the manifest is signed but cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// It is signed, but in a format of another version of this program.
    #[error(
        "the manifest has format {0}, this program reads {VERSION}: boot with a matching phase 1"
    )]
    Version(u32),
    /// It names an image that it does not have, as its default or for a node.
    #[error("the manifest names the image `{0}` but does not describe it")]
    NoSuchImage(ImageName),
    /// Two images have this name.
    #[error("the manifest describes the image `{0}` twice")]
    Twice(ImageName),
}

impl Manifest {
    /// The manifest that `bytes` are, if `signature` is the lab's over exactly them.
    ///
    /// # Errors
    ///
    /// [`ManifestError`]: nothing of a manifest that fails can be used.
    pub fn open(
        bytes: &[u8],
        signature: &Signature,
        key: &LabPublicKey,
    ) -> Result<Self, ManifestError> {
        if bytes.len() > LEN_MAX {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        key.verify(Domain::Manifest, bytes, signature)?;
        // The version first, since a later format may not parse as this one.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(ManifestError::Version(version));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes to publish and the signature over them.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] where [`Manifest::open`] would refuse the result.
    pub fn sign(&self, key: &LabKey) -> Result<(Vec<u8>, Signature), ManifestError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        if bytes.len() > LEN_MAX {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let signature = key.sign(Domain::Manifest, &bytes);
        Ok((bytes, signature))
    }

    /// The image of this name.
    pub fn image(&self, name: &ImageName) -> Option<&Image> {
        self.images.iter().find(|image| image.name == *name)
    }

    /// The phase 1 that a loader needs: that of its version, or the lab's own. None if the manifest
    /// names no such one.
    pub fn phase1(&self, version: Option<&KernelVersion>) -> Option<&Phase1> {
        match version {
            Some(version) => self.phase1.iter().find(|phase1| phase1.version == *version),
            None => self.phase1.first(),
        }
    }

    /// Whether the default image can be booted without anybody: it asks for no password.
    pub fn needs_nobody(&self) -> bool {
        self.image(&self.menu.default).is_none_or(|image| image.password.is_none())
    }

    /// What is decided for a node, if anything is.
    pub fn assignment(&self, mac: Mac) -> Option<&Assignment> {
        self.assignments.iter().find(|assignment| assignment.mac == mac)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let mut names: Vec<&ImageName> = self.images.iter().map(|image| &image.name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ManifestError::Twice(pair[0].clone()));
        }
        let assigned = self.assignments.iter().map(|assignment| &assignment.image);
        match assigned.chain([&self.menu.default]).find(|name| names.binary_search(name).is_err()) {
            Some(name) => Err(ManifestError::NoSuchImage(name.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Loader;

    fn key() -> LabKey {
        LabKey::from_seed([7; 32])
    }

    fn manifest() -> Manifest {
        let image = Image {
            name: "debian".parse().unwrap(),
            title: "Debian 12".to_owned(),
            description: String::new(),
            password: None,
            len: 300 << 20,
            infohash: [0xab; 32],
            loader: Loader::Kexec {
                kernel: "vmlinuz".parse().unwrap(),
                initrds: vec!["initrd.img".parse().unwrap()],
                cmdline: "quiet".to_owned(),
            },
        };
        let assignment = Assignment {
            mac: "52:54:00:12:34:56".parse().unwrap(),
            image: image.name.clone(),
            cmdline: String::new(),
            name: None,
        };
        Manifest {
            version: VERSION,
            serial: 1,
            menu: Menu { default: image.name.clone(), timeout_s: Some(30), shell: Shell::Allowed },
            seed_time_s: 30,
            seed_auto: false,
            keymap: None,
            discovery: Discovery { lsd: false, pex: true },
            images: vec![image],
            phase1: vec![],
            booted_upload_limit_bytes_per_s: None,
            assignments: vec![assignment],
        }
    }

    #[test]
    fn what_the_lab_signed_is_opened() {
        let (bytes, signature) = manifest().sign(&key()).unwrap();
        assert_eq!(Manifest::open(&bytes, &signature, &key().public()).unwrap(), manifest());
    }

    #[test]
    fn no_bit_can_be_changed() {
        let (bytes, signature) = manifest().sign(&key()).unwrap();
        for index in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[index] ^= 1;
            assert!(Manifest::open(&altered, &signature, &key().public()).is_err(), "{index}");
        }
    }

    #[test]
    fn another_labs_manifest_is_refused_as_such() {
        let (bytes, signature) = manifest().sign(&LabKey::from_seed([8; 32])).unwrap();
        let error = Manifest::open(&bytes, &signature, &key().public()).unwrap_err();
        assert!(matches!(error, ManifestError::Signature(SignatureError::OtherKey { .. })));
    }

    #[test]
    fn a_later_format_is_named() {
        let bytes = br#"{"version":2,"all":"new"}"#;
        let signature = key().sign(Domain::Manifest, bytes);
        let error = Manifest::open(bytes, &signature, &key().public()).unwrap_err();
        assert!(matches!(error, ManifestError::Version(2)));
    }

    #[test]
    fn images_are_described_once_and_only_those_are_named() {
        let mut twice = manifest();
        twice.images.push(twice.images[0].clone());
        assert!(matches!(twice.sign(&key()), Err(ManifestError::Twice(_))));
        let mut missing = manifest();
        missing.menu.default = "arch".parse().unwrap();
        assert!(matches!(missing.sign(&key()), Err(ManifestError::NoSuchImage(_))));
    }

    #[test]
    fn fields_of_a_newer_server_are_passed_over() {
        let mut value = serde_json::to_value(manifest()).unwrap();
        value["hologram"] = true.into();
        value["images"][0]["loader"] = serde_json::json!({"method": "hologram"});
        let bytes = serde_json::to_vec(&value).unwrap();
        let opened =
            Manifest::open(&bytes, &key().sign(Domain::Manifest, &bytes), &key().public()).unwrap();
        assert_eq!(opened.images[0].loader, Loader::Unknown);
    }

    #[test]
    fn who_gets_a_shell_is_written_only_if_it_is_not_everybody() {
        let text = |shell| serde_json::to_string(&Menu { shell, ..manifest().menu }).unwrap();
        assert_eq!(text(Shell::Allowed), r#"{"default":"debian","timeout_s":30}"#);
        let forbidden = r#"{"default":"debian","timeout_s":30,"shell":{"access":"forbidden"}}"#;
        assert_eq!(text(Shell::Forbidden), forbidden);
        let newer = r#"{"default":"debian","timeout_s":30,"shell":{"access":"by fingerprint"}}"#;
        assert_eq!(serde_json::from_str::<Menu>(newer).unwrap().shell, Shell::Unknown);
        let hash = PasswordHash::of("x", [1; 16]).unwrap();
        let menu = Menu { shell: Shell::Password { hash }, ..manifest().menu };
        let text = serde_json::to_string(&menu).unwrap();
        assert_eq!(serde_json::from_str::<Menu>(&text).unwrap(), menu);
    }
}
