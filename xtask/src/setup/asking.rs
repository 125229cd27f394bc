//! What to ask apt for, given what is found and what apt did. Without apt: that is [`super::apt`].
//!
//! apt is free to remove a package that is not named when it brings another, and does: a `qemu-utils`
//! from backports goes when Debian's own `qemu-system-x86` comes. So the first transaction names
//! everything that the command runs, and what has been there stays or makes apt refuse. If it refuses,
//! the second names what is missing alone: the command runs with either version, and who starts it
//! wants that more than the newer of two. A third brings back what the second took away, in the
//! version that goes with the rest. `--allow-downgrades` is in none of them, as it does something only
//! for versions that are named, and which version fits is apt's to know.

use std::collections::BTreeSet;

use super::Tool;

/// All by name, those that are missing, those that this took away. A fourth would only go round.
const ASKED_MAX: usize = 3;

/// What apt did with a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// What it said of why not.
    Refused(String),
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Everything is there.
    Done,
    /// Have apt install these in one transaction.
    Ask(Vec<&'static str>),
    /// Something is missing and stays so; a text for who has to help.
    GiveUp(String),
}

/// One installation, from the first look to the last.
pub(super) struct Asking {
    /// The packages of the first transaction beside those that are missing.
    present: BTreeSet<&'static str>,
    asked: Vec<Vec<&'static str>>,
    answer: Option<Answer>,
}

impl Asking {
    /// `has_package` says what is installed: a tool that came by another way than its package is
    /// left as it is.
    pub(super) fn new(tools: &[Tool], has_package: impl Fn(&str) -> bool) -> Self {
        let present = packages(tools).into_iter().filter(|package| has_package(package)).collect();
        Self { present, asked: vec![], answer: None }
    }

    /// Decides after a look at what is missing.
    pub(super) fn next(&mut self, missing: &[Tool]) -> Next {
        let mut names = packages(missing);
        if names.is_empty() {
            return Next::Done;
        }
        if self.asked.is_empty() {
            names.extend(&self.present);
        }
        let names: Vec<_> = names.into_iter().collect();
        // apt answers the same question in the same way.
        if self.asked.len() == ASKED_MAX || self.asked.last() == Some(&names) {
            return Next::GiveUp(self.reason(missing));
        }
        self.asked.push(names.clone());
        Next::Ask(names)
    }

    /// Takes apt's answer to the last question.
    pub(super) fn answered(&mut self, answer: Answer) {
        self.answer = Some(answer);
    }

    fn reason(&self, missing: &[Tool]) -> String {
        let files: Vec<_> =
            missing.iter().map(|tool| format!("{} (of {})", tool.file, tool.package)).collect();
        let files = files.join(", ");
        let command = format!("apt-get install {}", join(&packages(missing)));
        match &self.answer {
            Some(Answer::Refused(said)) => format!(
                "apt does not install what is missing: {files}\n{said}\nsee what `{command}` needs, \
                 and try again"
            ),
            _ => format!(
                "apt installed all packages, but these files are not there: {files}\nlook at what \
                 `{command}` says: packages of this system may take each other away, or have their \
                 files elsewhere"
            ),
        }
    }
}

/// Their packages, each once.
pub(super) fn packages(tools: &[Tool]) -> BTreeSet<&'static str> {
    tools.iter().map(|tool| tool.package).collect()
}

/// As a command line has them.
pub(super) fn join(packages: &BTreeSet<&'static str>) -> String {
    packages.iter().copied().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: Tool = Tool { file: "qemu", package: "qemu-system" };
    const IMG: Tool = Tool { file: "qemu-img", package: "qemu-utils" };
    const IP: Tool = Tool { file: "ip", package: "iproute" };
    const TOOLS: &[Tool] = &[QEMU, IMG, IP];

    fn asking() -> Asking {
        Asking::new(TOOLS, |package| package == "qemu-utils")
    }

    fn refused(said: &str) -> Answer {
        Answer::Refused(said.to_owned())
    }

    #[test]
    fn nothing_is_asked_when_all_is_there() {
        assert_eq!(asking().next(&[]), Next::Done);
    }

    #[test]
    fn the_first_transaction_names_what_is_there_beside_what_is_missing() {
        assert_eq!(asking().next(&[QEMU]), Next::Ask(vec!["qemu-system", "qemu-utils"]));
    }

    #[test]
    fn a_tool_that_came_without_its_package_is_left_as_it_is() {
        let Next::Ask(names) = asking().next(&[QEMU]) else { panic!("nothing is asked") };
        assert!(!names.contains(&"iproute"), "{names:?}");
    }

    #[test]
    fn a_refusal_is_followed_by_what_is_missing_alone_and_then_by_what_that_took() {
        let mut asking = asking();
        asking.next(&[QEMU]);
        asking.answered(refused("qemu-utils breaks qemu-system"));
        assert_eq!(asking.next(&[QEMU]), Next::Ask(vec!["qemu-system"]));
        asking.answered(Answer::Done);
        assert_eq!(asking.next(&[IMG]), Next::Ask(vec!["qemu-utils"]));
        asking.answered(Answer::Done);
        assert_eq!(asking.next(&[]), Next::Done);
    }

    #[test]
    fn packages_that_take_each_other_away_end() {
        let mut asking = asking();
        asking.next(&[QEMU]);
        for missing in [IMG, QEMU] {
            asking.answered(Answer::Done);
            assert_eq!(asking.next(&[missing]), Next::Ask(vec![missing.package]));
        }
        asking.answered(Answer::Done);
        let Next::GiveUp(reason) = asking.next(&[IMG]) else { panic!("it goes round") };
        assert!(reason.contains("qemu-img (of qemu-utils)"), "{reason}");
    }

    #[test]
    fn what_apt_refuses_is_not_asked_again_and_its_reason_is_told() {
        let mut asking = Asking::new(TOOLS, |_| false);
        asking.next(TOOLS);
        asking.answered(refused("E: Unable to locate package qemu-system"));
        let Next::GiveUp(reason) = asking.next(TOOLS) else { panic!("it asks again") };
        assert!(reason.contains("Unable to locate package qemu-system"), "{reason}");
        assert!(reason.contains("`apt-get install iproute qemu-system qemu-utils`"), "{reason}");
    }
}
