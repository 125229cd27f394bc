//! Every phase 1 that a lab serves: its own, and one for each kernel that an image is for.

use std::fmt;
use std::path::PathBuf;

use boot::kernel::Content;
use boot::{KernelVersion, Phase1};

use super::Lab;
use super::settings::Settings;

/// A phase 1 and its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phase1Files {
    /// As the manifest names it.
    pub(crate) described: Phase1,
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// Builds the phase 1 of a kernel, or finds it built.
pub(crate) type Build =
    Box<dyn FnMut(&Settings, &KernelVersion) -> Result<Phase1Files, BuildError> + Send>;

/// Why it cannot be built.
pub(crate) type BuildError = Box<dyn std::error::Error + Send + Sync>;

/// An image is for a kernel of which there is no phase 1.
#[derive(Debug, thiserror::Error)]
#[error("no phase 1 for the kernel {version}, which the image `{image}` is for (kernel_version)")]
pub(crate) struct NoPhase1 {
    image: String,
    version: KernelVersion,
    source: BuildError,
}

/// What was built, and what builds more.
#[derive(Default)]
pub(crate) struct Shelf {
    /// The lab's own; nothing if its kernel is not known.
    own: Option<Phase1Files>,
    others: Vec<Phase1Files>,
    build: Option<Build>,
}

impl Shelf {
    /// With the lab's own.
    pub(crate) fn new(own: Option<Phase1Files>, build: Build) -> Self {
        Self { own, others: vec![], build: Some(build) }
    }

    /// The lab's own, then what its images need, built where it has to be: half a minute each.
    pub(super) fn for_images(&mut self, lab: &Lab) -> Result<Vec<Phase1Files>, NoPhase1> {
        let mut needed = vec![];
        needed.extend(self.own.clone());
        for image in &lab.images {
            let Some(Some(version)) = image.loader.shared_kernel() else { continue };
            let is_there = |files: &&Phase1Files| files.described.version == *version;
            if needed.iter().any(|files| is_there(&files)) {
                continue;
            }
            let files = match self.others.iter().find(is_there) {
                Some(known) => known.clone(),
                None => {
                    let built = self.build(&lab.settings, version).map_err(|source| NoPhase1 {
                        image: image.name.to_string(),
                        version: version.clone(),
                        source,
                    })?;
                    self.others.push(built.clone());
                    built
                }
            };
            needed.push(files);
        }
        Ok(needed)
    }

    fn build(
        &mut self,
        settings: &Settings,
        version: &KernelVersion,
    ) -> Result<Phase1Files, BuildError> {
        if self.own.is_none() {
            return Err(
                "the folder that `--phase1` names has no phase1.json, so that nobody knows \
                        which kernel is the lab's own: start without it"
                    .into(),
            );
        }
        match &mut self.build {
            Some(build) => build(settings, version),
            None => Err("nothing is built here".into()),
        }
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("own", &self.own).field("others", &self.others).finish()
    }
}

impl Phase1Files {
    /// What a record says of files.
    ///
    /// # Errors
    /// If its hashes are no hashes.
    pub(crate) fn of(phase1: &image::phase1::Phase1) -> Result<Self, BuildError> {
        let content = |file: &image::phase1::record::File| {
            let sha256 = boot::hex::decode(&file.sha256).ok_or("phase1.json has no SHA-256")?;
            Ok::<_, BuildError>(Content { len: file.len, sha256 })
        };
        let record = &phase1.record;
        let described = Phase1 {
            version: record.version.clone(),
            vmlinuz: content(&record.kernel)?,
            initramfs: content(&record.initramfs)?,
        };
        let (kernel, initramfs) = (phase1.kernel.clone(), phase1.initramfs.clone());
        Ok(Self { described, kernel, initramfs })
    }

    #[cfg(test)]
    pub(crate) fn for_tests(version: &str) -> Self {
        let content = Content::of(version.as_bytes());
        let version = version.parse().unwrap();
        let described = Phase1 { version, vmlinuz: content, initramfs: content };
        Self { described, kernel: PathBuf::new(), initramfs: PathBuf::new() }
    }
}
