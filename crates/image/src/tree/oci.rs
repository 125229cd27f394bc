//! Container images: an OCI layout (image-spec 1.1), as a folder or in an archive, and what
//! `docker save` wrote before it wrote OCI layouts.
//!
//! Layers are laid over one another: a file `.wh.NAME` takes NAME of lower layers away,
//! `.wh..wh..opq` all that lower layers have in its folder. Whoever made the image may be anybody,
//! so blobs must have their digest, and no path or link leads out of the tree (the `tar` crate
//! refuses what is not below the folder that it unpacks into; openat2 does for blobs). Of the documents'
//! eighty fields only five are needed, and `tar`, `flate2` and `zstd` do the work: a crate of all of them
//! (oci-spec) would be more to trust, and to build, than the structures below.

#![allow(
    clippy::disallowed_methods,
    reason = "each path of a layer is looked at from inside of the tree before it is used (`within`)"
)]

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::root::{Root, Tree};
use crate::command::Work;
use crate::error::ImageError;
use crate::host;

/// The most bytes of an index or manifest: registries take 4 MiB.
const JSON_LEN_MAX: u64 = 8 << 20;

/// The most layers: Docker makes at most 127.
const LAYERS_MAX: usize = 1000;

/// How deep an index may lie in another.
const DEPTH_MAX: usize = 4;

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What names a blob, in an index or a manifest.
#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// An index has `manifests`, a manifest `layers`.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// An entry of `manifest.json` of `docker save`.
#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

/// A container image in a folder.
struct Layout {
    path: PathBuf,
    root: Root,
}

/// A layer's file, and the digest that it must have, if one is known.
struct Layer {
    path: String,
    digest: Option<String>,
}

/// Lays all layers of the image over one another.
pub(super) fn unpack(path: &Path, tree: &Tree, work: &Work<'_>) -> Result<(), ImageError> {
    work.step("reading the container image")?;
    let unpacked = tree.beside("layout");
    let folder = if host::is_dir(path) {
        path.to_owned()
    } else {
        let file = host::open(path).map_err(ImageError::read(path))?;
        let plain = decompressed(file).map_err(ImageError::read(path))?;
        tar::Archive::new(plain).unpack(unpacked.whole()).map_err(ImageError::read(path))?;
        unpacked.whole().to_owned()
    };
    let layout = Layout { path: path.to_owned(), root: Root::open(&folder)? };
    let layers = layout.layers()?;
    let unpacked = unpacked.whole();
    let tree = tree.whole();
    host::create_dir_all(tree).map_err(ImageError::write(tree))?;
    for (index, layer) in layers.iter().enumerate() {
        work.step(&format!("unpacking layer {} of {}", index + 1, layers.len()))?;
        layout.apply(layer, tree)?;
    }
    match host::exists(unpacked) {
        true => host::remove_dir_all(unpacked).map_err(ImageError::write(unpacked)),
        false => Ok(()),
    }
}

impl Layout {
    fn wrong(&self, message: impl Into<String>) -> ImageError {
        ImageError::Data { file: self.path.clone(), message: message.into() }
    }

    fn layers(&self) -> Result<Vec<Layer>, ImageError> {
        let layers = if self.root.has("index.json") {
            let index = self.document("index.json", None)?;
            self.of_index(index, 0)?
        } else if self.root.has("manifest.json") {
            let text = self.json("manifest.json", None)?;
            let saved: Vec<Saved> =
                serde_json::from_slice(&text).map_err(|error| self.wrong(error.to_string()))?;
            let Some(first) = saved.into_iter().next() else {
                return Err(self.wrong("manifest.json names no image"));
            };
            first.layers.into_iter().map(|path| Layer { path, digest: None }).collect()
        } else {
            return Err(self.wrong(
                "it is no container image: there is neither index.json nor manifest.json in it",
            ));
        };
        match layers.len() {
            1..=LAYERS_MAX => Ok(layers),
            count => Err(self.wrong(format!("it has {count} layers, {LAYERS_MAX} at most"))),
        }
    }

    /// The layers of the first image for this machine's kind of processor.
    fn of_index(&self, index: Document, depth: usize) -> Result<Vec<Layer>, ImageError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("its indexes lie too deep in one another"));
        }
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let fits = |it: &&Descriptor| {
            it.platform
                .as_ref()
                .is_none_or(|it| it.os == "linux" && it.architecture == architecture)
        };
        let Some(chosen) = index.manifests.iter().find(fits) else {
            return Err(self.wrong(format!("it has no image for linux/{architecture}")));
        };
        let document = self.document(&self.blob(&chosen.digest)?, Some(&chosen.digest))?;
        if !document.manifests.is_empty() {
            return self.of_index(document, depth + 1);
        }
        let layer =
            |it: Descriptor| Ok(Layer { path: self.blob(&it.digest)?, digest: Some(it.digest) });
        document.layers.into_iter().map(layer).collect()
    }

    /// The path of a blob.
    fn blob(&self, digest: &str) -> Result<String, ImageError> {
        match digest.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Ok(format!("blobs/sha256/{hex}"))
            }
            _ => Err(self.wrong(format!("`{digest}` is no digest by sha256"))),
        }
    }

    fn document(&self, path: &str, digest: Option<&str>) -> Result<Document, ImageError> {
        let text = self.json(path, digest)?;
        serde_json::from_slice(&text).map_err(|error| self.wrong(format!("{path}: {error}")))
    }

    fn json(&self, path: &str, digest: Option<&str>) -> Result<Vec<u8>, ImageError> {
        let file = self.file(path, digest)?;
        let mut text = vec![];
        file.take(JSON_LEN_MAX).read_to_end(&mut text).map_err(ImageError::read(&self.path))?;
        Ok(text)
    }

    /// A file of the layout, verified if its digest is known.
    fn file(&self, path: &str, digest: Option<&str>) -> Result<File, ImageError> {
        let mut file = self.root.file(path)?;
        if let Some(digest) = digest {
            let mut hasher = Sha256::new();
            io::copy(&mut file, &mut HashWriter(&mut hasher))
                .map_err(ImageError::read(&self.path))?;
            let found = format!("sha256:{}", boot::hex::encode(&hasher.finalize()));
            if !found.eq_ignore_ascii_case(digest) {
                return Err(self.wrong(format!("{path} is damaged: it has the digest {found}")));
            }
            file.rewind().map_err(ImageError::read(&self.path))?;
        }
        Ok(file)
    }

    /// Takes away what the layer takes away, then adds what it adds: its whiteouts are about lower
    /// layers alone, wherever in the archive they stand.
    fn apply(&self, layer: &Layer, tree: &Path) -> Result<(), ImageError> {
        let refuse = |error: io::Error| self.wrong(format!("{}: {error}", layer.path));
        let file = self.file(&layer.path, layer.digest.as_deref())?;
        let again = file.try_clone().map_err(refuse)?;
        let mut archive = tar::Archive::new(decompressed(file).map_err(refuse)?);
        for entry in archive.entries().map_err(refuse)? {
            let entry = entry.map_err(refuse)?;
            take_away(tree, &entry.path().map_err(refuse)?).map_err(refuse)?;
        }
        let mut again = again;
        again.rewind().map_err(refuse)?;
        let mut archive = tar::Archive::new(decompressed(again).map_err(refuse)?);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(true);
        archive.set_unpack_xattrs(true);
        for entry in archive.entries().map_err(refuse)? {
            let mut entry = entry.map_err(refuse)?;
            let path = entry.path().map_err(refuse)?.into_owned();
            if whiteout(&path).is_some() {
                continue;
            }
            // What is no folder any more must make way; tar would refuse to.
            make_way(tree, &path, entry.header().entry_type().is_dir()).map_err(refuse)?;
            if !entry.unpack_in(tree).map_err(refuse)? {
                return Err(self.wrong(format!("{} leads out of the tree", path.display())));
            }
        }
        Ok(())
    }
}

/// What a whiteout is about: its folder, and a name in it, or all names.
fn whiteout(path: &Path) -> Option<(PathBuf, Option<&str>)> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent()?.to_owned();
    match name {
        OPAQUE => Some((folder, None)),
        _ => Some((folder, Some(name.strip_prefix(WHITEOUT)?))),
    }
}

/// A path of the tree, if the folder that it is in is in the tree.
fn within(tree: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let plain = |it: &Component<'_>| !matches!(it, Component::CurDir | Component::RootDir);
    let names: PathBuf = path.components().filter(plain).collect();
    if names.components().any(|it| !matches!(it, Component::Normal(_))) {
        return Err(io::Error::other(format!("{} leads out of the tree", path.display())));
    }
    if names.as_os_str().is_empty() {
        // `./`, with which tar begins the archive of a folder.
        return Ok(Some(tree.to_owned()));
    }
    let path = tree.join(names);
    let Some(parent) = path.parent().filter(|it| it.exists()) else { return Ok(None) };
    match fs::canonicalize(parent)?.starts_with(fs::canonicalize(tree)?) {
        true => Ok(Some(path)),
        false => Err(io::Error::other(format!("{} leads out of the tree", path.display()))),
    }
}

fn take_away(tree: &Path, path: &Path) -> io::Result<()> {
    let Some((folder, name)) = whiteout(path) else { return Ok(()) };
    if let Some(name) = name {
        return match within(tree, &folder.join(name))? {
            Some(path) => remove(&path),
            None => Ok(()),
        };
    }
    // Its parent being within says nothing of a folder that is a link: look from inside.
    let Some(inside) = within(tree, &folder.join("x"))? else { return Ok(()) };
    for entry in fs::read_dir(inside.parent().unwrap_or(tree))? {
        remove(&entry?.path())?;
    }
    Ok(())
}

/// Removes what is there if one of the two is a folder and the other is not. A link to a folder may
/// stay where a folder comes: `bin -> usr/bin`.
fn make_way(tree: &Path, path: &Path, is_dir: bool) -> io::Result<()> {
    let Some(path) = within(tree, path)? else { return Ok(()) };
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_dir() && !is_dir && path != tree => fs::remove_dir_all(&path),
        Ok(metadata) if !metadata.is_dir() && is_dir && !path.is_dir() => fs::remove_file(&path),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Layers are gzip, zstd or plain tar; the first bytes say which, and the media type may lie.
fn decompressed(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut magic = [0; 4];
    let count = file.read(&mut magic)?;
    file.rewind()?;
    let file = BufReader::new(file);
    Ok(match &magic[..count] {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(file)?),
        [0xfd, b'7', b'z', b'X'] => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(file)),
        _ => Box::new(file),
    })
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
