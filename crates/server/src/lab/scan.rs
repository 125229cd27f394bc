//! What lies in a lab's directory: which files, how long, when changed, as far as a look at the
//! folders tells. Two looks that are equal mean that nothing was changed between them.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use torrent::metainfo::FILES_MAX;

use super::config::{IMAGE_FILE, IMAGES_DIR, NODES_FILE, SERVER_FILE};
use super::problem::Problems;

/// A look at a lab.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The files of the configuration that are there, by their path in the lab.
    configuration: BTreeMap<String, Stamp>,
    /// Each folder of `oss/` by name.
    folders: BTreeMap<String, Folder>,
    /// What is wrong with `oss/` itself.
    problems: Problems,
}

/// A look at an image's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folder {
    /// What belongs to the image, by path within the folder.
    files: BTreeMap<String, Stamp>,
    /// What cannot belong to one.
    problems: Problems,
}

/// What tells that a file is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    mode: u32,
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            mode: metadata.mode(),
        }
    }
}

/// Whether what has this name at the top of an image's folder belongs to the image.
///
/// `config.yaml` does not: what it says is in the signed manifest, and so a changed title or command
/// line is no other image that every node has to fetch anew. Nor does what an editor leaves beside
/// it, or a version control system; nor what the image was made of, and the script that boots it in
/// the way of before.
pub(crate) fn is_part_of_image(name: &str) -> bool {
    ![IMAGE_FILE, "image_data.yml", "boot.ipxe"].contains(&name)
        && !name.starts_with('.')
        && !name.ends_with('~')
}

/// A glance at a lab: the configuration, and which files there are at the top of images' folders. What was
/// written into a file that was there it does not see, nor what is in folders within.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Glance(Vec<Option<Stamp>>);

impl Glance {
    /// Glances at the lab in `dir`, of whose images `scan` knows.
    pub(crate) fn new(dir: &Path, scan: &Scan) -> Self {
        let images = dir.join(IMAGES_DIR);
        let files = [SERVER_FILE, NODES_FILE].into_iter().map(|file| dir.join(file));
        let folders = scan.folders.keys().flat_map(|name| {
            let folder = images.join(name);
            [folder.join(IMAGE_FILE), folder]
        });
        let paths = files.chain([images.clone()]).chain(folders);
        Self(paths.map(|path| fs::metadata(path).ok().map(|it| Stamp::new(&it))).collect())
    }
}

impl Scan {
    /// Looks at the lab in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        let mut scan = Self::default();
        for file in [SERVER_FILE, NODES_FILE] {
            scan.note(dir, file);
        }
        let images = dir.join(IMAGES_DIR);
        let entries = match fs::read_dir(&images) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    scan.problems.error(IMAGES_DIR, None, format!("cannot be read: {error}"));
                }
                return scan;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let shown = format!("{IMAGES_DIR}/{}", name.to_string_lossy());
                scan.problems.error(&shown, None, "its name is not UTF-8: rename it");
                continue;
            };
            let kind = entry.file_type();
            if name.starts_with('.') || kind.as_ref().is_ok_and(fs::FileType::is_file) {
                continue;
            }
            if kind.is_ok_and(|kind| kind.is_symlink()) {
                let message = "is a symbolic link: put the folder itself here, or mount it";
                scan.problems.error(&format!("{IMAGES_DIR}/{name}"), None, message);
                continue;
            }
            scan.note(dir, &super::config::image_file(name));
            scan.folders.insert(name.to_owned(), Folder::new(&images, name));
        }
        scan
    }

    fn note(&mut self, dir: &Path, file: &str) {
        if let Ok(metadata) = fs::metadata(dir.join(file)) {
            self.configuration.insert(file.to_owned(), Stamp::new(&metadata));
        }
    }

    /// Whether the files of all images are the same, untouched.
    pub(crate) fn has_same_images(&self, other: &Self) -> bool {
        self.folders == other.folders
    }

    /// The folders of images, by name.
    pub(crate) fn folders(&self) -> impl Iterator<Item = (&str, &Folder)> {
        self.folders.iter().map(|(name, folder)| (name.as_str(), folder))
    }

    /// The folder of an image.
    pub(crate) fn folder(&self, name: &str) -> Option<&Folder> {
        self.folders.get(name)
    }

    /// What cannot be published as it is.
    pub(crate) fn problems(&self) -> Problems {
        let mut problems = self.problems.clone();
        for folder in self.folders.values() {
            problems.extend(&folder.problems);
        }
        problems
    }
}

impl Folder {
    fn new(images: &Path, name: &str) -> Self {
        let mut folder = Self::default();
        let mut count = 0;
        folder.walk(images, name, "", &mut count);
        folder
    }

    /// Looks at `below` (empty, or with a slash at its end) in the folder `name`.
    fn walk(&mut self, images: &Path, name: &str, below: &str, count: &mut usize) {
        let place = format!("{IMAGES_DIR}/{name}/{below}");
        let place = place.trim_end_matches('/');
        let entries = match fs::read_dir(images.join(name).join(below)) {
            Ok(entries) => entries,
            Err(error) => {
                self.problems.error(place, None, format!("cannot be read: {error}"));
                return;
            }
        };
        let mut is_empty = true;
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else {
                let shown = format!("{place}/{}", file_name.to_string_lossy());
                self.problems.error(&shown, None, "its name is not UTF-8: rename it");
                continue;
            };
            if below.is_empty() && !is_part_of_image(file_name) {
                continue;
            }
            is_empty = false;
            *count += 1;
            if *count > FILES_MAX {
                let message = format!("has more than {FILES_MAX} files: pack them into one");
                self.problems.error(&format!("{IMAGES_DIR}/{name}"), None, message);
                return;
            }
            self.look(images, name, &format!("{below}{file_name}"), count);
        }
        if is_empty && !below.is_empty() {
            let message = "is an empty folder, which a torrent cannot hold: remove it";
            self.problems.error(place, None, message);
        }
    }

    fn look(&mut self, images: &Path, name: &str, path: &str, count: &mut usize) {
        let place = format!("{IMAGES_DIR}/{name}/{path}");
        let metadata = match fs::symlink_metadata(images.join(name).join(path)) {
            Ok(metadata) => metadata,
            // It was there a moment ago: the next look sees what became of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                self.problems.error(&place, None, format!("cannot be read: {error}"));
                return;
            }
        };
        let kind = metadata.file_type();
        let refused = match () {
            () if kind.is_dir() => return self.walk(images, name, &format!("{path}/"), count),
            () if kind.is_file() => None,
            () if kind.is_symlink() => Some("symbolic link: put the file itself here"),
            () if kind.is_socket() => Some("socket: remove it"),
            () if kind.is_fifo() => Some("named pipe: remove it"),
            () => Some("device: remove it"),
        };
        match refused {
            Some(refused) => self.problems.error(&place, None, format!("is a {refused}")),
            None => drop(self.files.insert(path.to_owned(), Stamp::new(&metadata))),
        }
    }

    /// Adds a problem if there is nothing to download, and nothing else is wrong.
    pub(crate) fn check_filled(&self, name: &str, problems: &mut Problems) {
        if self.files.is_empty() && !self.problems.has_errors() {
            let message = "there is nothing to boot in it: put a kernel and an initrd here";
            problems.error(&format!("{IMAGES_DIR}/{name}"), None, message);
        }
    }

    /// Whether it has a file of this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Bytes of all its files.
    pub(crate) fn len(&self) -> u64 {
        self.files.values().map(|stamp| stamp.len).sum()
    }

    /// The paths of its files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> + Clone {
        self.files.keys().map(String::as_str)
    }

    /// Adds a problem for each file that this user may not read.
    pub(crate) fn check_readable(&self, dir: &Path, name: &str, problems: &mut Problems) {
        for path in self.paths() {
            let place = format!("{IMAGES_DIR}/{name}/{path}");
            if let Err(error) = fs::File::open(dir.join(&place)) {
                problems.error(&place, None, format!("cannot be read: {error}"));
            }
        }
    }
}
