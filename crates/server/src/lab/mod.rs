//! A lab: the directory that holds everything one server needs to boot a fleet. See `docs/lab.md`.
//!
//! [`Lab::open`] reads and checks all of it; a [`Publisher`](publisher::Publisher) makes what nodes
//! get out of it, a [`Publication`](publication::Publication), and makes another when something was
//! changed.

pub(crate) mod config;
pub(crate) mod edit;
pub(crate) mod group;
pub(crate) mod key;
mod keymap;
pub(crate) mod nodes_file;
pub(crate) mod phase1s;
pub(crate) mod problem;
pub(crate) mod publication;
pub(crate) mod publisher;
pub(crate) mod settings;
pub(crate) mod template;
pub(crate) mod watch;

mod hasher;
mod hashes;
mod scan;
mod serial;
mod yaml;

#[cfg(test)]
pub(crate) mod test_lab;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use boot::ImageName;

use self::config::{Configuration, IMAGE_FILE, ImageConfig, NODES_FILE, SERVER_FILE, Texts};
pub(crate) use self::hasher::Progress as HashingProgress;
use self::problem::{Problems, Severity};
pub(crate) use self::scan::is_part_of_image;
use self::scan::{Folder, Scan};
use self::settings::Settings;

/// The most bytes of one configuration file: 50,000 nodes of 100 bytes fit several times.
const FILE_LEN_MAX: u64 = 32 << 20;

/// A lab without errors.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    pub(crate) settings: Settings,
    /// In the order of the menu.
    pub(crate) images: Vec<ImageConfig>,
    /// What should be known, though it stops nothing.
    pub(crate) warnings: Problems,
    /// What lay in the folders when it was read.
    scan: Scan,
}

/// Why a lab cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// There is none.
    #[error(
        "no {SERVER_FILE} in {}: are you in the right directory? `boottorrent init DIR` makes a lab, \
         `-C DIR` names one",
        .0.display()
    )]
    NoLab(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Something is wrong with its files.
    #[error("{}", summary(.0))]
    Problems(Problems),
}

fn summary(problems: &Problems) -> String {
    let count = crate::quantity::count(problems.count(Severity::Error), "problem");
    format!("{count} in the lab's files, which `boottorrent check` shows alone:\n{problems}")
}

impl Lab {
    /// Bytes of all files of an image.
    pub(crate) fn image_len(&self, name: &ImageName) -> u64 {
        self.scan.folder(name.as_str()).map_or(0, Folder::len)
    }

    /// The folder of an image.
    fn folder(&self, name: &ImageName) -> PathBuf {
        self.settings.images_dir().join(name.as_str())
    }

    /// The lab in `dir`.
    ///
    /// # Errors
    /// With every problem of all its files.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let (dir, scan) = look(dir)?;
        let (Configuration { settings, images }, problems) = check_scanned(&dir, &scan)?;
        match problems.has_errors() {
            true => Err(OpenError::Problems(problems)),
            false => Ok(Self { settings, images, warnings: problems, scan }),
        }
    }
}

/// What the files of the lab in `dir` say, and everything that is wrong with them.
///
/// # Errors
/// If there is no lab, or a file cannot be read at all.
pub(crate) fn check(dir: &Path) -> Result<(Configuration, Problems), OpenError> {
    let (dir, scan) = look(dir)?;
    check_scanned(&dir, &scan)
}

/// The absolute path of the lab in `dir`, and what lies in it.
fn look(dir: &Path) -> Result<(PathBuf, Scan), OpenError> {
    let dir = fs::canonicalize(dir).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => OpenError::NoLab(dir.to_owned()),
        _ => OpenError::Read { path: dir.to_owned(), source },
    })?;
    if !dir.join(SERVER_FILE).exists() {
        return Err(OpenError::NoLab(dir));
    }
    let scan = Scan::new(&dir);
    Ok((dir, scan))
}

/// As [`check`], after a look at the folders; `dir` is absolute.
fn check_scanned(dir: &Path, scan: &Scan) -> Result<(Configuration, Problems), OpenError> {
    let mut problems = scan.problems();
    let mut images = vec![];
    for (name, folder) in scan.folders() {
        let file = config::image_file(name);
        let text = read(dir, &file)?;
        if text.is_none() {
            let message = format!("is missing: oss/README.md has an example of {IMAGE_FILE}");
            problems.error(&file, None, message);
        }
        images.push((name.to_owned(), text));
        folder.check_readable(dir, name, &mut problems);
    }
    let texts = Texts {
        server: read(dir, SERVER_FILE)?.unwrap_or_default(),
        nodes: read(dir, NODES_FILE)?,
        images,
    };
    let configuration = config::check(dir, &texts, &mut problems);
    for (name, folder) in scan.folders() {
        let image = configuration.images.iter().find(|image| image.name.as_str() == name);
        if image.is_none_or(|image| image.loader.has_payload()) {
            folder.check_filled(name, &mut problems);
        }
    }
    for image in &configuration.images {
        if let Some(folder) = scan.folder(image.name.as_str()) {
            image.check_files(|path| folder.has(path), folder.paths(), &mut problems);
        }
    }
    Ok((configuration, problems.sorted()))
}

/// The text of a file of the configuration, if it is there.
fn read(dir: &Path, file: &str) -> Result<Option<String>, OpenError> {
    let path = dir.join(file);
    let refuse = |source| OpenError::Read { path: path.clone(), source };
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() > FILE_LEN_MAX => {
            Err(refuse(io::Error::other(format!("it is longer than {FILE_LEN_MAX} bytes"))))
        }
        Ok(_) => fs::read_to_string(&path).map(Some).map_err(refuse),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refuse(error)),
    }
}
