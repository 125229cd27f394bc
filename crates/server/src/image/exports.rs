//! What the NFS server of this machine exports for the lab: a file of its own in `/etc/exports.d`,
//! written whole each time and removed with the last image, so that nothing of ours is ever in
//! anybody's `/etc/exports`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use image::catalogue::Catalogue;
use image::data::ImageData;
use image::kind::nfs;

/// Where exportfs(8) reads files that end in `.exports`.
const FOLDER: &str = "/etc/exports.d";

/// Has the file say what the lab's images need. Without an NFS server on this machine there is
/// nothing to do: the trees are exported by whoever holds them.
pub(super) fn settle(catalogue: &Catalogue) -> anyhow::Result<()> {
    let folder = Path::new(FOLDER);
    let images: Vec<ImageData> = catalogue
        .list()?
        .into_iter()
        .filter_map(|entry| entry.data)
        .filter(|data| data.nfs_directory.is_some() && data.image_class.starts_with("Nfs"))
        .collect();
    if write(folder, &file_name(catalogue.lab()), &images)? {
        // A server that is installed but does not run reads the file when it starts.
        let _ = Command::new("exportfs").arg("-ra").output();
    }
    Ok(())
}

/// Of each lab its own: two labs of a machine do not undo one another.
fn file_name(lab: &Path) -> PathBuf {
    let name: String = lab
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!("boottorrent{name}.exports").into()
}

/// Whether the file was changed.
fn write(folder: &Path, name: &Path, images: &[ImageData]) -> anyhow::Result<bool> {
    let file = folder.join(name);
    let before = fs::read_to_string(&file).ok();
    let text = (!images.is_empty()).then(|| nfs::exports(images));
    if before == text || (text.is_some() && !folder.is_dir()) {
        return Ok(false);
    }
    let changed = match text {
        None => fs::remove_file(&file),
        Some(text) => {
            let new = file.with_extension("new");
            fs::write(&new, text).and_then(|()| fs::rename(&new, &file))
        }
    };
    match changed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        changed => {
            changed.map(|()| true).with_context(|| format!("cannot write {}", file.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str) -> ImageData {
        ImageData { nfs_directory: Some(path.to_owned()), ..ImageData::default() }
    }

    #[test]
    fn the_file_is_there_as_long_as_an_image_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, name) = (dir.path(), Path::new("lab.exports"));
        assert!(!write(folder, name, &[]).unwrap());
        assert!(write(folder, name, &[image("/a")]).unwrap());
        assert!(!write(folder, name, &[image("/a")]).unwrap(), "written again without need");
        assert!(write(folder, name, &[image("/a"), image("/b")]).unwrap());
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(write(folder, name, &[]).unwrap());
        assert!(!folder.join(name).exists());
    }

    #[test]
    fn labs_have_files_of_their_own() {
        assert_ne!(file_name(Path::new("/srv/a")), file_name(Path::new("/srv/b")));
    }
}
