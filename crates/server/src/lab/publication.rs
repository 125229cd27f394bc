//! What nodes get: the signed manifest, the torrents it names, and the archive of both for the
//! initramfs. Made whole, never changed, replaced by the next.

use std::fs;
use std::io;
use std::path::Path;

use boot::keymap::Keymap;
use boot::manifest::{Assignment, Discovery, ManifestError, Menu};
use boot::{Image, ImageName, LabKey, Manifest, Phase1};

use super::Lab;
use super::phase1s::Phase1Files;
use super::settings::Settings;

/// What is published of a lab at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    /// What it was made of.
    pub(crate) settings: Settings,
    pub(crate) manifest: Manifest,
    /// The bytes that are signed.
    pub(crate) manifest_bytes: Vec<u8>,
    /// The line of the signature.
    pub(crate) signature: String,
    /// The archive for the initramfs (newc): manifest, signature and torrents.
    pub(crate) archive: Vec<u8>,
    /// The .torrent file of each image, in the order of the manifest.
    pub(crate) torrents: Vec<(ImageName, Vec<u8>)>,
    /// What nodes run first; the lab's own is the first.
    pub(crate) phase1: Vec<Phase1Files>,
    /// Images that are being hashed. Of those that were published before, that version is still on offer.
    pub(crate) hashing: Vec<ImageName>,
}

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssembleError {
    /// The manifest would be refused.
    #[error("no manifest can be made of the lab")]
    Manifest(#[from] ManifestError),
    /// The archive cannot be made.
    #[error("no archive can be made for the initramfs")]
    Archive(#[from] io::Error),
}

/// The manifest of a lab with these images.
pub(crate) fn manifest(
    settings: &Settings,
    images: Vec<Image>,
    phase1: Vec<Phase1>,
    keymap: Option<Keymap>,
    serial: u64,
) -> Manifest {
    let is_offered = |name: &ImageName| images.iter().any(|image| image.name == *name);
    let assigned = settings.nodes.iter().filter_map(|node| {
        let default = || settings.menu.default.clone();
        // A command line alone is for whatever it boots: without a menu, that is the default.
        let image = match (&node.image, node.cmdline.is_empty()) {
            (Some(image), _) => image.clone(),
            (None, false) => default(),
            (None, true) => return None,
        };
        if !is_offered(&image) {
            // It is hashed; until then the node's boot script says so, and waits.
            return None;
        }
        let name = Some(node.name.clone());
        Some(Assignment { mac: node.mac, image, cmdline: node.cmdline.clone(), name })
    });
    let assignments = assigned.collect();
    Manifest {
        version: boot::manifest::VERSION,
        serial,
        menu: Menu {
            default: settings.menu.default.clone(),
            timeout_s: settings.menu.timeout.map(|time| time.as_secs()),
            shell: settings.menu.shell.clone(),
        },
        seed_time_s: settings.seed_time.as_secs(),
        seed_auto: settings.seed_auto,
        keymap,
        discovery: Discovery { lsd: settings.seeding.lsd, pex: settings.seeding.pex },
        images,
        phase1,
        booted_upload_limit_bytes_per_s: settings.seeding.booted_upload_limit_bytes_per_s,
        assignments,
    }
}

/// Signs `manifest` and puts all together.
pub(crate) fn assemble(
    lab: &Lab,
    manifest: Manifest,
    torrents: Vec<(ImageName, Vec<u8>)>,
    phase1: Vec<Phase1Files>,
    hashing: Vec<ImageName>,
    key: &LabKey,
) -> Result<Publication, AssembleError> {
    let (manifest_bytes, signature) = manifest.sign(key)?;
    let signature = signature.to_string();
    let archive = archive(&manifest_bytes, &signature, &torrents)?;
    let settings = lab.settings.clone();
    Ok(Publication {
        settings,
        manifest,
        manifest_bytes,
        signature,
        archive,
        torrents,
        phase1,
        hashing,
    })
}

/// All that is in `out/`.
const OUT: [&str; 5] = ["manifest.json", "manifest.sig", "lab.cpio", "torrents", "phase1"];

/// Where the agent looks for it in its initramfs.
const ARCHIVE_DIR: &str = "boottorrent";

fn archive(
    manifest: &[u8],
    signature: &str,
    torrents: &[(ImageName, Vec<u8>)],
) -> io::Result<Vec<u8>> {
    let mut archive = image::cpio::Archive::new();
    let mut add = |path: &str, bytes: &[u8]| {
        archive.add_file(&format!("{ARCHIVE_DIR}/{path}"), bytes).map_err(io::Error::other)
    };
    add("manifest.json", manifest)?;
    add("manifest.sig", signature.as_bytes())?;
    for (name, bytes) in torrents {
        add(&format!("torrents/{name}.torrent"), bytes)?;
    }
    archive.encode()
}

impl Publication {
    /// Writes it to the folder `out`, for people and for other peers: `manifest.json`,
    /// `manifest.sig`, `lab.cpio`, `torrents/NAME.torrent`. Each file is the old or the new one at
    /// any moment; torrents of images that are gone are removed.
    pub(crate) fn write(&self, out: &Path) -> io::Result<()> {
        let torrents = out.join("torrents");
        fs::create_dir_all(&torrents)?;
        for entry in fs::read_dir(&torrents)?.flatten() {
            let is_known = |(name, _): &(ImageName, _)| {
                entry.file_name().to_str() == Some(&format!("{name}.torrent"))
            };
            if !self.torrents.iter().any(is_known) {
                fs::remove_file(entry.path())?;
            }
        }
        for (name, bytes) in &self.torrents {
            replace(&torrents.join(format!("{name}.torrent")), bytes)?;
        }
        replace(&out.join("manifest.json"), &self.manifest_bytes)?;
        replace(&out.join("manifest.sig"), self.signature.as_bytes())?;
        replace(&out.join("lab.cpio"), &self.archive)?;
        remove_others(out)
    }

    /// The manifest that was written to the folder `out` last, if the lab's `key` has signed it.
    pub(crate) fn last_manifest(out: &Path, key: &LabKey) -> Option<Manifest> {
        let bytes = fs::read(out.join("manifest.json")).ok()?;
        let signature = fs::read_to_string(out.join("manifest.sig")).ok()?;
        Manifest::open(&bytes, &signature.trim().parse().ok()?, &key.public()).ok()
    }
}

/// Removes what an earlier version of this program left in `out`, which is made by this program alone. Only now,
/// with the new files in their places: until then a start may come to nothing.
fn remove_others(out: &Path) -> io::Result<()> {
    for entry in fs::read_dir(out)?.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| OUT.contains(&name)) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Whoever reads the file meanwhile sees the old one or the new one. After a power cut it may be
/// either or empty: the next start makes it anew.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(readable()).tempfile_in(folder)?;
    io::Write::write_all(&mut file, bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
