//! All modules of a kernel: which there are, and their bytes, from `/lib/modules/VERSION` or out of a
//! package that was never installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::compression;
use super::error::Phase1Error;
use super::modinfo::ModInfo;
use super::name::ModuleName;
use crate::tree::root::Root;

use rustix::fs::FileType;

/// The most bytes of a module, unpacked. The largest of Linux 6.12, `amdgpu`, has 30 MB.
pub const MODULE_LEN_MAX: u64 = 256 << 20;

/// Folders in folders; the kernel's own tree has seven.
const DEPTH_MAX: usize = 32;

/// All modules of a kernel.
#[derive(Debug)]
pub struct Library {
    places: BTreeMap<ModuleName, Place>,
    /// modules.builtin, as it was.
    builtin: String,
    builtin_names: BTreeSet<ModuleName>,
    /// Which modules offer a service of this name, such as `crc32c`. Made when first asked for.
    services: Option<BTreeMap<String, BTreeSet<ModuleName>>>,
}

/// Where a module is.
#[derive(Clone, Debug)]
struct Place {
    /// Below `/lib/modules/VERSION`, and as if it were not compressed:
    /// `kernel/drivers/net/virtio_net.ko`.
    path: String,
    at: At,
}

#[derive(Clone, Debug)]
enum At {
    /// In a file of its own, of this path in its tree.
    File(String),
    /// In the spool: offset, length, and the name that says how it is compressed.
    Spool(u64, u64, String),
}

/// The modules of a package, one behind the other in a file without a name. There are 400 MB of
/// them, and which are needed is known only at the end.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    len: u64,
    places: Vec<Place>,
}

/// A module with its bytes.
#[derive(Clone, Debug)]
pub struct Module {
    /// Below `/lib/modules/VERSION`.
    pub path: String,
    /// The file, uncompressed.
    pub bytes: Vec<u8>,
    /// What it says of itself.
    pub info: ModInfo,
}

impl Spool {
    /// An empty one in a folder that has room.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(dir)?, len: 0, places: vec![] })
    }

    /// Takes in a module's file.
    pub(super) fn add(&mut self, path: &str, bytes: &mut dyn Read) -> io::Result<()> {
        let len = io::copy(bytes, &mut self.file)?;
        let at = At::Spool(self.len, len, path.to_owned());
        self.places.push(Place { path: uncompressed(path).to_owned(), at });
        self.len += len;
        Ok(())
    }
}

impl Library {
    /// What is installed in a folder of a tree, such as `lib/modules/6.1.0-40-amd64`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn installed(root: Root, folder: &str) -> Result<(Self, Shelf), Phase1Error> {
        let mut places = vec![];
        walk(&root, folder, "", 0, &mut places)?;
        let text = |name: &str| {
            let path = format!("{folder}/{name}");
            let read = || match root.try_file(&path)? {
                Some(mut file) => {
                    let mut text = String::new();
                    file.read_to_string(&mut text).map(|_| Some(text))
                }
                None => Ok(None),
            };
            read().map_err(Phase1Error::read(&root.shown(&path)))
        };
        let builtin = text("modules.builtin")?.ok_or_else(|| Phase1Error::Read {
            file: root.shown(format!("{folder}/modules.builtin")),
            source: io::ErrorKind::NotFound.into(),
        })?;
        let mut library = Self::new(places, builtin);
        // A package unpacked by hand has none.
        library.services = text("modules.alias")?.map(|text| services_of_text(&text));
        Ok((library, Shelf::Files(root)))
    }

    /// What a package holds.
    pub(super) fn spooled(mut spool: Spool, builtin: String) -> io::Result<(Self, Shelf)> {
        spool.file.flush()?;
        Ok((Self::new(spool.places, builtin), Shelf::Spool(spool.file)))
    }

    fn new(found: Vec<Place>, builtin: String) -> Self {
        let mut places: BTreeMap<ModuleName, Place> = BTreeMap::new();
        for place in found {
            let Some(name) = ModuleName::of_file(&place.path) else {
                continue;
            };
            // As depmod: what was added to the kernel, in `updates`, goes before what is its own.
            let rank = |place: &Place| (place.path.starts_with("kernel/"), place.path.clone());
            match places.get(&name) {
                Some(other) if rank(other) <= rank(&place) => {}
                _ => drop(places.insert(name, place)),
            }
        }
        let builtin_names = builtin.lines().filter_map(ModuleName::of_file).collect();
        Self { places, builtin, builtin_names, services: None }
    }

    /// modules.builtin: the paths that modules would have if they were not part of the kernel.
    pub fn builtin(&self) -> &str {
        &self.builtin
    }

    /// Whether it is part of the kernel.
    pub fn is_builtin(&self, name: &ModuleName) -> bool {
        self.builtin_names.contains(name)
    }

    /// Whether there is a file for it.
    pub fn contains(&self, name: &ModuleName) -> bool {
        self.places.contains_key(name)
    }

    /// Every module, and its path below `/lib/modules/VERSION`.
    pub fn paths(&self) -> impl Iterator<Item = (&ModuleName, &str)> {
        self.places.iter().map(|(name, place)| (name, place.path.as_str()))
    }

    /// The module itself.
    ///
    /// # Errors
    /// If it cannot be read, or is none. A name that is not there is a file that cannot be read.
    pub fn read(&self, shelf: &Shelf, name: &ModuleName) -> Result<Module, Phase1Error> {
        let place = self.places.get(name).ok_or_else(|| Phase1Error::Read {
            file: name.as_str().into(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        let path = place.path.clone();
        let bytes = match (&place.at, shelf) {
            (At::File(file), Shelf::Files(root)) => root
                .try_file(file)
                .and_then(|open| open.ok_or_else(|| io::ErrorKind::NotFound.into()))
                .and_then(|open| compression::read_all(file, open, MODULE_LEN_MAX))
                .map_err(Phase1Error::read(&root.shown(file)))?,
            (At::Spool(offset, len, name), Shelf::Spool(spool)) => {
                read_spool(spool, *offset, *len, name)
                    .map_err(Phase1Error::read(Path::new(&path)))?
            }
            (At::Spool(..), Shelf::Files(_)) | (At::File(_), Shelf::Spool(_)) => {
                let source = io::ErrorKind::NotFound.into();
                return Err(Phase1Error::Read { file: path.into(), source });
            }
        };
        match ModInfo::decode(&bytes) {
            Ok(info) => Ok(Module { path, bytes, info }),
            Err(source) => Err(Phase1Error::Module { path, source }),
        }
    }

    /// The modules that offer a service of this name, such as `crc32c`.
    ///
    /// # Errors
    /// If all modules must be read for it, and one cannot be.
    pub fn services(
        &mut self,
        shelf: &Shelf,
        alias: &str,
    ) -> Result<BTreeSet<ModuleName>, Phase1Error> {
        if self.services.is_none() {
            let mut services: BTreeMap<String, BTreeSet<ModuleName>> = BTreeMap::new();
            for name in self.places.keys() {
                for alias in self.read(shelf, name)?.info.aliases {
                    if is_service(&alias) {
                        services.entry(alias).or_default().insert(name.clone());
                    }
                }
            }
            self.services = Some(services);
        }
        let found = self.services.as_ref().and_then(|services| services.get(alias));
        Ok(found.cloned().unwrap_or_default())
    }
}

/// Where the bytes of a library are.
#[derive(Debug)]
pub enum Shelf {
    /// In files of their own, in this tree.
    Files(Root),
    /// In one file.
    Spool(File),
}

fn read_spool(mut spool: &File, offset: u64, len: u64, name: &str) -> io::Result<Vec<u8>> {
    spool.seek(SeekFrom::Start(offset))?;
    compression::read_all(name, spool.take(len), MODULE_LEN_MAX)
}

/// Collects the modules below a folder. Links to folders are not followed: `build` and `source`
/// lead to the sources of the kernel.
fn walk(
    root: &Root,
    folder: &str,
    below: &str,
    depth: usize,
    places: &mut Vec<Place>,
) -> Result<(), Phase1Error> {
    let dir = if below.is_empty() { folder.to_owned() } else { format!("{folder}/{below}") };
    for (name, kind) in root.entries(&dir).map_err(Phase1Error::read(&root.shown(&dir)))? {
        let Ok(name) = name.into_string() else {
            continue;
        };
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if kind == FileType::Directory && depth < DEPTH_MAX {
            walk(root, folder, &path, depth + 1, places)?;
        } else if root.follows(kind) && ModuleName::of_file(&path).is_some() {
            let path = uncompressed(&path).to_owned();
            places.push(Place { path, at: At::File(format!("{dir}/{name}")) });
        }
    }
    Ok(())
}

/// `x.ko` for `x.ko.xz`.
fn uncompressed(path: &str) -> &str {
    path.rfind(".ko").map_or(path, |at| &path[..at + 3])
}

/// Lines `alias PATTERN MODULE`.
fn services_of_text(text: &str) -> BTreeMap<String, BTreeSet<ModuleName>> {
    let mut services: BTreeMap<String, BTreeSet<ModuleName>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some("alias"), Some(alias), Some(name)) = (words.next(), words.next(), words.next())
            && is_service(alias)
            && let Ok(name) = name.parse()
        {
            services.entry(alias.to_owned()).or_default().insert(name);
        }
    }
    services
}

/// Patterns of devices have a bus before a colon and stars; services are asked for by name.
fn is_service(alias: &str) -> bool {
    !alias.contains([':', '*', '?', '['])
}
