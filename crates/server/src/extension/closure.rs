//! A tree of programs with all that they are linked to, each file where the program looks for it.
//!
//! What a program needs is asked of the dynamic linker itself (ldd(1)), so it is run on programs of this
//! machine alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

/// Folders that are links into `/usr` on merged systems, which all of Debian's are since 12.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// The most bytes of a file that is taken along: nothing that a program reads is longer, so something
/// else was named.
const FILE_LEN_MAX: u64 = 256 << 20;

/// A tree that grows.
pub(super) struct Closure<'a> {
    tree: &'a Path,
    files: BTreeSet<PathBuf>,
}

impl<'a> Closure<'a> {
    /// In the folder `tree`.
    pub(super) fn new(tree: &'a Path) -> anyhow::Result<Self> {
        for name in MERGED {
            fs::create_dir_all(tree.join("usr").join(name))?;
            std::os::unix::fs::symlink(format!("usr/{name}"), tree.join(name))?;
        }
        Ok(Self { tree, files: BTreeSet::new() })
    }

    /// A program or library, and all libraries that it is linked to.
    pub(super) fn add_program(&mut self, path: &Path) -> anyhow::Result<()> {
        ensure!(path.is_absolute(), "{}: name the program by its whole path", path.display());
        self.add_file(path)?;
        let out = Command::new("ldd")
            .arg(path)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .context("running ldd")?;
        let text = String::from_utf8_lossy(&out.stdout);
        // A static program, or a script, has none.
        for library in libraries(&text).with_context(|| path.display().to_string())? {
            self.add_file(&library)?;
        }
        Ok(())
    }

    /// A file or folder that programs read; `leaves_out` tells by its name what is not taken along.
    pub(super) fn add_data(
        &mut self,
        path: &Path,
        leaves_out: &dyn Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        ensure!(path.is_absolute(), "{}: name it by its whole path", path.display());
        if !path.is_dir() {
            return self.add_file(path);
        }
        let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            // A link of which the end is not installed is nobody's data.
            if leaves_out(&entry.file_name().to_string_lossy()) || !entry.path().exists() {
                continue;
            }
            self.add_data(&entry.path(), leaves_out)?;
        }
        Ok(())
    }

    /// How many files there are.
    pub(super) fn file_count(&self) -> usize {
        self.files.len()
    }

    /// A file with what is in it, where it is looked for; links are followed.
    fn add_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let within = merged(path)?;
        if !self.files.insert(within.clone()) {
            return Ok(());
        }
        let read = || path.display().to_string();
        let metadata = fs::metadata(path).with_context(read)?;
        ensure!(metadata.is_file(), "{} is no file", path.display());
        ensure!(metadata.len() <= FILE_LEN_MAX, "{} is too long for an extension", path.display());
        let to = self.tree.join(within);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(path, &to).with_context(read)?;
        Ok(())
    }
}

/// Where a file is in the tree: below `usr` if its folder is a link to there.
fn merged(path: &Path) -> anyhow::Result<PathBuf> {
    let mut parts = vec![];
    for part in path.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(name) => parts.push(name),
            _ => bail!("{}: write the path without `.` or `..`", path.display()),
        }
    }
    let is_merged = parts.first().is_some_and(|first| MERGED.iter().any(|name| *first == *name));
    let usr = is_merged.then_some("usr".as_ref());
    Ok(usr.into_iter().chain(parts).collect())
}

/// The paths in what ldd prints.
fn libraries(text: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = vec![];
    for line in text.lines().map(str::trim) {
        let found = match line.split_once(" => ") {
            Some((name, "not found")) => bail!("it needs {name}, which is not installed"),
            Some((_, found)) => found,
            None => line,
        };
        let path = found.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_answer_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007f7f783d8000)\n\
                    \tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f7f77100000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f7f783da000)\n";
        let found = libraries(text).unwrap();
        let expect = ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expect.map(PathBuf::from));
        assert_eq!(libraries("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
        let error = libraries("\tliba.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("liba.so.1"), "{error}");
    }

    #[test]
    fn a_file_is_where_merged_systems_have_it() {
        let check = |path: &str, expect: &str| {
            assert_eq!(merged(Path::new(path)).unwrap(), Path::new(expect));
        };
        check("/lib/x86_64-linux-gnu/libz.so.1", "usr/lib/x86_64-linux-gnu/libz.so.1");
        check("/usr/bin/env", "usr/bin/env");
        check("/opt/lib/a", "opt/lib/a");
        assert!(merged(Path::new("/usr/../etc/shadow")).is_err());
    }

    #[test]
    fn a_program_comes_with_what_it_is_linked_to() {
        let tree = tempfile::tempdir().unwrap();
        let mut closure = Closure::new(tree.path()).unwrap();
        closure.add_program(Path::new("/usr/bin/env")).unwrap();
        let count = closure.file_count();
        closure.add_program(Path::new("/usr/bin/env")).unwrap();
        assert_eq!(closure.file_count(), count);
        assert!(tree.path().join("usr/bin/env").is_file());
        // By the name by which the program asks for it.
        assert!(tree.path().join("lib64/ld-linux-x86-64.so.2").is_file());
        assert!(count >= 3, "{count}");
        assert!(closure.add_program(Path::new("env")).is_err());
    }

    #[test]
    fn data_is_taken_along_but_for_what_is_left_out() {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("maps")).unwrap();
        for name in ["a", "b.dtb", "maps/c"] {
            fs::write(from.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("nowhere", from.path().join("broken")).unwrap();
        let tree = tempfile::tempdir().unwrap();
        let mut closure = Closure::new(tree.path()).unwrap();
        closure.add_data(from.path(), &|name| name.ends_with(".dtb")).unwrap();
        assert_eq!(closure.file_count(), 2);
    }
}
