//! Kernels that are installed in a tree of files: `/` of this machine, a folder of unpacked packages, the
//! tree of an image. That may be anybody's, and what is taken of it every node can fetch: a link is followed
//! as it would be in the booted system, never to a file of this machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use boot::kernel::KernelVersion;

use super::error::Phase1Error;
use crate::tree::root::Root;

/// The files of an installed kernel, by their real paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstalledKernel {
    pub(crate) version: KernelVersion,
    /// `vmlinuz`: Debian, Ubuntu and SUSE have it in `/boot`, Fedora beside the modules.
    pub(crate) image: PathBuf,
    /// How it was built.
    pub(crate) config: Option<PathBuf>,
    /// What dracut or initramfs-tools made for it.
    pub(crate) initramfs: Option<PathBuf>,
    /// The tree of `/lib/modules/VERSION`.
    pub(crate) modules: PathBuf,
}

/// Where modules are: Debian 13 packages have `/usr/lib`, of which `/lib` is the other name.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];

impl InstalledKernel {
    /// That of a version, if the tree has both an image and modules. A folder of modules without an image is
    /// what an uninstalled kernel leaves behind.
    pub(crate) fn find(root: &Path, version: &KernelVersion) -> Option<Self> {
        let tree = Root::open(root).ok()?;
        let dir = |path: &str| tree.real(path).filter(|path| path.is_dir());
        let file = |path: &str| tree.real(path).filter(|path| path.is_file());
        let inside =
            MODULES.map(|it| format!("{it}/{version}")).into_iter().find(|it| dir(it).is_some())?;
        let module_file = |name| file(&format!("{inside}/{name}"));
        module_file("modules.builtin")?;
        dir(&format!("{inside}/kernel"))?;
        Some(Self {
            image: file(&format!("boot/vmlinuz-{version}")).or_else(|| module_file("vmlinuz"))?,
            config: file(&format!("boot/config-{version}")).or_else(|| module_file("config")),
            initramfs: initramfs(root, version),
            modules: dir(&inside)?,
            version: version.clone(),
        })
    }
}

/// The initramfs of a kernel, which may itself have left the tree.
pub(crate) fn initramfs(root: &Path, version: &KernelVersion) -> Option<PathBuf> {
    let tree = Root::open(root).ok()?;
    let names = [format!("boot/initramfs-{version}.img"), format!("boot/initrd.img-{version}")];
    names.iter().filter_map(|name| tree.real(name)).find(|path| path.is_file())
}

/// The kernels of a tree that have both an image and modules, the newest first.
///
/// # Errors
/// If the folder of modules is there and cannot be read.
pub(crate) fn versions(root: &Path) -> Result<Vec<KernelVersion>, Phase1Error> {
    let modules = modules_dir(root);
    let entries = match fs::read_dir(&modules) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(source) => return Err(Phase1Error::Read { file: modules, source }),
    };
    let mut versions = vec![];
    for entry in entries {
        let name = entry.map_err(Phase1Error::read(&modules))?.file_name();
        let Some(version) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if InstalledKernel::find(root, &version).is_some() {
            versions.push(version);
        }
    }
    versions.sort_by(|a: &KernelVersion, b| b.cmp(a));
    Ok(versions)
}

/// The folder with a folder of modules for each kernel.
pub(crate) fn modules_dir(root: &Path) -> PathBuf {
    let tree = Root::open(root).ok();
    let real = tree.and_then(|tree| MODULES.iter().find_map(|it| tree.real(it)));
    real.unwrap_or_else(|| root.join(MODULES[1]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree with a kernel whose files have their own paths as texts.
    fn tree(version: &str) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let modules = format!("usr/lib/modules/{version}");
        fs::create_dir_all(tree.path().join(&modules).join("kernel")).unwrap();
        fs::create_dir_all(tree.path().join("boot")).unwrap();
        symlink("usr/lib", tree.path().join("lib")).unwrap();
        for file in [
            format!("{modules}/modules.builtin"),
            format!("boot/vmlinuz-{version}"),
            format!("boot/config-{version}"),
            format!("boot/initrd.img-{version}"),
        ] {
            fs::write(tree.path().join(&file), &file).unwrap();
        }
        tree
    }

    fn find(tree: &Path) -> Option<InstalledKernel> {
        InstalledKernel::find(tree, &"6.1.0".parse().unwrap())
    }

    #[test]
    fn links_of_a_tree_are_followed_within_it() {
        let tree = tree("6.1.0");
        let made = tree.path().join("boot/initrd.img-6.1.0");
        fs::rename(&made, tree.path().join("usr/made")).unwrap();
        symlink("/usr/made", &made).unwrap();
        let found = find(tree.path()).unwrap();
        let real = fs::canonicalize(tree.path()).unwrap();
        assert_eq!(found.modules, real.join("usr/lib/modules/6.1.0"));
        assert_eq!(found.initramfs, Some(real.join("usr/made")));
        assert_eq!(versions(tree.path()).unwrap(), [found.version]);
    }

    /// What has become a link to the same file outside of the tree is not there.
    #[track_caller]
    fn check_led_out(path: &str, lost: fn(Option<InstalledKernel>) -> bool) {
        let (tree, outside) = (tree("6.1.0"), tempfile::tempdir().unwrap());
        let (inside, away) = (tree.path().join(path), outside.path().join("away"));
        fs::rename(&inside, &away).unwrap();
        symlink(&away, &inside).unwrap();
        assert!(lost(find(tree.path())), "{path}");
    }

    #[test]
    fn a_link_to_a_file_of_this_machine_is_not_followed() {
        check_led_out("boot/vmlinuz-6.1.0", |it| it.is_none());
        check_led_out("boot", |it| it.is_none());
        check_led_out("usr", |it| it.is_none());
        check_led_out("usr/lib/modules/6.1.0", |it| it.is_none());
        check_led_out("boot/config-6.1.0", |it| it.is_some_and(|it| it.config.is_none()));
        check_led_out("boot/initrd.img-6.1.0", |it| it.is_some_and(|it| it.initramfs.is_none()));
    }

    #[test]
    fn without_an_image_modules_are_what_an_uninstalled_kernel_leaves() {
        let tree = tree("6.1.0");
        fs::remove_file(tree.path().join("boot/vmlinuz-6.1.0")).unwrap();
        assert_eq!(versions(tree.path()).unwrap(), []);
        fs::write(tree.path().join("usr/lib/modules/6.1.0/vmlinuz"), "Fedora's").unwrap();
        assert_eq!(versions(tree.path()).unwrap().len(), 1);
    }
}
