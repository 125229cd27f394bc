//! Damaged files are put aside: never overwritten, never removed, since somebody may read out of them what
//! this program could not.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use time::OffsetDateTime;

use super::{FOLDER, degraded};

/// What is between the name and the date of a file that was put aside.
const DAMAGED: &str = ".damaged-";

/// Files that SQLite keeps beside a database; with their suffix they belong to it.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// How often another name is tried if one is taken: as often as one file is damaged within a second, and
/// more.
const NAMES_MAX: u32 = 100;

/// Puts aside what cannot be a database, or a part of one, such as a folder of that name.
pub(super) fn clear_the_place(path: &Path) {
    if is_in_the_way(path) {
        put(path);
    }
    for suffix in BESIDE {
        let beside = with(path, suffix);
        if is_in_the_way(&beside) {
            put(&beside);
        }
    }
}

fn is_in_the_way(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// Puts a file aside, with what SQLite keeps beside it; whether its place is free now.
pub(super) fn put(path: &Path) -> bool {
    let date = utc(SystemTime::now());
    for number in 1..=NAMES_MAX {
        let mut name = OsString::from(path);
        name.push(DAMAGED);
        name.push(&date);
        if number > 1 {
            name.push(format!(".{number}"));
        }
        let aside = PathBuf::from(name);
        match rename(path, &aside) {
            Ok(()) => {
                for suffix in BESIDE {
                    // Usually there is none. The database in its new place is read together with it.
                    let _ = rename(&with(path, suffix), &with(&aside, suffix));
                }
                say(path, &aside);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                tracing::error!(
                    target: "LAB",
                    "{} is damaged and cannot be put aside: {error}",
                    path.display()
                );
                return false;
            }
        }
    }
    false
}

fn say(path: &Path, aside: &Path) {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = format!(
        "{} was damaged: it is kept as {}, and a new one was begun",
        name(path),
        name(aside)
    );
    tracing::error!(target: "LAB", "{text}");
    if let Some(lab) = path.parent().and_then(Path::parent) {
        degraded::notes(lab, &name(path), &text);
    }
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The files of the lab in `lab` that were put aside, by name.
pub(crate) fn put_aside_files(lab: &Path) -> Vec<String> {
    let entries = fs::read_dir(lab.join(FOLDER)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_one = |name: &String| {
        name.contains(DAMAGED) && !BESIDE.iter().any(|suffix| name.ends_with(suffix))
    };
    let mut names: Vec<String> = names.filter(is_one).collect();
    names.sort();
    names
}

/// `time` as in ISO 8601, without what a file's name should not have: 20261201T005216Z.
fn utc(time: SystemTime) -> String {
    let (date, time) = (OffsetDateTime::from(time).date(), OffsetDateTime::from(time).time());
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second) = time.as_hms();
    format!("{year:04}{:02}{day:02}T{hour:02}{minute:02}{second:02}Z", u8::from(month))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |unix_s, expect: &str| {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(unix_s)), expect);
        };
        check(0, "19700101T000000Z");
        check(951_782_400, "20000229T000000Z");
        check(1_709_251_199, "20240229T235959Z");
        check(1_735_689_599, "20241231T235959Z");
        check(4_107_542_400, "21000301T000000Z");
    }

    #[test]
    fn nothing_that_was_put_aside_is_overwritten() {
        let lab = tempfile::tempdir().unwrap();
        let path = lab.path().join(FOLDER).join("leases.db");
        fs::create_dir(lab.path().join(FOLDER)).unwrap();
        for text in ["one", "two", "three"] {
            fs::write(&path, text).unwrap();
            fs::write(with(&path, "-wal"), text).unwrap();
            assert!(put(&path));
            assert!(!path.exists() && !with(&path, "-wal").exists());
        }
        let names = put_aside_files(lab.path());
        let mut texts: Vec<String> = names
            .iter()
            .map(|name| {
                let path = lab.path().join(FOLDER).join(name);
                let [one, wal] =
                    [&path, &with(&path, "-wal")].map(|p| fs::read_to_string(p).unwrap());
                assert_eq!(one, wal);
                one
            })
            .collect();
        texts.sort();
        assert_eq!(texts, ["one", "three", "two"]);
    }
}
