//! The images of a lab as folders: what is there, what is being built, and how a version takes the
//! place of another.
//!
//! ```text
//! oss/NAME/                     what nodes boot: only ever a whole version
//! state/builds/NAME/            a build under way; out/ in it becomes the version
//! state/images/NAME/versions/N  versions kept to go back to, and for a moment the one to come
//! state/installations.yml       who builds what
//! ```
//!
//! A version is made beside, moved to `versions/N` and then exchanged with `oss/NAME` in one step
//! (`renameat2`), so that at each moment, also that of a crash, there is one whole version in
//! `oss/NAME`. What a crash leaves elsewhere the next command puts right: a folder in `versions/`
//! is named after the number that its image_data.yml says.

use std::io;
use std::path::{Path, PathBuf};

use boot::ImageName;
use rustix::fs::{CWD, RenameFlags};

use crate::data::ImageData;
use crate::error::ImageError;
use crate::host;
use crate::installations::{Installation, Installations, Proc, Processes, Status};
use crate::kind;

/// How many versions are kept beside the one that nodes boot: today's mistake and the one before.
pub const VERSIONS_KEPT: usize = 3;

/// The images of a lab.
pub struct Catalogue {
    lab: PathBuf,
    processes: Box<dyn Processes>,
}

/// An image of the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// How it is.
    pub status: Status,
    /// What is known of it; nothing of one that was made by hand, or whose build is not done.
    pub data: Option<ImageData>,
    /// Versions that can be gone back to, the oldest first.
    pub versions: Vec<u32>,
}

/// What a build is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An image that is not there yet.
    Create,
    /// Another version of one that is there.
    Change,
}

impl Catalogue {
    /// That of the lab in `lab`, an absolute path.
    pub fn new(lab: &Path) -> Self {
        Self { lab: lab.to_owned(), processes: Box::new(Proc) }
    }

    #[cfg(test)]
    pub(crate) fn with_processes(lab: &Path, processes: Box<dyn Processes>) -> Self {
        Self { lab: lab.to_owned(), processes }
    }

    /// The lab's folder.
    pub fn lab(&self) -> &Path {
        &self.lab
    }

    /// The folder of what nodes boot.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.lab.join("oss").join(name)
    }

    /// What must survive a restart.
    pub fn state(&self) -> PathBuf {
        self.lab.join("state")
    }

    /// What belongs to an image but not to nodes.
    pub fn belongings(&self, name: &str) -> PathBuf {
        self.state().join("images").join(name)
    }

    fn versions_dir(&self, name: &str) -> PathBuf {
        self.belongings(name).join("versions")
    }

    fn build_dir(&self, name: &str) -> PathBuf {
        self.state().join("builds").join(name)
    }

    fn installations(&self) -> Installations {
        Installations::new(&self.state())
    }

    /// What is known of a built image.
    ///
    /// # Errors
    /// If there is no such image, or it was made by hand.
    pub fn data(&self, name: &str) -> Result<ImageData, ImageError> {
        let folder = self.folder(name);
        if !host::is_dir(&folder) {
            return Err(ImageError::NoSuchImage(name.to_owned()));
        }
        ImageData::read(&folder)?.ok_or_else(|| ImageError::NotBuilt(name.to_owned()))
    }

    /// All images, by name: those in `oss/`, and those whose build is not done.
    ///
    /// # Errors
    /// If a folder or file cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, ImageError> {
        let builds = self.installations().read()?;
        let mut names: Vec<String> = names_in(&self.lab.join("oss"))?;
        names.extend(builds.keys().cloned());
        names.sort();
        names.dedup();
        let entry = |name: String| {
            let status = builds.get(&name).map(|build| build.status(&*self.processes));
            Ok(Entry {
                status: status.unwrap_or(Status::Created),
                data: ImageData::read(&self.folder(&name))?,
                versions: self.versions(&name)?.into_iter().map(|(number, _)| number).collect(),
                name,
            })
        };
        names.into_iter().map(entry).collect()
    }

    /// Versions that can be gone back to, the oldest first, with their folders.
    ///
    /// # Errors
    /// If a folder or file cannot be read.
    pub fn versions(&self, name: &str) -> Result<Vec<(u32, PathBuf)>, ImageError> {
        let dir = self.versions_dir(name);
        let numbers = names_in(&dir)?.into_iter().filter_map(|name| name.parse::<u32>().ok());
        let mut versions: Vec<_> =
            numbers.map(|number| (number, dir.join(number.to_string()))).collect();
        versions.sort();
        Ok(versions)
    }

    /// Puts right what killed builds have left behind; the names of images whose build was undone.
    ///
    /// # Errors
    /// If something cannot be read or removed.
    pub fn clean(&self) -> Result<Vec<String>, ImageError> {
        let dead = |build: &Installation| build.status(&*self.processes) == Status::Corrupted;
        let table = self.installations().read()?;
        let mut cleaned = vec![];
        for (name, build) in table.into_iter().filter(|(_, build)| dead(build)) {
            // Two commands may clean at a time; only one of them finds this entry still there.
            self.installations().change(|table| {
                if table.get(&name) == Some(&build) {
                    self.undo(&name, &build.image_class)?;
                    table.remove(&name);
                    cleaned.push(name.clone());
                }
                Ok(())
            })?;
        }
        let builds = self.installations().read()?;
        for name in names_in(&self.state().join("images"))? {
            if !builds.contains_key(&name) {
                self.mend_versions(&name)?;
            }
        }
        Ok(cleaned)
    }

    /// Removes what an unfinished build has made. What `oss/` has stays: it is whole.
    fn undo(&self, name: &str, class: &str) -> Result<(), ImageError> {
        remove_tree(&self.build_dir(name))?;
        let is_new = !host::exists(&self.folder(name));
        if let Some(kind) = kind::of_class(class) {
            kind.clean(self, name)?;
        }
        match is_new {
            true => remove_tree(&self.belongings(name)),
            false => self.mend_versions(name),
        }
    }

    /// Gives each folder in `versions/` the name of the version that is in it.
    fn mend_versions(&self, name: &str) -> Result<(), ImageError> {
        for (number, folder) in self.versions(name)? {
            let Some(data) = ImageData::read(&folder)? else { continue };
            let right = self.versions_dir(name).join(data.version.to_string());
            if data.version == number {
                continue;
            }
            match host::exists(&right) {
                true => remove_tree(&folder)?,
                false => host::rename(&folder, &right).map_err(ImageError::write(&right))?,
            }
        }
        Ok(())
    }

    /// Begins a build, after cleaning.
    ///
    /// # Errors
    /// If the name cannot be one, is taken, or is being built; for a change, if there is no such image.
    pub fn begin(
        &self,
        name: &str,
        class: &str,
        purpose: Purpose,
    ) -> Result<Build<'_>, ImageError> {
        let parsed: Result<ImageName, _> = name.parse();
        parsed.map_err(|error| ImageError::Wrong(error.to_string()))?;
        self.clean()?;
        self.installations().change(|table| {
            if let Some(build) = table.get(name)
                && let Status::InCreation { pid } = build.status(&*self.processes)
            {
                return Err(ImageError::InCreation { name: name.to_owned(), pid });
            }
            match (purpose, host::exists(&self.folder(name))) {
                (Purpose::Create, true) => return Err(ImageError::Exists(name.to_owned())),
                (Purpose::Change, false) => return Err(ImageError::NoSuchImage(name.to_owned())),
                _ => {}
            }
            let pid = std::process::id();
            table.insert(name.to_owned(), Installation::new(class, pid, &*self.processes));
            Ok(())
        })?;
        moment();
        let build = Build {
            catalogue: self,
            name: name.to_owned(),
            class: class.to_owned(),
            dir: self.build_dir(name),
        };
        // It is undone by dropping `build` if this fails.
        remove_tree(&build.dir)?;
        let out = build.output();
        host::create_closed_dir(&build.dir)
            .and_then(|()| host::create_dir_all(&out))
            .map_err(ImageError::write(&out))?;
        moment();
        Ok(build)
    }

    /// Goes back to a version that was kept, by default the one before; its number. What nodes boot
    /// now is kept in turn.
    ///
    /// # Errors
    /// If there is no such version, or the image is being built.
    pub fn rollback(&self, name: &str, to: Option<u32>) -> Result<u32, ImageError> {
        self.clean()?;
        self.refuse_busy(name)?;
        let current = self.data(name)?.version;
        let versions = self.versions(name)?;
        let wanted = |number: u32| to.map_or(number < current, |to| number == to);
        let Some((number, folder)) = versions.iter().rev().find(|(number, _)| wanted(*number))
        else {
            let kept: Vec<_> = versions.iter().map(|(number, _)| number.to_string()).collect();
            let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
            let wanted = to.map_or_else(|| format!("before {current}"), |to| to.to_string());
            return Err(ImageError::Wrong(format!(
                "`{name}` has no version {wanted} to go back to; kept: {kept}"
            )));
        };
        self.take_place(name, folder)?;
        Ok(*number)
    }

    /// Exchanges a version with what nodes boot now, and names that by its own number.
    fn take_place(&self, name: &str, version: &Path) -> Result<(), ImageError> {
        let folder = self.folder(name);
        if !host::exists(&folder) {
            host::create_dir_all(&self.lab.join("oss")).map_err(ImageError::write(&folder))?;
            host::rename(version, &folder).map_err(ImageError::write(&folder))?;
            moment();
            return Ok(());
        }
        rustix::fs::renameat_with(CWD, version, CWD, &folder, RenameFlags::EXCHANGE)
            .map_err(|error| ImageError::write(&folder)(error.into()))?;
        moment();
        self.mend_versions(name)?;
        moment();
        Ok(())
    }

    /// Removes an image and all that belongs to it.
    ///
    /// # Errors
    /// If there is no such image, it is being built, or something of it is mounted.
    pub fn remove(&self, name: &str) -> Result<(), ImageError> {
        self.clean()?;
        self.refuse_busy(name)?;
        let folder = self.folder(name);
        if !host::is_dir(&folder) {
            return Err(ImageError::NoSuchImage(name.to_owned()));
        }
        let data = ImageData::read(&folder)?;
        refuse_mounts(&self.belongings(name))?;
        if let Some(data) = &data
            && let Some(kind) = kind::of_class(&data.image_class)
        {
            kind.remove(self, data)?;
        }
        // Out of sight in one step; a crash while its files are removed leaves no half image.
        let gone = self.state().join("builds").join(format!(".removed-{name}"));
        host::create_closed_dir(&self.state().join("builds")).map_err(ImageError::write(&gone))?;
        remove_tree(&gone)?;
        host::rename(&folder, &gone).map_err(ImageError::write(&folder))?;
        remove_tree(&gone)?;
        remove_tree(&self.belongings(name))
    }

    /// Refuses an image that somebody builds.
    ///
    /// # Errors
    /// If somebody does.
    pub fn refuse_busy(&self, name: &str) -> Result<(), ImageError> {
        let table = self.installations().read()?;
        match table.get(name).map(|build| build.status(&*self.processes)) {
            Some(Status::InCreation { pid }) => {
                Err(ImageError::InCreation { name: name.to_owned(), pid })
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that the disk of the lab's `state/` has room.
    ///
    /// # Errors
    /// If it has not.
    pub fn need_space(&self, bytes: u64) -> Result<(), ImageError> {
        let dir = self.state();
        host::create_closed_dir(&dir).map_err(ImageError::write(&dir))?;
        let stat = rustix::fs::statvfs(&dir)
            .map_err(|error| ImageError::read(&dir)(io::Error::from(error)))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        match free < bytes {
            true => Err(ImageError::NoSpace { dir, needed_mb: bytes >> 20, free_mb: free >> 20 }),
            false => Ok(()),
        }
    }
}

/// A build under way. If it is dropped before it is published, nothing of it stays.
pub struct Build<'a> {
    catalogue: &'a Catalogue,
    name: String,
    class: String,
    dir: PathBuf,
}

impl Build<'_> {
    /// Whose images these are.
    pub fn catalogue(&self) -> &Catalogue {
        self.catalogue
    }

    /// The image.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that becomes the version.
    pub fn output(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// A folder that is gone when the build is over.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes what is in [`output`](Self::output) what nodes boot; the number of the version.
    ///
    /// # Errors
    /// If it cannot be written; what nodes boot is then as before.
    pub fn publish(self, mut data: ImageData) -> Result<u32, ImageError> {
        let (catalogue, name) = (self.catalogue, self.name.as_str());
        let current = ImageData::read(&catalogue.folder(name))?.map(|it| it.version);
        let kept = catalogue.versions(name)?;
        let newest = kept.iter().map(|(number, _)| *number).chain(current).max();
        data.version = newest.unwrap_or(0) + 1;
        name.clone_into(&mut data.name);
        data.image_class.clone_from(&self.class);
        data.creation_date = Some(time::OffsetDateTime::now_utc().date().to_string());
        let out = self.output();
        data.write(&out)?;
        flush(&out)?;
        moment();
        let version = catalogue.versions_dir(name).join(data.version.to_string());
        host::create_closed_dir(&catalogue.versions_dir(name))
            .map_err(ImageError::write(&version))?;
        moment();
        host::rename(&out, &version).map_err(ImageError::write(&version))?;
        moment();
        catalogue.take_place(name, &version)?;
        let kept = catalogue.versions(name)?;
        for (_, folder) in kept.iter().take(kept.len().saturating_sub(VERSIONS_KEPT)) {
            remove_tree(folder)?;
            moment();
        }
        Ok(data.version)
    }
}

impl Drop for Build<'_> {
    fn drop(&mut self) {
        // A program that panics is as one that was killed: the next command cleans with a clear head.
        if std::thread::panicking() {
            return;
        }
        let done = self.catalogue.installations().change(|table| {
            self.catalogue.undo(&self.name, &self.class)?;
            table.remove(&self.name);
            Ok(())
        });
        // What cannot be removed now stays entered, and the next command tries again and says why.
        drop(done);
    }
}

/// The names of folders in a folder, without hidden ones, in order; none if it is not there.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<String>, ImageError> {
    let entries = match host::entries(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(source) => return Err(ImageError::Read { file: dir.to_owned(), source }),
    };
    let mut names = vec![];
    for (path, metadata) in entries {
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|it| metadata.is_dir() && !it.starts_with('.')) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// What is mounted in a folder, the deepest first.
pub(crate) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = procfs::process::Process::myself().and_then(|me| me.mountinfo());
    let mounts = table.map(|table| table.0).unwrap_or_default();
    let mut below: Vec<_> = mounts
        .into_iter()
        .map(|mount| mount.mount_point)
        .filter(|it| it.starts_with(dir))
        .collect();
    below.sort();
    below.reverse();
    below
}

fn refuse_mounts(dir: &Path) -> Result<(), ImageError> {
    match mounts_below(dir).first() {
        None => Ok(()),
        Some(mount) => Err(ImageError::Wrong(format!(
            "{} is mounted: end what uses it, then run `boottorrent image unmount`",
            mount.display()
        ))),
    }
}

/// Removes a folder, if it is there. Never reaches into what is mounted below it, which may be the
/// machine's own `/dev`.
pub(crate) fn remove_tree(dir: &Path) -> Result<(), ImageError> {
    if !host::exists(dir) {
        return Ok(());
    }
    refuse_mounts(dir)?;
    host::remove_dir_all(dir).map_err(ImageError::write(dir))
}

/// Brings all that was written to the disk, so that no power cut leaves a version of empty files.
fn flush(dir: &Path) -> Result<(), ImageError> {
    let opened = host::open(dir).map_err(ImageError::read(dir))?;
    rustix::fs::syncfs(opened).map_err(|error| ImageError::write(dir)(error.into()))
}

/// Between two changes of the disk: where tests let the program die.
#[inline]
fn moment() {
    #[cfg(test)]
    tests::die_at_the_chosen_moment();
}

#[cfg(test)]
mod tests;
