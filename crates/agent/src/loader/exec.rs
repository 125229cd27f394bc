//! A program of the image, in place of the agent.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use boot::ImagePath;

use super::{LoadFailure, words};
use crate::download::VerifiedImage;
use crate::keyboard;

/// A torrent says nothing of modes that matters here: the loader names what is a program.
const MODE: u32 = 0o755;

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan {
    path: ImagePath,
    folder: PathBuf,
    args: Vec<String>,
    image: String,
}

impl Plan {
    pub(super) fn new(
        image: &VerifiedImage,
        bin: &ImagePath,
        args: &str,
    ) -> Result<Self, LoadFailure> {
        super::file(image, bin)?.0.check_unchanged()?;
        Ok(Self {
            path: bin.clone(),
            folder: image.folder().to_owned(),
            args: words::split(args)?,
            image: image.image().name.to_string(),
        })
    }

    pub(super) fn describe(&self) -> String {
        format!("program {} {:?} in {}", self.path, self.args, self.folder.display())
    }

    pub(super) fn make_executable(&self) -> Result<(), LoadFailure> {
        let mode = std::fs::Permissions::from_mode(MODE);
        std::fs::set_permissions(self.program(), mode).map_err(|source| self.failed(source))
    }

    pub(super) fn start(self) -> LoadFailure {
        let modes = keyboard::pause();
        let error = Command::new(self.program())
            .args(&self.args)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
            .env("HOME", "/")
            .env("TERM", "linux")
            .env("BOOTTORRENT_IMAGE", &self.image)
            .exec();
        drop(modes);
        self.failed(error)
    }

    fn program(&self) -> PathBuf {
        self.folder.join(self.path.as_str())
    }

    fn failed(&self, source: std::io::Error) -> LoadFailure {
        LoadFailure::Exec { path: self.path.clone(), source }
    }
}
