//! A live Debian as an image: made by `boottorrent image create` from packages, as a user makes one,
//! once, and kept by the hash of what goes into it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::server;
use crate::bench::hex;
use crate::{root, target_dir};

/// Raised when the recipe stays but what it makes must be made again.
const EDITION: &str = "1";

/// The image's name in the lab that it is made in, which its `boot.ipxe` has.
pub(super) const NAME: &str = "live";

/// The password of root, for who looks at the console: `live`.
const PASSWORD_HASH: &str = "$6$L2JCesBZAnNvMghh$NuxJq2/kdbepJ3ijqt833T5m.jbJdVDZY0VaHY40GURqm/xO6vRSYjXkxvIN./MqUW1/iSC5Ihp4ByMqgSivR1";

/// The kernel for virtual machines, which has a tenth of the drivers, and what an initramfs for the classic
/// way is made with.
const PACKAGES: &str = "linux-image-cloud-amd64,dracut,dracut-network,dracut-live,curl,\
    isc-dhcp-client,iproute2,iputils-arping,procps";

/// The smallest type.
const ARGS: &[&str] = &[
    "--from",
    "packages:debian",
    "--release",
    "bookworm",
    "--type",
    "core",
    "--optimize",
    "--password-hash",
    PASSWORD_HASH,
    "--title",
    "Debian 12, live",
];

/// Folders of sources of which the image is made: where they change, it is made again.
const SOURCES: &[&str] = &["crates/image/src/tree", "crates/image/src/kind"];

/// The image, with its kernel.
pub(crate) struct Live {
    lab: PathBuf,
}

/// Held while it is made: cases run side by side, and the first to need it makes it for all.
static MAKING: Mutex<()> = Mutex::new(());

impl Live {
    /// The image, made if it is not kept from an earlier run: two minutes and 110 MB from the mirror.
    pub(crate) fn build() -> Result<Self> {
        let args = [ARGS, &["--packages", PACKAGES]].concat();
        let mut recipe = Sha256::new();
        recipe.update([&[EDITION, NAME], args.as_slice()].concat().join("\n"));
        for folder in SOURCES {
            hash_sources(&root().join(folder), &mut recipe)?;
        }
        let digest = hex(&recipe.finalize());
        let lab = target_dir().join("live").join(&digest[..16]);
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if !lab.join("oss").join(NAME).is_dir() {
            let start = Instant::now();
            eprintln!("making a live Debian 12 from packages (once; a few minutes)");
            super::fresh(&lab)?;
            server::ours(&["init".as_ref(), lab.as_os_str()])?;
            let create = ["image", "create", NAME, "--yes"].into_iter().chain(args.iter().copied());
            let words: Vec<_> = create.map(AsRef::as_ref).collect();
            server::ours(&[&["-C".as_ref(), lab.as_os_str()], words.as_slice()].concat())?;
            eprintln!("made in {:.0} s", start.elapsed().as_secs_f64());
        }
        Ok(Self { lab })
    }

    /// Puts the image, as `name`, and its kernel into a lab.
    pub(crate) fn install(&self, lab: &Path, name: &str) -> Result<()> {
        for (from, to) in [
            (self.lab.join("oss").join(NAME), lab.join("oss").join(name)),
            (self.lab.join("kernels"), lab.join("kernels")),
        ] {
            std::fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
            let mut copy = Command::new("cp");
            copy.args(["--archive", "--reflink=auto", "--no-target-directory"]).arg(&from).arg(&to);
            let out = copy.stdin(Stdio::null()).output().context("running cp")?;
            ensure!(out.status.success(), "cp: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(())
    }

    /// The version of its kernel.
    pub(crate) fn kernel(&self) -> Result<String> {
        let mut names = std::fs::read_dir(self.lab.join("kernels")).context("reading kernels")?;
        let entry = names.next().context("the image has no kernel")??;
        Ok(entry.file_name().to_string_lossy().into_owned())
    }
}

/// Names and texts of all files of a folder, in the order of names.
fn hash_sources(folder: &Path, hash: &mut Sha256) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths: Vec<PathBuf> =
        entries.map(|it| it.map(|it| it.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            hash_sources(&path, hash)?;
        } else {
            let text =
                std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
            hash.update(Sha256::digest(text));
        }
    }
    Ok(())
}
