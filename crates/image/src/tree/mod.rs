//! The tree of files that an image is made of: from where it comes, what is changed in it, and how it
//! becomes one file.

pub mod source;

mod oci;
mod packages;
mod unpack;

pub mod customize;
pub mod password;
pub mod root;

pub mod squash;

use crate::catalogue::Build;
use crate::command::Work;
use crate::data::ImageData;
use crate::error::ImageError;
use crate::kernels;
use root::Tree;
use source::Source;

pub(crate) use unpack::{copy, copy_into};

/// The attribute that names where packages come from, instead of the distribution's own place.
pub const MIRROR: &str = "mirror";

/// The attribute with the text of the SSH key that may log in as root.
pub const SSH_KEY: &str = "ssh_key";

/// Fills an empty folder as `data` says: source, kernel with its modules, root's password and key,
/// name and network. Notes the kernel in `data`.
///
/// # Errors
/// If anything is missing or fails.
pub fn make(
    tree: &Tree,
    build: &Build<'_>,
    data: &mut ImageData,
    work: &Work<'_>,
) -> Result<(), ImageError> {
    crate::command::need_root("building a tree of files that belong to root")?;
    let source: Source = data.source.as_deref().unwrap_or("packages:debian").parse()?;
    build.catalogue().need_space(source.space(data)?)?;
    match &source {
        Source::Packages(family) => packages::install(*family, tree, build, data, work)?,
        Source::Directory(dir) => unpack::directory(dir, tree, work)?,
        Source::Tar(file) => unpack::tar(file, tree, work)?,
        Source::Squashfs(file) => unpack::squashfs(file, tree, work)?,
        Source::Oci(path) => oci::unpack(path, tree, work)?,
    }
    work.step("taking the kernel")?;
    let version = kernels::settle(build.catalogue().lab(), tree, data.kernel_version(), work)?;
    data.kernel = Some(version.to_string());
    if data.selinux {
        customize::label(tree, work)?;
    }
    customize::apply(tree, data)
}
