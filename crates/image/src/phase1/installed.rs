//! Kernels that are installed in a tree of files: `/` of this machine, a folder of unpacked packages, the
//! tree of an image. That may be anybody's, and what is taken of it every node can fetch: a link is followed
//! as it would be in the booted system, never to a file of this machine.

use std::path::PathBuf;

use boot::kernel::KernelVersion;

use super::error::Phase1Error;
use crate::tree::root::{Root, is_absence};

/// An installed kernel: its files, by their paths in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstalledKernel {
    pub(crate) version: KernelVersion,
    /// `vmlinuz`: Debian, Ubuntu and SUSE have it in `/boot`, Fedora beside the modules.
    pub(crate) image: String,
    /// How it was built.
    pub(crate) config: Option<String>,
    /// What dracut or initramfs-tools made for it.
    pub(crate) initramfs: Option<String>,
    /// The folder `/lib/modules/VERSION`.
    pub(crate) modules: String,
}

/// Where modules are: Debian 13 packages have `/usr/lib`, of which `/lib` is the other name.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];

impl InstalledKernel {
    /// That of a version, if the tree has both an image and modules. A folder of modules without an image is
    /// what an uninstalled kernel leaves behind.
    pub(crate) fn find(tree: &Root, version: &KernelVersion) -> Option<Self> {
        let file = |path: String| tree.has_file(&path).then_some(path);
        let places = MODULES.map(|it| format!("{it}/{version}"));
        let modules = places.into_iter().find(|it| tree.has_dir(it))?;
        let module_file = |name| file(format!("{modules}/{name}"));
        module_file("modules.builtin")?;
        tree.has_dir(format!("{modules}/kernel")).then_some(())?;
        Some(Self {
            image: file(format!("boot/vmlinuz-{version}")).or_else(|| module_file("vmlinuz"))?,
            config: file(format!("boot/config-{version}")).or_else(|| module_file("config")),
            initramfs: initramfs(tree, version),
            version: version.clone(),
            modules,
        })
    }
}

/// The initramfs of a kernel, which may itself have left the tree.
pub(crate) fn initramfs(tree: &Root, version: &KernelVersion) -> Option<String> {
    let names = [format!("boot/initramfs-{version}.img"), format!("boot/initrd.img-{version}")];
    names.into_iter().find(|name| tree.has_file(name))
}

/// The kernels of a tree that have both an image and modules, the newest first.
///
/// # Errors
/// If the folder of modules is there and cannot be read.
pub(crate) fn versions(tree: &Root) -> Result<Vec<KernelVersion>, Phase1Error> {
    let mut versions: Vec<_> = module_versions(tree)?
        .into_iter()
        .filter(|version| InstalledKernel::find(tree, version).is_some())
        .collect();
    versions.sort_by(|a: &KernelVersion, b| b.cmp(a));
    Ok(versions)
}

/// The kernels of a tree that have a folder of modules.
///
/// # Errors
/// If that folder is there and cannot be read.
pub(crate) fn module_versions(tree: &Root) -> Result<Vec<KernelVersion>, Phase1Error> {
    let entries = match tree.entries(modules_dir(tree)) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(vec![]),
        Err(source) => return Err(Phase1Error::Read { file: shown_modules(tree), source }),
    };
    Ok(entries.into_iter().filter_map(|(name, _)| name.to_str()?.parse().ok()).collect())
}

/// Where a tree has its folders of modules, or is to have them: `/lib` is a link in most.
pub(crate) fn modules_place(tree: &Root) -> &'static str {
    match tree.plain_folder("lib") {
        Some(_) => MODULES[0],
        None => MODULES[1],
    }
}

/// The folder of a kernel's modules, if no link leads to it.
pub(crate) fn plain_modules(tree: &Root, version: &KernelVersion) -> Option<String> {
    let places = MODULES.map(|it| format!("{it}/{version}"));
    places.into_iter().find(|it| tree.plain_folder(it).is_some())
}

/// The folder with a folder of modules for each kernel.
fn modules_dir(tree: &Root) -> &'static str {
    MODULES.into_iter().find(|it| tree.has_dir(it)).unwrap_or(MODULES[1])
}

/// The same for a person.
pub(crate) fn shown_modules(tree: &Root) -> PathBuf {
    tree.shown(modules_dir(tree))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

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

    fn open(tree: &Path) -> Root {
        Root::open(tree).unwrap()
    }

    fn find(tree: &Path) -> Option<InstalledKernel> {
        InstalledKernel::find(&open(tree), &"6.1.0".parse().unwrap())
    }

    #[test]
    fn links_of_a_tree_are_followed_within_it() {
        let tree = tree("6.1.0");
        let made = tree.path().join("boot/initrd.img-6.1.0");
        fs::rename(&made, tree.path().join("usr/made")).unwrap();
        symlink("/usr/made", &made).unwrap();
        let found = find(tree.path()).unwrap();
        let text = |path: &str| open(tree.path()).text(path).unwrap();
        assert_eq!(found.modules, "lib/modules/6.1.0");
        let made = text(&found.initramfs.unwrap());
        assert_eq!(made.as_deref(), Some("boot/initrd.img-6.1.0"));
        assert_eq!(versions(&open(tree.path())).unwrap(), [found.version]);
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
        assert_eq!(versions(&open(tree.path())).unwrap(), []);
        fs::write(tree.path().join("usr/lib/modules/6.1.0/vmlinuz"), "Fedora's").unwrap();
        assert_eq!(versions(&open(tree.path())).unwrap().len(), 1);
    }
}
