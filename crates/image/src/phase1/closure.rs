//! The modules of a phase 1: those that are wanted, those that they need, and the tables by which
//! the agent and busybox find them, in the form of depmod (modules.dep(5)), restricted to these.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use super::error::Phase1Error;
use super::library::{Library, Module, Shelf};
use super::name::ModuleName;
use boot::kernel::KernelVersion;

/// The most modules of a phase 1. All of Linux 6.12 as Debian builds it are 4,300.
pub const MODULES_MAX: usize = 8192;

/// The most letters by which a name may differ from the one that was meant.
const TYPING_ERRORS_MAX: usize = 3;

/// Modules with all that they need.
#[derive(Clone, Debug, Default)]
pub struct Closure {
    /// By name.
    pub modules: BTreeMap<ModuleName, Module>,
    /// Those of the usual drivers that this kernel does not have.
    pub absent: Vec<String>,
}

impl Closure {
    /// Takes `usual` as far as they are there, and `required` or nothing. Names may be aliases of
    /// services, such as `crc32c`; what is part of the kernel needs no module.
    ///
    /// # Errors
    /// If a required module is not there, or a needed one, or one cannot be read or is for another
    /// kernel.
    pub fn gather(
        library: &mut Library,
        shelf: &Shelf,
        version: &KernelVersion,
        usual: &[&str],
        required: &[String],
    ) -> Result<Self, Phase1Error> {
        let mut closure = Self::default();
        let mut queue = VecDeque::new();
        for name in usual {
            match resolve(library, shelf, name)? {
                Some(found) => queue.extend(found),
                None => closure.absent.push((*name).to_owned()),
            }
        }
        for name in required {
            let found =
                resolve(library, shelf, name)?.ok_or_else(|| Phase1Error::NoSuchModule {
                    name: name.clone(),
                    version: version.clone(),
                    alike: alike(library, name),
                })?;
            queue.extend(found);
        }
        while let Some(name) = queue.pop_front() {
            if closure.modules.contains_key(&name) {
                continue;
            }
            if closure.modules.len() == MODULES_MAX {
                return Err(Phase1Error::TooManyModules);
            }
            let module = library.read(shelf, &name)?;
            check_kernel(&module, version)?;
            for needs in &module.info.depends {
                if library.contains(needs) {
                    queue.push_back(needs.clone());
                } else if !library.is_builtin(needs) {
                    let (needs, version) = (needs.clone(), version.clone());
                    return Err(Phase1Error::Incomplete { module: name, needs, version });
                }
            }
            for soft in module.info.soft_pre.iter().chain(&module.info.soft_post) {
                queue.extend(resolve(library, shelf, soft)?.unwrap_or_default());
            }
            closure.modules.insert(name, module);
        }
        Ok(closure)
    }

    /// modules.dep: `PATH: PATH…`, what a module needs, to be loaded from the last to the first.
    pub fn dep_text(&self) -> String {
        let mut text = String::new();
        for (name, module) in &self.modules {
            let needs = self.needs(name);
            let paths = needs.iter().map(|need| self.modules[*need].path.as_str());
            let line: Vec<&str> = paths.collect();
            let space = if line.is_empty() { "" } else { " " };
            let _ = writeln!(text, "{}:{space}{}", module.path, line.join(" "));
        }
        text
    }

    /// modules.alias: `alias PATTERN MODULE`.
    pub fn alias_text(&self) -> String {
        let mut text = "# Aliases extracted from modules themselves.\n".to_owned();
        for (name, module) in &self.modules {
            for alias in &module.info.aliases {
                let _ = writeln!(text, "alias {alias} {name}");
            }
        }
        text
    }

    /// modules.softdep: `softdep MODULE pre: MODULE… post: MODULE…`.
    pub fn softdep_text(&self) -> String {
        let mut text = "# Soft dependencies extracted from modules themselves.\n".to_owned();
        for (name, module) in &self.modules {
            let mut line = format!("softdep {name}");
            for (key, list) in [("pre:", &module.info.soft_pre), ("post:", &module.info.soft_post)]
            {
                if !list.is_empty() {
                    let _ = write!(line, " {key} {}", list.join(" "));
                }
            }
            if line.ends_with(name.as_str()) {
                continue;
            }
            let _ = writeln!(text, "{line}");
        }
        text
    }

    /// Everything that a module needs, those last that need nothing themselves. Modules that need
    /// each other, which no kernel has, come in some order.
    fn needs<'a>(&'a self, name: &'a ModuleName) -> Vec<&'a ModuleName> {
        let depends = |name: &ModuleName| {
            self.modules.get(name).map_or(&[] as &'a [ModuleName], |it| &it.info.depends)
        };
        let mut order = vec![];
        let mut seen = BTreeSet::from([name]);
        // Depth first, without recursion: a package may come from anywhere.
        let mut path = vec![(name, depends(name).iter())];
        while let Some((current, rest)) = path.last_mut() {
            match rest.next() {
                Some(need) if self.modules.contains_key(need) => {
                    if seen.insert(need) {
                        path.push((need, depends(need).iter()));
                    }
                }
                Some(_) => {}
                None => {
                    order.push(*current);
                    path.pop();
                }
            }
        }
        // The module itself is the last to be done.
        order.pop();
        order.reverse();
        order
    }
}

/// The modules that a name or alias means: none if it is part of the kernel, `None` if it is nothing.
fn resolve(
    library: &mut Library,
    shelf: &Shelf,
    text: &str,
) -> Result<Option<Vec<ModuleName>>, Phase1Error> {
    if let Ok(name) = text.parse::<ModuleName>() {
        if library.contains(&name) {
            return Ok(Some(vec![name]));
        }
        if library.is_builtin(&name) {
            return Ok(Some(vec![]));
        }
    }
    let offering = library.services(shelf, text)?;
    let there: Vec<_> = offering.into_iter().filter(|name| library.contains(name)).collect();
    Ok((!there.is_empty()).then_some(there))
}

fn check_kernel(module: &Module, version: &KernelVersion) -> Result<(), Phase1Error> {
    match &module.info.kernel {
        Some(built_for) if built_for != version.as_str() => Err(Phase1Error::OtherKernel {
            path: module.path.clone(),
            built_for: built_for.clone(),
            version: version.clone(),
        }),
        _ => Ok(()),
    }
}

fn alike(library: &Library, text: &str) -> Option<ModuleName> {
    let text = text.replace('-', "_");
    let distance = |name: &ModuleName| strsim::damerau_levenshtein(name.as_str(), &text);
    let nearest = library.paths().map(|(name, _)| (distance(name), name)).min()?;
    (nearest.0 <= TYPING_ERRORS_MAX).then(|| nearest.1.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase1::modinfo::ModInfo;
    use proptest::prelude::*;

    fn name(text: &str) -> ModuleName {
        text.parse().unwrap()
    }

    fn module(text: &str, depends: &[&str]) -> (ModuleName, Module) {
        let info = ModInfo {
            depends: depends.iter().map(|text| name(text)).collect(),
            ..ModInfo::default()
        };
        (name(text), Module { path: format!("kernel/{text}.ko"), bytes: vec![], info })
    }

    fn closure(modules: &[(&str, &[&str])]) -> Closure {
        let modules = modules.iter().map(|(name, depends)| module(name, depends)).collect();
        Closure { modules, absent: vec![] }
    }

    #[test]
    fn what_is_needed_first_stands_last() {
        let closure = closure(&[
            ("igb", &["dca", "ptp", "i2c_algo_bit"]),
            ("dca", &[]),
            ("i2c_algo_bit", &[]),
            ("pps_core", &[]),
            ("ptp", &["pps_core"]),
        ]);
        assert_eq!(
            closure.dep_text(),
            "kernel/dca.ko:\n\
             kernel/i2c_algo_bit.ko:\n\
             kernel/igb.ko: kernel/i2c_algo_bit.ko kernel/ptp.ko kernel/pps_core.ko kernel/dca.ko\n\
             kernel/pps_core.ko:\n\
             kernel/ptp.ko: kernel/pps_core.ko\n"
        );
    }

    #[test]
    fn what_is_part_of_the_kernel_is_not_listed() {
        assert_eq!(closure(&[("a", &["builtin"])]).dep_text(), "kernel/a.ko:\n");
    }

    #[test]
    fn modules_that_need_each_other_end() {
        let closure = closure(&[("a", &["b"]), ("b", &["a"])]);
        assert_eq!(closure.dep_text(), "kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/a.ko\n");
    }

    #[test]
    fn a_long_line_of_needs_takes_no_stack() {
        let names: Vec<String> = (0..5000).map(|index| format!("m{index}")).collect();
        let mut modules = BTreeMap::from([module(&names[0], &[])]);
        modules.extend(names.windows(2).map(|pair| module(&pair[1], &[&pair[0]])));
        let closure = Closure { modules, absent: vec![] };
        assert_eq!(closure.needs(&name("m4999")).len(), 4999);
    }

    #[test]
    fn aliases_and_soft_needs_are_listed() {
        let (r8169, mut module) = module("r8169", &[]);
        module.info.aliases = vec!["pci:v000010ECd00008168sv*".to_owned()];
        module.info.soft_pre = vec!["realtek".to_owned()];
        module.info.soft_post = vec!["x".to_owned(), "y".to_owned()];
        let closure = Closure { modules: BTreeMap::from([(r8169, module)]), absent: vec![] };
        assert_eq!(
            closure.alias_text().lines().last(),
            Some("alias pci:v000010ECd00008168sv* r8169")
        );
        assert_eq!(
            closure.softdep_text().lines().last(),
            Some("softdep r8169 pre: realtek post: x y")
        );
    }

    proptest! {
        #[test]
        fn loading_from_the_last_finds_everything_loaded(
            depends in proptest::collection::vec(proptest::collection::vec(0..30_usize, 0..5), 30)
        ) {
            // Only on those with a smaller number, so that there is an order.
            let names: Vec<String> = (0..30).map(|index| format!("m{index}")).collect();
            let modules = depends.iter().enumerate().map(|(index, needs)| {
                let needs: Vec<&str> =
                    needs.iter().filter(|need| **need < index).map(|need| names[*need].as_str()).collect();
                module(&names[index], &needs)
            });
            let closure = Closure { modules: modules.collect(), absent: vec![] };
            for name in closure.modules.keys() {
                let mut loaded = BTreeSet::new();
                for next in closure.needs(name).into_iter().rev().chain([name]) {
                    let needs = &closure.modules[next].info.depends;
                    prop_assert!(needs.iter().all(|need| loaded.contains(need)), "{next} of {name}");
                    prop_assert!(loaded.insert(next.clone()), "{next} of {name} twice");
                }
            }
        }
    }
}
