//! Where the kernel of a phase 1 comes from: what is installed, or a Debian package as it was
//! downloaded. It is taken as it is, so that its signature stays good for Secure Boot.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::compression;
use super::config::KernelConfig;
use super::deb::{self, DebError};
use super::error::Phase1Error;
use super::installed::{self, InstalledKernel};
use super::library::{Library, MODULE_LEN_MAX, Shelf, Spool};
use super::name::ModuleName;
use super::progress::{Progress, Step};
use crate::host;
use crate::tree::root::Root;
use boot::kernel::KernelVersion;

/// The most bytes of a kernel; distributions' have 8 to 70 MB (arm64 without compression).
pub const KERNEL_LEN_MAX: u64 = 512 << 20;

/// The most bytes of `config-VERSION` and of `modules.builtin`, which have 300 kB and 60 kB.
pub const TEXT_LEN_MAX: u64 = 16 << 20;

/// Which kernel a phase 1 is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelChoice {
    /// The newest that is installed.
    Newest,
    /// An installed one.
    Installed(KernelVersion),
    /// A Debian package.
    Package(PathBuf),
    /// One of a lab: a folder `kernels/VERSION` with `vmlinuz`, `modules/` and perhaps `config`.
    Folder(PathBuf),
}

impl KernelChoice {
    /// The kernel of this version: the lab's if it has one, else the one that is installed.
    pub fn of_version(lab: &Path, version: KernelVersion) -> Self {
        let folder = lab.join("kernels").join(version.as_str());
        match host::is_file(&folder.join("vmlinuz")) {
            true => Self::Folder(folder),
            false => Self::Installed(version),
        }
    }

    /// What a person wrote: nothing, a version, or the path of a package.
    ///
    /// # Errors
    /// If it is neither a path that ends in `.deb` nor a version.
    pub fn parse(text: Option<&str>) -> Result<Self, boot::kernel::KernelVersionError> {
        match text {
            None | Some("") => Ok(Self::Newest),
            Some(path) if path.ends_with(".deb") => Ok(Self::Package(path.into())),
            Some(version) => version.parse().map(Self::Installed),
        }
    }
}

/// A kernel with all its modules.
#[derive(Debug)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub version: KernelVersion,
    /// `vmlinuz`.
    pub image: Vec<u8>,
    /// How it was built, if that is known.
    pub config: Option<KernelConfig>,
    /// Its modules.
    pub library: Library,
    /// Where their bytes are.
    pub shelf: Shelf,
    /// Where it comes from: a file.
    pub origin: PathBuf,
}

impl Kernel {
    /// An installed one, the newest if no version is wanted. `root` is `/`, or a folder into which
    /// packages were unpacked.
    ///
    /// # Errors
    /// If there is none, not this version, or it cannot be read.
    pub fn installed(root: &Path, wanted: Option<&KernelVersion>) -> Result<Self, Phase1Error> {
        let opened = |error: crate::error::ImageError| Phase1Error::Read {
            file: root.to_owned(),
            source: io::Error::other(error),
        };
        let tree = Root::open(root).map_err(opened)?;
        let found = installed::versions(&tree)?;
        let version = match wanted {
            None => found.first(),
            Some(wanted) if found.is_empty() || found.contains(wanted) => {
                found.iter().find(|version| *version == wanted)
            }
            Some(wanted) => {
                return Err(Phase1Error::NoSuchKernel { wanted: wanted.clone(), found });
            }
        };
        let installed = version.and_then(|version| InstalledKernel::find(&tree, version));
        let Some(installed) = installed else {
            let (boot, modules) = (root.join("boot"), installed::shown_modules(&tree));
            return Err(Phase1Error::NoKernel { boot, modules });
        };
        let InstalledKernel { version, image, config, modules, .. } = installed;
        Self::read(version, tree, &image, config.as_deref(), &modules)
    }

    fn read(
        version: KernelVersion,
        tree: Root,
        image: &str,
        config: Option<&str>,
        modules: &str,
    ) -> Result<Self, Phase1Error> {
        let origin = tree.shown(image);
        let opened = tree.try_file(image);
        let opened = opened.and_then(|it| it.ok_or_else(|| io::ErrorKind::NotFound.into()));
        let image = opened.and_then(|file| compression::read_all("", file, KERNEL_LEN_MAX));
        let image = image.map_err(Phase1Error::read(&origin))?;
        // Without it less is known, and gzip is used.
        let config = config.and_then(|path| tree.try_file(path).ok()?);
        let config = config.and_then(|mut file| read_text(&mut file).ok());
        let config = config.map(|text| KernelConfig::parse(&text));
        let (library, shelf) = Library::installed(tree, modules)?;
        Ok(Self { version, image, config, library, shelf, origin })
    }

    /// One of a lab: the folder `kernels/VERSION`.
    ///
    /// # Errors
    /// If it cannot be read, or is not named after a version.
    pub fn folder(folder: &Path) -> Result<Self, Phase1Error> {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let version: KernelVersion = name.parse().map_err(|error| Phase1Error::Read {
            file: folder.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        // What is in it was a stranger's tree once.
        let tree = Root::without_links(folder).map_err(Phase1Error::read(folder))?;
        Self::read(version, tree, "vmlinuz", Some("config"), "modules")
    }

    /// That of a package. Its modules are kept in a file without a name in `spool_dir` for as long
    /// as this lives: they take about 400 MB there.
    ///
    /// # Errors
    /// If it is no kernel's package, or damaged.
    pub fn package(
        package: &Path,
        spool_dir: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, Phase1Error> {
        let file = host::open(package).map_err(Phase1Error::read(package))?;
        let len = file.metadata().map_err(Phase1Error::read(package))?.len();
        let spool = Spool::new(spool_dir).map_err(Phase1Error::write(spool_dir))?;
        let mut found = Found::new(spool);
        let file = Counted { inner: BufReader::new(file), read: 0, len, progress };
        deb::for_each_file(file, |path, _, bytes| found.take(path, bytes).map_err(DebError::Read))
            .map_err(|source| Phase1Error::Package { package: package.to_owned(), source })?;
        found.finish(package, spool_dir)
    }
}

/// What of a kernel has been found in a package so far.
struct Found {
    image: Option<(KernelVersion, Vec<u8>)>,
    config: Option<String>,
    builtin: Option<(KernelVersion, String)>,
    spool: Spool,
    module_count: usize,
}

impl Found {
    fn new(spool: Spool) -> Self {
        Self { image: None, config: None, builtin: None, spool, module_count: 0 }
    }

    /// Takes a file of the package in, if it is of use.
    fn take(&mut self, path: &str, bytes: &mut dyn Read) -> io::Result<()> {
        let version = |text: &str| text.parse::<KernelVersion>().ok();
        if let Some(version) = path.strip_prefix("boot/vmlinuz-").and_then(version) {
            self.image = Some((version, compression::read_all("", bytes, KERNEL_LEN_MAX)?));
        } else if path.starts_with("boot/config-") {
            self.config = Some(read_text(bytes)?);
        } else if let Some((text, below)) = path
            .strip_prefix("usr/")
            .unwrap_or(path)
            .strip_prefix("lib/modules/")
            .and_then(|rest| rest.split_once('/'))
            && let Some(version) = version(text)
        {
            if below == "modules.builtin" {
                self.builtin = Some((version, read_text(bytes)?));
            } else if below == "vmlinuz" {
                self.image = Some((version, compression::read_all("", bytes, KERNEL_LEN_MAX)?));
            } else if ModuleName::of_file(below).is_some() {
                self.spool.add(below, &mut bytes.take(MODULE_LEN_MAX))?;
                self.module_count += 1;
            }
        }
        Ok(())
    }

    fn finish(self, package: &Path, spool_dir: &Path) -> Result<Kernel, Phase1Error> {
        let lacks = |lacks| Phase1Error::NotAKernelPackage { package: package.to_owned(), lacks };
        let (version, image) = self.image.ok_or_else(|| lacks("boot/vmlinuz-VERSION"))?;
        let (of, builtin) =
            self.builtin.ok_or_else(|| lacks("lib/modules/VERSION/modules.builtin"))?;
        if self.module_count == 0 || of != version {
            return Err(lacks("modules of its kernel"));
        }
        let (library, shelf) =
            Library::spooled(self.spool, builtin).map_err(Phase1Error::write(spool_dir))?;
        let config = self.config.map(|text| KernelConfig::parse(&text));
        Ok(Kernel { version, image, config, library, shelf, origin: package.to_owned() })
    }
}

fn read_text(bytes: &mut dyn Read) -> io::Result<String> {
    let bytes = compression::read_all("", bytes, TEXT_LEN_MAX)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Tells how far reading is.
struct Counted<'a, R> {
    inner: R,
    read: u64,
    len: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.read += count as u64;
        (self.progress)(Progress { step: Step::Reading, done: self.read, total: self.len });
        Ok(count)
    }
}
