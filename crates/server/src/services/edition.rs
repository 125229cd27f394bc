//! What the lab publishes, made ready to be served: one edition follows another, each whole.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use boot::{Arch, ImageName, Manifest};
use torrent::metainfo::Metainfo;

use super::status::ImageStatus;
use crate::http::{self, Boots, ImageFiles, Live, Offer, ScriptSettings, Served};
use crate::lab::publication::Publication;
use crate::lab::settings::{BootProgram, Settings};
use crate::tftp::{Root, Source};

/// Files that nodes boot from, before there is an image.
#[derive(Clone, Debug)]
pub(crate) struct BootFiles {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// What they are for.
    pub(crate) arch: Arch,
    /// Network boot programs by name.
    pub(crate) programs: Vec<NamedProgram>,
}

/// A network boot program and the name that firmware asks for it by.
pub(crate) type NamedProgram = (&'static str, Arc<[u8]>);

/// An image to be served and seeded.
pub(crate) type ImageSource = (ImageName, Metainfo, ImageFiles);

/// An edition.
#[derive(Debug)]
pub(crate) struct Edition {
    pub(crate) live: Live,
    pub(crate) tftp: Arc<Root>,
    pub(crate) images: Vec<ImageSource>,
    pub(crate) statuses: Vec<ImageStatus>,
}

/// Makes an edition. Images that are as they were in the edition `before` keep their open files.
///
/// # Errors
/// If a file is not there, or an image is not what its torrent says.
pub(crate) fn make(
    published: &Publication,
    boot_files: &BootFiles,
    before: &[ImageSource],
) -> anyhow::Result<Edition> {
    let settings = &published.settings;
    let mut images = vec![];
    let mut offer = Offer { serial: published.manifest.serial, ..Offer::default() };
    for (name, bytes) in &published.torrents {
        let metainfo = Metainfo::decode(bytes)
            .with_context(|| format!("the torrent of the image `{name}` cannot be used"))?;
        let files = match before.iter().find(|(_, known, _)| is_same(known, &metainfo)) {
            // What was touched, if only to write the same into it, would never be read again. While it
            // is hashed nobody knows whether that is so: what of the files of before is still there is given.
            Some((_, _, files)) if files.is_unchanged() || published.hashing.contains(name) => {
                files.clone()
            }
            _ => ImageFiles::open(&settings.images_dir(), &metainfo)
                .map_err(|error| more_files(error.into()))
                .with_context(|| format!("cannot offer the image `{name}`"))?,
        };
        let version = infohash(&metainfo);
        let served = Served::memory(bytes.clone(), &version, "application/x-bittorrent");
        offer.torrents.insert(name.clone(), served);
        offer.images.insert(name.clone(), files.clone());
        images.push((name.clone(), metainfo, files));
    }
    fixed(&mut offer, boot_files, published)?;
    let classic = classic(&mut offer, settings)?;
    let script = ScriptSettings {
        base: settings.http_base(),
        cmdline: settings.phase1.cmdline.clone(),
        arch: boot_files.arch,
        boots: Boots::of(&published.manifest, settings, classic),
    };
    let dashboard = settings.dashboard.clone();
    let statuses = statuses(&published.manifest);
    let tftp = Arc::new(tftp_root(settings, boot_files, published, &script)?);
    let has_power = settings.power.is_some();
    Ok(Edition { live: Live { offer, script, dashboard, has_power }, tftp, images, statuses })
}

/// What firmware finds by TFTP.
fn tftp_root(
    settings: &Settings,
    boot_files: &BootFiles,
    published: &Publication,
    script: &ScriptSettings,
) -> anyhow::Result<Root> {
    let mut root = Root::default();
    for (name, bytes) in &boot_files.programs {
        root.insert(name, Source::Bytes(Arc::clone(bytes)))?;
    }
    let bytes = |text: String| Source::Bytes(Arc::from(text.into_bytes()));
    // For an iPXE that was told nothing but this server's address.
    let fallback = http::render_script(script, None, &http::Told::default())
        .context("cannot write boot.ipxe")?;
    root.insert("boot.ipxe", bytes(fallback))?;
    if settings.phase1.loader == BootProgram::Pxelinux {
        root.insert("pxelinux.cfg/default", bytes(pxelinux_config(script)))?;
        root.insert("vmlinuz", Source::File(boot_files.kernel.clone()))?;
        root.insert("initramfs.img", Source::File(boot_files.initramfs.clone()))?;
        root.insert("lab.cpio", Source::Bytes(Arc::from(published.archive.as_slice())))?;
    }
    Ok(root)
}

/// PXELINUX has no names of interfaces to fill in; what `IPAPPEND 2` adds says which it booted from.
fn pxelinux_config(script: &ScriptSettings) -> String {
    let cmdline = script.cmdline.split_whitespace().collect::<Vec<_>>().join(" ");
    format!(
        "DEFAULT boottorrent\n\
         PROMPT 0\n\
         LABEL boottorrent\n  \
           LINUX vmlinuz\n  \
           INITRD initramfs.img,lab.cpio\n  \
           APPEND boottorrent.server={} {cmdline}\n  \
           IPAPPEND 2\n",
        script.base
    )
}

fn fixed(offer: &mut Offer, boot_files: &BootFiles, published: &Publication) -> anyhow::Result<()> {
    let version = published.manifest.serial.to_string();
    let mut add = |path: &str, served: Served| offer.fixed.insert(path.to_owned(), served);
    let manifest = published.manifest_bytes.clone();
    add("/manifest.json", Served::memory(manifest, &version, "application/json"));
    let signature = published.signature.clone();
    add("/manifest.sig", Served::memory(signature, &version, "text/plain"));
    let archive = published.archive.clone();
    add("/lab.cpio", Served::memory(archive, &version, "application/octet-stream"));
    add("/phase1/vmlinuz", open(&boot_files.kernel)?);
    add("/phase1/initramfs.img", open(&boot_files.initramfs)?);
    for files in &published.phase1 {
        add(&files.described.vmlinuz_path(), open(&files.kernel)?);
        add(&files.described.initramfs_path(), open(&files.initramfs)?);
    }
    for (name, bytes) in &boot_files.programs {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let version = format!("{:x}", hasher.finish());
        let served = Served::memory(bytes.to_vec(), &version, "application/efi");
        add(&format!("/ipxe/{name}"), served);
    }
    Ok(())
}

/// What nodes need that boot without our agent, by the `boot.ipxe` of an image: that script, and of each
/// kernel of the lab itself and the initramfs of the distribution. The images with such a script.
fn classic(offer: &mut Offer, settings: &Settings) -> anyhow::Result<BTreeSet<ImageName>> {
    let mut classic = BTreeSet::new();
    let names: Vec<ImageName> = offer.images.keys().cloned().collect();
    for name in names {
        let path = settings.images_dir().join(name.as_str()).join("boot.ipxe");
        if path.is_file() {
            offer.fixed.insert(format!("/classic/{name}.ipxe"), open(&path)?);
            classic.insert(name);
        }
    }
    for kernel in image::kernels::of_lab(settings.dir())? {
        let initramfs = kernel.has_initramfs.then_some("initramfs.img");
        for file in ["vmlinuz"].into_iter().chain(initramfs) {
            let path = format!("/kernels/{}/{file}", kernel.version);
            offer.fixed.insert(path, open(&kernel.folder.join(file))?);
        }
    }
    Ok(classic)
}

fn open(path: &Path) -> anyhow::Result<Served> {
    Served::file(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Says what to do if this process has as many files open as it may.
fn more_files(error: anyhow::Error) -> anyhow::Error {
    let is_too_many = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        cause == Some(libc::EMFILE)
    };
    if !error.chain().any(is_too_many) {
        return error;
    }
    error.context(
        "this process may open no more files, and each file of an image is one: raise \
         LimitNOFILE= in boottorrent.service, or `ulimit -n` before a start by hand",
    )
}

fn is_same(one: &Metainfo, other: &Metainfo) -> bool {
    one.info() == other.info()
}

fn infohash(metainfo: &Metainfo) -> String {
    let hash = metainfo.info_hashes().last();
    hash.map(|hash| boot::hex::encode(hash.as_bytes())).unwrap_or_default()
}

fn statuses(manifest: &Manifest) -> Vec<ImageStatus> {
    manifest
        .images
        .iter()
        .map(|image| ImageStatus {
            name: image.name.clone(),
            title: image.title.clone(),
            len_bytes: image.len,
            infohash: boot::hex::encode(&image.infohash),
            is_default: image.name == manifest.menu.default,
        })
        .collect()
}
