//! An extension: programs with their libraries, a squashfs of the lab, laid open where programs of it
//! can run as if its files were the system's.

use std::path::{Path, PathBuf};

use boot::{Image, ImageName, Loader, Manifest};
use rustix::mount::{MountFlags, mount, mount_bind_recursive};

use super::GuestFailure;
use crate::download::VerifiedImage;
use crate::loader::{LoadFailure, root};

/// What programs of an extension see of the node.
const SHARED: [&str; 5] = ["dev", "proc", "sys", "run", "tmp"];

/// The extension of this name.
///
/// # Errors
/// If the lab offers none.
pub(crate) fn find<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Image, GuestFailure> {
    let found = name.parse::<ImageName>().ok().and_then(|name| manifest.image(&name));
    found
        .filter(|image| !image.is_system())
        .ok_or_else(|| GuestFailure::NoExtension { name: name.to_owned() })
}

/// Lays it open, unless it is; the folder that is its root.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn open(image: &VerifiedImage) -> Result<PathBuf, LoadFailure> {
    let Loader::Extension { rootfs } = &image.image().loader else {
        return Err(LoadFailure::UnknownLoader { image: image.image().name.to_string() });
    };
    let id = boot::hex::encode(&image.image().infohash);
    let root = Path::new("/run/boottorrent/extensions").join(id);
    if root.join("usr").is_dir() {
        return Ok(root);
    }
    let (file, _) = crate::loader::file(image, rootfs)?;
    file.check_unchanged()?;
    std::fs::create_dir_all(&root).map_err(refused("the extension's folder"))?;
    root::squashfs(&file, &root)?;
    for name in SHARED {
        let inside = root.join(name);
        mount_bind_recursive(format!("/{name}"), &inside)
            .map_err(refused(&format!("/{name} in the extension")))?;
    }
    // What programs keep beside what they were given, in memory.
    let var = root.join("var/tmp");
    if var.is_dir() {
        mount("tmpfs", &var, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)
            .map_err(refused("/var/tmp in the extension"))?;
    }
    Ok(root)
}

fn refused<E: Into<std::io::Error>>(what: &str) -> impl FnOnce(E) -> LoadFailure {
    let what = what.to_owned();
    move |source| LoadFailure::Root { what, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failed::Fails as _;

    #[test]
    fn only_an_extension_is_taken_for_one() {
        let mut manifest = crate::choose::tests::manifest(None);
        let rootfs = "extension.squashfs".parse().unwrap();
        manifest.images[0].loader = Loader::Extension { rootfs };
        assert_eq!(find(&manifest, "arch").unwrap().name.as_str(), "arch");
        for name in ["debian", "qemu", "not a name"] {
            let error = find(&manifest, name).unwrap_err();
            assert_eq!(error.failure(), boot::Failure::NoExtension, "{name}");
        }
    }
}
