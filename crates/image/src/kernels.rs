//! The kernels of a lab, `kernels/VERSION/`: `vmlinuz`, `modules/` (the tree of
//! `/lib/modules/VERSION`), and if there are such `config` and `initramfs.img`, the distribution's,
//! for booting the classic way. From each a phase 1 can be built ([`KernelChoice::of_version`]).

use std::io::{self, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use crate::catalogue::{names_in, remove_tree};
use crate::command::{Call, Work};
use crate::data::ImageData;
use crate::error::ImageError;
use crate::host;
use crate::phase1::deb::{self, DebError};
use crate::phase1::installed::{self, InstalledKernel};
use crate::phase1::kernel::{KERNEL_LEN_MAX, TEXT_LEN_MAX};
use crate::phase1::{KernelChoice, KernelVersion};
use crate::tree::root::{Root, Tree};

/// A kernel that nodes can boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelEntry {
    /// Its version.
    pub version: KernelVersion,
    /// Where it is: the lab's folder, or the root that it is installed in.
    pub folder: PathBuf,
    /// Whether it is the lab's own.
    pub is_labs: bool,
    /// Whether there is an initramfs of the distribution for booting the classic way.
    pub has_initramfs: bool,
    /// The images that run on it.
    pub images: Vec<String>,
}

/// Where a kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An installed one, or that of a tree of files; the newest if no version is given.
    Root(PathBuf, Option<KernelVersion>),
    /// A `.deb` or `.rpm`.
    Package(PathBuf),
}

/// The folder of the lab's kernels.
fn folder(lab: &Path) -> PathBuf {
    lab.join("kernels")
}

/// The lab's kernels and those that are installed, the newest first.
///
/// # Errors
/// If a folder cannot be read.
pub fn list(lab: &Path, root: &Path) -> Result<Vec<KernelEntry>, ImageError> {
    let mut found = vec![];
    for Own { version, folder, has_initramfs } in of_lab(lab)? {
        let images = users(lab, &version)?;
        found.push(KernelEntry { version, folder, is_labs: true, has_initramfs, images });
    }
    let installed_in = Root::open(root)?;
    for version in installed::versions(&installed_in)? {
        if found.iter().all(|entry| entry.version != version) {
            found.push(KernelEntry {
                folder: root.to_owned(),
                is_labs: false,
                has_initramfs: installed::initramfs(&installed_in, &version).is_some(),
                images: users(lab, &version)?,
                version,
            });
        }
    }
    found.sort_by(|a, b| b.version.cmp(&a.version));
    Ok(found)
}

/// A kernel in the lab's own folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its version.
    pub version: KernelVersion,
    /// Where its files are.
    pub folder: PathBuf,
    /// See [`KernelEntry::has_initramfs`].
    pub has_initramfs: bool,
}

/// The kernels in the lab's own folder, without a look at its images.
///
/// # Errors
/// If the folder cannot be read.
pub fn of_lab(lab: &Path) -> Result<Vec<Own>, ImageError> {
    let own = names_in(&folder(lab))?.into_iter().filter_map(|name| {
        let version = name.parse::<KernelVersion>().ok()?;
        let folder = folder(lab).join(&name);
        let has_initramfs = host::is_file(&folder.join("initramfs.img"));
        host::is_file(&folder.join("vmlinuz")).then_some(Own { version, folder, has_initramfs })
    });
    Ok(own.collect())
}

/// The images that run on a kernel.
///
/// # Errors
/// If a folder or file cannot be read.
pub fn users(lab: &Path, version: &KernelVersion) -> Result<Vec<String>, ImageError> {
    let oss = lab.join("oss");
    let line = format!("kernel_version: {version}");
    let mut users = vec![];
    for name in names_in(&oss)? {
        let data = ImageData::read(&oss.join(&name))?;
        let built_on = data.is_some_and(|data| data.kernel_version() == Some(version.as_str()));
        // Folders made by hand say it in config.yaml alone.
        let config = Root::without_links(&oss.join(&name)).ok();
        let config = config.and_then(|folder| folder.text("config.yaml").ok().flatten());
        let config = config.unwrap_or_default();
        if built_on || config.lines().any(|it| it.trim_end() == line) {
            users.push(name);
        }
    }
    Ok(users)
}

/// Takes a kernel into the lab; its version.
///
/// # Errors
/// If it is there already, cannot be read, or the folder cannot be written.
pub fn add(lab: &Path, origin: &Origin, work: &Work<'_>) -> Result<KernelVersion, ImageError> {
    let (tree, files) = match origin {
        Origin::Root(root, version) => {
            let tree = Root::open(root)?;
            let found = installed::versions(&tree)?;
            let version = match version {
                None => found.first(),
                Some(wanted) => found.iter().find(|version| *version == wanted),
            };
            let Some(files) = version.and_then(|it| InstalledKernel::find(&tree, it)) else {
                return Err(ImageError::Wrong(format!(
                    "no such kernel in {}: both vmlinuz and modules are needed",
                    root.display()
                )));
            };
            (tree, files)
        }
        Origin::Package(file) => {
            let scratch = new_dir(lab)?;
            return package(lab, file, scratch.path(), work);
        }
    };
    if host::exists(&folder(lab).join(files.version.as_str())) {
        return Err(ImageError::Wrong(format!(
            "the lab has a kernel {} already: remove it first to take another in",
            files.version
        )));
    }
    store(lab, &tree, &files, work)?;
    Ok(files.version)
}

/// Unpacks a package and takes the kernel in it.
fn package(
    lab: &Path,
    file: &Path,
    scratch: &Path,
    work: &Work<'_>,
) -> Result<KernelVersion, ImageError> {
    work.step("unpacking the package")?;
    match file.extension().and_then(|it| it.to_str()) {
        Some("deb") => unpack_deb(file, scratch)?,
        Some("rpm") => {
            let archive = scratch.join("rpm.cpio");
            Call::new("sh", "dash")
                .args(["-c", "exec rpm2cpio \"$1\" >\"$2\"", "sh"])
                .arg(file)
                .arg(&archive)
                .run(work)?;
            Call::new("cpio", "cpio")
                .args(["--extract", "--make-directories", "--quiet", "--no-absolute-filenames"])
                .arg("--file")
                .arg(&archive)
                .within(Root::open(scratch)?.folder(".")?)
                .run(work)?;
        }
        _ => {
            return Err(ImageError::Wrong(format!(
                "{} is neither a .deb nor a .rpm",
                file.display()
            )));
        }
    }
    let unpacked = Root::open(scratch)?;
    for version in installed::module_versions(&unpacked)? {
        // It writes there, and follows links as any program does.
        if installed::plain_modules(&unpacked, &version).is_none() {
            return Err(ImageError::Data {
                file: file.to_owned(),
                message: format!(
                    "its modules of {version} are behind a link, which is not followed"
                ),
            });
        }
        // udev of the system finds drivers by the index, which a package makes when it is installed.
        Call::new("depmod", "kmod").arg("-b").arg(scratch).arg(version.as_str()).run(work)?;
    }
    add(lab, &Origin::Root(scratch.to_owned(), None), work)
}

fn unpack_deb(file: &Path, to: &Path) -> Result<(), ImageError> {
    let opened = host::open(file).map_err(ImageError::read(file))?;
    let result = deb::for_each_file(BufReader::new(opened), |path, _, bytes| {
        let path = Path::new(path);
        let plain = path.components().all(|it| matches!(it, Component::Normal(_)));
        if !plain
            || !(path.starts_with("boot") || path.starts_with("lib") || path.starts_with("usr/lib"))
        {
            return Ok(());
        }
        let path = to.join(path);
        let write = || {
            host::create_dir_all(path.parent().unwrap_or(to))?;
            let limit = KERNEL_LEN_MAX.max(TEXT_LEN_MAX);
            io::copy(&mut io::Read::take(bytes, limit), &mut host::create(&path)?)
        };
        write().map(drop).map_err(DebError::Read)
    });
    result.map_err(|error| ImageError::Data { file: file.to_owned(), message: error.to_string() })
}

/// A folder beside the lab's kernels that is gone when it is dropped.
fn new_dir(lab: &Path) -> Result<tempfile::TempDir, ImageError> {
    let kernels = folder(lab);
    host::create_dir_all(&kernels).map_err(ImageError::write(&kernels))?;
    let dir = tempfile::Builder::new().prefix(".new-").tempdir_in(&kernels);
    dir.map_err(ImageError::write(&kernels))
}

/// Copies a kernel's files into the lab, as a whole or not at all.
fn store(
    lab: &Path,
    tree: &Root,
    files: &InstalledKernel,
    work: &Work<'_>,
) -> Result<(), ImageError> {
    let new = new_dir(lab)?;
    let dir = new.path().join("kernel");
    host::create_dir_all(&dir).map_err(ImageError::write(&dir))?;
    let copy = |from: &str, name: &str| {
        let (mut from, to) = (tree.file(from)?, dir.join(name));
        let copied = host::create(&to).and_then(|mut to| io::copy(&mut from, &mut to));
        copied.map(drop).map_err(ImageError::write(&to))
    };
    copy(&files.image, "vmlinuz")?;
    if let Some(config) = &files.config {
        copy(config, "config")?;
    }
    if let Some(initramfs) = &files.initramfs {
        copy(initramfs, "initramfs.img")?;
    }
    let kept = Tree::new(&dir);
    copy_modules(tree.folder(&files.modules)?, &kept.root()?, ".", "modules", work)?;
    let to = folder(lab).join(files.version.as_str());
    match host::rename(&dir, &to) {
        // Another build has taken the same one in meanwhile.
        Err(_) if host::is_file(&to.join("vmlinuz")) => Ok(()),
        result => result.map_err(ImageError::write(&to)),
    }
}

/// Takes the initramfs of a tree in place of the one that is kept: somebody has made it anew there.
fn renew_initramfs(tree: &Root, made: &str, kept: &Path) -> Result<(), ImageError> {
    let old = kept.join("initramfs.img");
    let mut bytes = vec![];
    let read = tree.file(made)?.take(KERNEL_LEN_MAX).read_to_end(&mut bytes);
    read.map_err(ImageError::read(&tree.shown(made)))?;
    if host::read(&old).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let refuse = ImageError::write(&old);
    let write = || {
        let mut new = tempfile::NamedTempFile::new_in(kept)?;
        io::Write::write_all(&mut new, &bytes)?;
        new.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        new.persist(&old)?;
        Ok(())
    };
    write().map_err(refuse)
}

/// Without the links to the sources that it was built from, which are on another machine.
fn copy_modules(
    from: OwnedFd,
    to: &Root,
    folder: &str,
    name: &str,
    work: &Work<'_>,
) -> Result<(), ImageError> {
    crate::tree::copy_into(from, to.folder(folder)?, name, work)?;
    ["build", "source"].iter().try_for_each(|link| to.remove(&format!("{folder}/{name}"), link))
}

/// Removes a kernel of the lab.
///
/// # Errors
/// If the lab has none of this version, or an image runs on it.
pub fn remove(lab: &Path, version: &KernelVersion) -> Result<(), ImageError> {
    let dir = folder(lab).join(version.as_str());
    if !host::is_dir(&dir) {
        return Err(ImageError::Wrong(format!(
            "the lab has no kernel {version} of its own: `boottorrent kernel list` shows them"
        )));
    }
    let users = users(lab, version)?;
    if !users.is_empty() {
        return Err(ImageError::Wrong(format!(
            "kernel {version} is in use by {}: give them another with `boottorrent image \
             set-kernel`, or remove them",
            users.join(", ")
        )));
    }
    remove_tree(&dir)
}

/// Makes sure that a tree has the modules of the kernel that it is to run on, and the lab that kernel;
/// its version. Without a wish it is the newest that the tree has itself, else the newest of all.
pub(crate) fn settle(
    lab: &Path,
    tree: &Tree,
    wanted: Option<&str>,
    work: &Work<'_>,
) -> Result<KernelVersion, ImageError> {
    let root = tree.root()?;
    let own = installed::versions(&root)?;
    let wanted = wanted.map(|it| it.parse::<KernelVersion>());
    let wanted = wanted.transpose().map_err(|error| ImageError::Wrong(error.to_string()))?;
    let version = match wanted {
        Some(version) => version,
        None => match own.first() {
            Some(version) => version.clone(),
            None => {
                let newest = list(lab, Path::new("/"))?.into_iter().next();
                let Some(newest) = newest else {
                    return Err(ImageError::Wrong(
                        "there is no kernel: neither in the image nor in the lab nor installed; \
                         add a kernel's package to the image, or run `boottorrent kernel add`"
                            .to_owned(),
                    ));
                };
                newest.version
            }
        },
    };
    let kept = folder(lab).join(version.as_str());
    if host::exists(&kept) {
        if let Some(made) = installed::initramfs(&root, &version) {
            renew_initramfs(&root, &made, &kept)?;
        }
    } else if let Some(files) = InstalledKernel::find(&root, &version) {
        store(lab, &root, &files, work)?;
    }
    if own.contains(&version) {
        return Ok(version);
    }
    let modules = modules_of(lab, &version)?;
    let place = installed::modules_place(&root);
    if !root.has_dir(format!("{place}/{version}")) {
        root.make_dir(place, 0o755)?;
        copy_modules(modules, &root, place, version.as_str(), work)?;
    }
    Ok(version)
}

/// Where the modules of a kernel of the lab, or an installed one, are.
fn modules_of(lab: &Path, version: &KernelVersion) -> Result<OwnedFd, ImageError> {
    let kernels = list(lab, Path::new("/"))?;
    let Some(entry) = kernels.iter().find(|entry| entry.version == *version) else {
        let known: Vec<_> = kernels.iter().map(|entry| entry.version.as_str()).collect();
        return Err(ImageError::Wrong(format!(
            "there is no kernel {version}; there are {}",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") }
        )));
    };
    let root = Root::open(&entry.folder)?;
    match entry.is_labs {
        true => root.folder("modules"),
        false => root.folder(format!("{}/{version}", installed::modules_place(&root))),
    }
}

/// What a phase 1 of an image is built from.
pub fn choice(lab: &Path, version: &str) -> Option<KernelChoice> {
    version.parse().ok().map(|version| KernelChoice::of_version(lab, version))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::command::tests::with_work;

    /// A root with a kernel.
    fn root(dir: &Path, version: &str) {
        let modules = dir.join("lib/modules").join(version);
        fs::create_dir_all(modules.join("kernel")).unwrap();
        fs::create_dir_all(dir.join("boot")).unwrap();
        fs::write(modules.join("modules.builtin"), "").unwrap();
        fs::write(modules.join("kernel/a.ko"), "module").unwrap();
        fs::write(dir.join(format!("boot/vmlinuz-{version}")), version).unwrap();
        fs::write(dir.join(format!("boot/initrd.img-{version}")), "initrd").unwrap();
    }

    fn image_on(lab: &Path, name: &str, kernel: &str) {
        let folder = lab.join("oss").join(name);
        fs::create_dir_all(&folder).unwrap();
        let data = ImageData {
            name: name.to_owned(),
            kernel: Some(kernel.to_owned()),
            ..ImageData::default()
        };
        data.write(&folder).unwrap();
    }

    #[test]
    fn a_kernel_is_added_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (lab, from) = (dir.path().join("lab"), dir.path().join("root"));
        root(&from, "6.1.0-9-amd64");
        root(&from, "6.1.0-40-amd64");
        let origin = Origin::Root(from.clone(), None);
        let version = with_work(|work| add(&lab, &origin, work)).unwrap();
        assert_eq!(version.as_str(), "6.1.0-40-amd64");
        assert!(lab.join("kernels/6.1.0-40-amd64/modules/kernel/a.ko").is_file());
        let listed = list(&lab, &from).unwrap();
        let listed: Vec<_> =
            listed.iter().map(|it| (it.version.as_str(), it.is_labs, it.has_initramfs)).collect();
        assert_eq!(listed, [("6.1.0-40-amd64", true, true), ("6.1.0-9-amd64", false, true)]);
        assert!(with_work(|work| add(&lab, &origin, work)).is_err(), "twice");
        remove(&lab, &version).unwrap();
        assert!(remove(&lab, &version).is_err());
        assert_eq!(names_in(&lab.join("kernels")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_kernel_in_use_is_not_removed_and_its_images_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (lab, from) = (dir.path().join("lab"), dir.path().join("root"));
        root(&from, "6.1.0");
        let version = with_work(|work| add(&lab, &Origin::Root(from, None), work)).unwrap();
        image_on(&lab, "one", "vmlinuz-6.1.0");
        fs::create_dir_all(lab.join("oss/two")).unwrap();
        fs::write(lab.join("oss/two/config.yaml"), "kernel_version: 6.1.0\n").unwrap();
        image_on(&lab, "other", "6.1.1");
        let error = remove(&lab, &version).unwrap_err().to_string();
        assert!(error.contains("in use by one, two:"), "{error}");
    }

    #[test]
    fn a_tree_s_own_kernel_is_taken_before_others() {
        let dir = tempfile::tempdir().unwrap();
        let (lab, tree) = (dir.path().join("lab"), dir.path().join("tree"));
        root(&tree, "6.1.0-9-amd64");
        let version = with_work(|work| settle(&lab, &Tree::new(&tree), None, work)).unwrap();
        assert_eq!(version.as_str(), "6.1.0-9-amd64");
        let kept = lab.join("kernels/6.1.0-9-amd64");
        assert!(kept.join("vmlinuz").is_file());
        // What is made anew in the tree is what nodes get.
        for made in ["dracut's", "dracut's second"] {
            fs::write(tree.join("boot/initrd.img-6.1.0-9-amd64"), made).unwrap();
            with_work(|work| settle(&lab, &Tree::new(&tree), None, work)).unwrap();
            assert_eq!(fs::read_to_string(kept.join("initramfs.img")).unwrap(), made);
        }
        // Its kernel may have left the tree when the image was packed.
        fs::remove_file(tree.join("boot/vmlinuz-6.1.0-9-amd64")).unwrap();
        fs::write(tree.join("boot/initrd.img-6.1.0-9-amd64"), "a third").unwrap();
        with_work(|work| settle(&lab, &Tree::new(&tree), Some("6.1.0-9-amd64"), work)).unwrap();
        assert_eq!(fs::read_to_string(kept.join("initramfs.img")).unwrap(), "a third");
        let mode = fs::metadata(kept.join("initramfs.img")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 3, "nothing is left beside them");
    }

    #[test]
    fn an_initramfs_that_is_a_link_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (lab, tree) = (dir.path().join("lab"), dir.path().join("tree"));
        root(&tree, "6.1.0");
        let (secret, made) = (dir.path().join("secret"), tree.join("boot/initrd.img-6.1.0"));
        fs::write(&secret, "not for nodes").unwrap();
        fs::remove_file(&made).unwrap();
        std::os::unix::fs::symlink(&secret, &made).unwrap();
        // When the kernel is taken in, and when the image is packed again.
        for _ in 0..2 {
            with_work(|work| settle(&lab, &Tree::new(&tree), None, work)).unwrap();
            assert!(!lab.join("kernels/6.1.0/initramfs.img").exists());
        }
        fs::remove_file(&made).unwrap();
        fs::write(&made, "not for nodes either").unwrap();
        fs::rename(tree.join("boot"), dir.path().join("boot")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("boot"), tree.join("boot")).unwrap();
        with_work(|work| settle(&lab, &Tree::new(&tree), Some("6.1.0"), work)).unwrap();
        assert!(!lab.join("kernels/6.1.0/initramfs.img").exists());
    }

    #[test]
    fn the_chosen_kernel_s_modules_come_into_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let (lab, tree) = (dir.path().join("lab"), dir.path().join("tree"));
        root(&dir.path().join("root"), "6.5.0-1-amd64");
        let origin = Origin::Root(dir.path().join("root"), None);
        with_work(|work| add(&lab, &origin, work)).unwrap();
        root(&tree, "6.1.0-9-amd64");
        let version =
            with_work(|work| settle(&lab, &Tree::new(&tree), Some("6.5.0-1-amd64"), work)).unwrap();
        assert_eq!(version.as_str(), "6.5.0-1-amd64");
        assert!(tree.join("lib/modules/6.5.0-1-amd64/kernel/a.ko").is_file());
        let error =
            with_work(|work| settle(&lab, &Tree::new(&tree), Some("9.9"), work)).unwrap_err();
        assert!(error.to_string().contains("no kernel 9.9; there are"), "{error}");
    }

    #[test]
    fn modules_never_land_outside_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(&tree).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("usr")).unwrap();
        let lab = dir.path().join("lab");
        root(&dir.path().join("root"), "6.5.0-1-amd64");
        let origin = Origin::Root(dir.path().join("root"), None);
        with_work(|work| add(&lab, &origin, work)).unwrap();
        let settled =
            with_work(|work| settle(&lab, &Tree::new(&tree), Some("6.5.0-1-amd64"), work));
        assert!(settled.is_err(), "{settled:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
