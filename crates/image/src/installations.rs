//! `state/installations.yml`: which builds are under way, and whose they are.
//!
//! A build enters itself before it makes anything and takes itself out when it is done. An entry
//! whose process is gone is what a killed build leaves behind: its image is corrupted. A process
//! number alone would not tell: numbers are used again, and a reboot begins anew. So the time at
//! which the process was started and the boot that it belongs to are in the entry, too.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ImageError;
use crate::host;

/// The file's name, in the lab's `state/`.
pub const INSTALLATIONS_FILE: &str = "installations.yml";

/// Locked by who changes that file, in the same folder.
pub const LOCK_FILE: &str = ".installations.lock";

/// A build under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// Which kind's it is.
    pub image_class: String,
    /// The process that builds.
    pub pid: u32,
    /// When that process was started, in clock ticks since the machine was; 0 is not known, as in
    /// the original's entries.
    #[serde(default)]
    pub start_time: u64,
    /// Which boot of the machine that was; empty is not known.
    #[serde(default)]
    pub boot_id: String,
}

/// How an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is whole.
    Created,
    /// Its build is under way.
    InCreation {
        /// Who builds it.
        pid: u32,
    },
    /// Its build was killed.
    Corrupted,
}

/// The processes of this machine, as far as it matters here.
pub trait Processes {
    /// Which boot of the machine this is.
    fn boot_id(&self) -> String;
    /// When a process that lives was started, in ticks since the machine was.
    fn start_time(&self, pid: u32) -> Option<u64>;
}

/// Those of `/proc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proc;

impl Processes for Proc {
    fn boot_id(&self) -> String {
        let text =
            host::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
        text.trim().to_owned()
    }

    fn start_time(&self, pid: u32) -> Option<u64> {
        let stat = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
        // One that has ended and that nobody has asked for its status builds nothing.
        (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
    }
}

impl Installation {
    /// One of a living process.
    pub fn new(image_class: &str, pid: u32, processes: &dyn Processes) -> Self {
        Self {
            image_class: image_class.to_owned(),
            pid,
            start_time: processes.start_time(pid).unwrap_or(0),
            boot_id: processes.boot_id(),
        }
    }

    /// Whether its process still is that process.
    pub fn status(&self, processes: &dyn Processes) -> Status {
        let rebooted = !self.boot_id.is_empty() && self.boot_id != processes.boot_id();
        let same = match processes.start_time(self.pid) {
            Some(start_time) => self.start_time == 0 || self.start_time == start_time,
            None => false,
        };
        match same && !rebooted {
            true => Status::InCreation { pid: self.pid },
            false => Status::Corrupted,
        }
    }
}

/// All builds under way, by the names of their images.
pub type Table = BTreeMap<String, Installation>;

/// The file, which several programs write.
#[derive(Clone, Debug)]
pub struct Installations {
    state: PathBuf,
}

impl Installations {
    /// That of a lab's `state/`.
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// What it says; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn read(&self) -> Result<Table, ImageError> {
        let file = self.file();
        match host::read_to_string(&file) {
            Ok(text) if text.trim().is_empty() => Ok(Table::new()),
            Ok(text) => serde_saphyr::from_str(&text)
                .map_err(|error| ImageError::Data { file, message: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Table::new()),
            Err(source) => Err(ImageError::Read { file, source }),
        }
    }

    /// Changes it while nobody else does, if `change` succeeds.
    ///
    /// # Errors
    /// Those of `change`, or if it cannot be read or written; it is then as before.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Table) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        host::create_dir_all(&self.state).map_err(ImageError::write(&self.state))?;
        // The table itself is replaced at each change, so another file has to be the lock.
        let lock = self.state.join(LOCK_FILE);
        let held = host::create(&lock).and_then(|file| file.lock().map(|()| file));
        let _held = held.map_err(ImageError::write(&lock))?;
        let mut table = self.read()?;
        let before = table.clone();
        let result = change(&mut table)?;
        if table != before {
            self.write(&table)?;
        }
        Ok(result)
    }

    fn write(&self, table: &Table) -> Result<(), ImageError> {
        let file = self.file();
        let text = match table.is_empty() {
            // The original reads an empty file as no builds.
            true => String::new(),
            false => serde_saphyr::to_string(table).map_err(|error| ImageError::Data {
                file: file.clone(),
                message: error.to_string(),
            })?,
        };
        let new = self.state.join(".installations.new");
        host::create(&new)
            .and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()))
            .and_then(|()| host::rename(&new, &file))
            .map_err(ImageError::write(&file))
    }

    fn file(&self) -> PathBuf {
        self.state.join(INSTALLATIONS_FILE)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A machine whose processes are listed, each with its start time.
    struct Machine {
        boot_id: &'static str,
        processes: &'static [(u32, u64)],
    }

    impl Processes for Machine {
        fn boot_id(&self) -> String {
            self.boot_id.to_owned()
        }

        fn start_time(&self, pid: u32) -> Option<u64> {
            self.processes.iter().find(|(it, _)| *it == pid).map(|(_, start_time)| *start_time)
        }
    }

    const BUILDING: Machine = Machine { boot_id: "a", processes: &[(7, 100)] };

    #[test]
    fn a_build_is_under_way_only_as_long_as_its_own_process_lives() {
        let entry = Installation::new("DemoImage", 7, &BUILDING);
        let check = |boot_id, processes, expect| {
            assert_eq!(entry.status(&Machine { boot_id, processes }), expect);
        };
        check("a", &[(7, 100)], Status::InCreation { pid: 7 });
        // Killed; the number given to another; another boot of the machine.
        check("a", &[], Status::Corrupted);
        check("a", &[(7, 101)], Status::Corrupted);
        check("b", &[(7, 100)], Status::Corrupted);
    }

    #[test]
    fn an_entry_of_the_original_has_its_process_number_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = "12:\n  image_class: LivenetImage\n  pid: 7\n";
        fs::write(dir.path().join(INSTALLATIONS_FILE), text).unwrap();
        let table = Installations::new(dir.path()).read().unwrap();
        assert_eq!(table["12"].status(&BUILDING), Status::InCreation { pid: 7 });
    }

    #[test]
    fn this_process_is_alive_and_one_that_ended_is_not() {
        let entry = Installation::new("DemoImage", std::process::id(), &Proc);
        assert_eq!(entry.status(&Proc), Status::InCreation { pid: std::process::id() });
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let entry = Installation::new("DemoImage", child.id(), &Proc);
        child.wait().unwrap();
        assert_eq!(entry.status(&Proc), Status::Corrupted);
    }

    #[test]
    fn changes_of_many_at_once_are_all_there() {
        let dir = tempfile::tempdir().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let installations = Installations::new(dir.path());
                std::thread::spawn(move || {
                    for round in 0..10 {
                        let name = format!("{number}-{round}");
                        installations
                            .change(|table| {
                                table.insert(name, Installation::new("DemoImage", 7, &BUILDING));
                                Ok(())
                            })
                            .unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(Installations::new(dir.path()).read().unwrap().len(), 80);
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let installations = Installations::new(dir.path());
        let result: Result<(), _> = installations.change(|table| {
            table.insert("a".to_owned(), Installation::new("DemoImage", 7, &BUILDING));
            Err(ImageError::Interrupted)
        });
        assert!(result.is_err());
        assert!(installations.read().unwrap().is_empty());
    }
}
