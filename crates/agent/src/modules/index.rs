//! What depmod(8) has written beside the modules: which there are and need which (modules.dep), which
//! device wants which (modules.alias), what else is to be loaded with one (modules.softdep).
//!
//! Names are written with `_`, whatever a file has: the kernel makes no difference between `_` and
//! `-`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::glob;

/// A module's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(String);

impl Name {
    /// The name in either spelling.
    pub(super) fn new(name: &str) -> Self {
        Self(name.replace('-', "_"))
    }

    /// The name of the module in a file.
    fn of_file(path: &str) -> Option<Self> {
        let file = path.rsplit('/').next()?;
        let (stem, _) = file.split_once(".ko")?;
        (!stem.is_empty()).then(|| Self::new(stem))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A line of modules.dep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Module {
    path: PathBuf,
    /// All that it needs, also by way of others.
    needs: Vec<Name>,
}

/// A line of modules.softdep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

/// A module to be loaded, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    /// Whether the module that was wanted cannot do without it.
    pub(super) required: bool,
}

/// The modules of a kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    modules: BTreeMap<Name, Module>,
    /// Patterns and modules, by what stands before the first colon or star: the kind of bus. A
    /// distribution's kernel has 20,000, and a device is compared with its own kind only.
    aliases: BTreeMap<String, Vec<(String, Name)>>,
    soft: BTreeMap<Name, Soft>,
}

impl Index {
    /// Reads the files in `dir`, which is `/lib/modules/RELEASE`. Only modules.dep has to be there.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let optional = |name: &str| match fs::read_to_string(dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other,
        };
        let modules = fs::read_to_string(dir.join("modules.dep"))?;
        Ok(Self {
            modules: read_modules(dir, &modules),
            aliases: read_aliases(&optional("modules.alias")?),
            soft: read_soft(&optional("modules.softdep")?),
        })
    }

    pub(super) fn module_count(&self) -> usize {
        self.modules.len()
    }

    /// The modules that a device or another alias asks for, which are here.
    pub(super) fn wanted_by(&self, alias: &str) -> Vec<Name> {
        let mut names = vec![];
        // A pattern that begins with a star has no kind; dmi patterns have a star in theirs.
        for kind in ["", kind(alias)] {
            for (pattern, name) in self.aliases.get(kind).into_iter().flatten() {
                if glob::matches(pattern, alias)
                    && self.modules.contains_key(name)
                    && !names.contains(name)
                {
                    names.push(name.clone());
                }
            }
        }
        names
    }

    /// What is to be loaded for a module, in order, itself included. Empty if it is not here.
    pub(super) fn steps(&self, name: &Name) -> Vec<Step> {
        let mut steps = vec![];
        self.add(name, true, &mut vec![], &mut steps);
        steps
    }

    /// `open` are the modules whose soft dependencies are being added: depmod does not keep those
    /// from going round in circles.
    fn add(&self, name: &Name, required: bool, open: &mut Vec<Name>, steps: &mut Vec<Step>) {
        let Some(module) = self.modules.get(name) else {
            return;
        };
        if open.contains(name) {
            return;
        }
        open.push(name.clone());
        let soft = self.soft.get(name);
        for alias in soft.into_iter().flat_map(|soft| &soft.before) {
            self.add_alias(alias, open, steps);
        }
        for need in &module.needs {
            self.add(need, required, open, steps);
        }
        if let Some(step) = steps.iter_mut().find(|step| step.name == *name) {
            step.required |= required;
        } else {
            steps.push(Step { name: name.clone(), path: module.path.clone(), required });
        }
        for alias in soft.into_iter().flat_map(|soft| &soft.after) {
            self.add_alias(alias, open, steps);
        }
        open.pop();
    }

    /// A soft dependency is a module's name or an alias.
    fn add_alias(&self, alias: &str, open: &mut Vec<Name>, steps: &mut Vec<Step>) {
        let name = Name::new(alias);
        if self.modules.contains_key(&name) {
            return self.add(&name, false, open, steps);
        }
        for name in self.wanted_by(alias) {
            self.add(&name, false, open, steps);
        }
    }
}

/// `kernel/net/foo.ko.xz: kernel/lib/bar.ko.xz kernel/lib/baz.ko.xz`
fn read_modules(dir: &Path, text: &str) -> BTreeMap<Name, Module> {
    let mut modules = BTreeMap::new();
    for line in text.lines() {
        let Some((path, needs)) = line.split_once(':') else {
            continue;
        };
        if let Some(name) = Name::of_file(path) {
            let needs = needs.split_whitespace().filter_map(Name::of_file).collect();
            modules.insert(name, Module { path: dir.join(path), needs });
        }
    }
    modules
}

/// `alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000`
fn read_aliases(text: &str) -> BTreeMap<String, Vec<(String, Name)>> {
    let mut aliases: BTreeMap<String, Vec<(String, Name)>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["alias", pattern, name] = words[..] {
            let of_kind = aliases.entry(kind(pattern).to_owned()).or_default();
            of_kind.push((pattern.to_owned(), Name::new(name)));
        }
    }
    aliases
}

/// `softdep NAME pre: a b post: c`
fn read_soft(text: &str) -> BTreeMap<Name, Soft> {
    let mut all: BTreeMap<Name, Soft> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let soft = all.entry(Name::new(name)).or_default();
        let mut after = None;
        for word in words {
            match (word, after) {
                ("pre:", _) => after = Some(false),
                ("post:", _) => after = Some(true),
                (_, Some(false)) => soft.before.push(word.to_owned()),
                (_, Some(true)) => soft.after.push(word.to_owned()),
                (_, None) => {}
            }
        }
    }
    all
}

/// What comes before the first colon, if nothing in it is a pattern.
fn kind(alias: &str) -> &str {
    match alias.find([':', '*', '?', '[', '\\']) {
        Some(at) if alias.as_bytes()[at] == b':' => &alias[..at],
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/net/e1000.ko:
kernel/drivers/net/virtio_net.ko.xz: kernel/net/net-failover.ko.xz kernel/net/failover.ko.xz
kernel/net/net-failover.ko.xz: kernel/net/failover.ko.xz
kernel/net/failover.ko.xz:
kernel/fs/squashfs.ko:
kernel/crypto/crc32c-intel.ko:
kernel/crypto/crc32c_generic.ko:
kernel/a.ko:
kernel/b.ko:
";
    const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000
alias crypto-crc32c crc32c_generic
alias crypto-crc32c crc32c_intel
alias fs-squashfs squashfs
alias dmi*:svnQEMU* b
alias pci:v00008086d0000100Esv*sd*bc*sc*i* not_here
";
    const SOFT: &str = "\
softdep squashfs pre: crypto-crc32c post: a
softdep a pre: b
softdep b pre: a
";

    pub(super) fn index() -> Index {
        Index {
            modules: read_modules(Path::new("/m"), DEP),
            aliases: read_aliases(ALIAS),
            soft: read_soft(SOFT),
        }
    }

    fn wanted(alias: &str) -> Vec<String> {
        index().wanted_by(alias).into_iter().map(|name| name.0).collect()
    }

    fn steps(name: &str) -> Vec<String> {
        index().steps(&Name::new(name)).into_iter().map(|step| step.name.0).collect()
    }

    #[test]
    fn devices_want_the_modules_that_are_here() {
        assert_eq!(wanted("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(wanted("pci:v00008086d0000100Esv1sd1bc02sc00i00"), ["e1000"]);
        assert_eq!(wanted("pci:v00008086d0000100Fsv1sd1bc02sc00i00"), [""; 0]);
        assert_eq!(wanted("dmi:bvnSeaBIOS:svnQEMU:"), ["b"]);
    }

    #[test]
    fn what_is_needed_is_loaded_first() {
        assert_eq!(steps("virtio-net"), ["failover", "net_failover", "virtio_net"]);
        let index = index();
        let steps = index.steps(&Name::new("virtio_net"));
        assert_eq!(steps[1].path, Path::new("/m/kernel/net/net-failover.ko.xz"));
        assert!(steps.iter().all(|step| step.required));
    }

    #[test]
    fn soft_dependencies_may_be_aliases_and_are_not_required() {
        assert_eq!(steps("squashfs"), ["crc32c_generic", "crc32c_intel", "squashfs", "b", "a"]);
        let steps = index().steps(&Name::new("squashfs"));
        let required: Vec<bool> = steps.iter().map(|step| step.required).collect();
        assert_eq!(required, [false, false, true, false, false]);
    }

    #[test]
    fn soft_dependencies_that_go_round_in_circles_end() {
        assert_eq!(steps("a"), ["b", "a"]);
        assert_eq!(steps("b"), ["a", "b"]);
    }

    #[test]
    fn a_module_that_is_not_here_needs_nothing() {
        assert_eq!(steps("nowhere"), [""; 0]);
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        assert!(read_modules(Path::new("/m"), "no colon\n.ko:\n:\nx: y\n").is_empty());
        assert!(read_aliases("alias\nalias a\nalias a b c\nsymbol:x y\n").is_empty());
        assert!(read_soft("softdep\nsoft x\n").is_empty());
    }
}
