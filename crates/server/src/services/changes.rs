//! What is another after the configuration was read again.

use boot::ImageName;

use crate::lab::publication::Publication;
use crate::lab::publisher::Outcome;
use crate::lab::settings::Settings;

/// What a reload changes, and what it cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) applied: Vec<&'static str>,
    pub(crate) needs_restart: Vec<&'static str>,
    /// Images that follow once they are hashed.
    pub(crate) hashing: Vec<ImageName>,
}

impl Changes {
    pub(super) fn between(before: &Publication, after: &Outcome) -> Self {
        let (old, new) = (&before.settings, &after.publication.settings);
        let (was, is) = (&before.manifest, &after.publication.manifest);
        let mut applied = vec![];
        let mut note = |what, is_same: bool| {
            if !is_same {
                applied.push(what);
            }
        };
        note("menu", old.menu == new.menu);
        let seed_time = |it: &Settings| (it.seed_time, it.seed_auto);
        note("seed_time", seed_time(old) == seed_time(new));
        note("keyboard", was.keymap == is.keymap);
        let has_same_nodes = (&old.nodes, &old.groups, &old.ignored, old.unknown)
            == (&new.nodes, &new.groups, &new.ignored, new.unknown);
        note("nodes", has_same_nodes && was.assignments == is.assignments);
        note("images", was.images == is.images);
        note("dashboard", old.dashboard == new.dashboard);
        note("power", old.power == new.power);
        note("history", old.history == new.history);
        let hashing = after.publication.hashing.clone();
        Self { applied, needs_restart: after.waits.clone(), hashing }
    }

    /// In a sentence.
    pub(crate) fn text(&self) -> String {
        let mut text = match self.applied.as_slice() {
            [] => "nothing changed".to_owned(),
            applied => format!("changed {}", applied.join(", ")),
        };
        if !self.needs_restart.is_empty() {
            text = format!("{text}; {} only with a restart", self.needs_restart.join(", "));
        }
        if !self.hashing.is_empty() {
            let names: Vec<&str> = self.hashing.iter().map(ImageName::as_str).collect();
            text = format!("{text}; {} once hashed, see `boottorrent status`", names.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::services::tests::{prepared, settings};

    #[test]
    fn what_only_this_server_needs_to_know_is_named_too() {
        let temp = tempfile::tempdir().unwrap();
        let before = prepared(settings(temp.path())).publication;
        let check = |change: fn(&mut Settings), expect: &[&str]| {
            let mut after = Publication::clone(&before);
            change(&mut after.settings);
            let after = Outcome { publication: Arc::new(after), is_new: true, waits: vec![] };
            assert_eq!(Changes::between(&before, &after).applied, expect);
        };
        check(|_| {}, &[]);
        check(|it| it.dashboard.names.push("boot.example".to_owned()), &["dashboard"]);
        check(|it| it.history += std::time::Duration::from_secs(1), &["history"]);
    }

    #[test]
    fn what_is_still_hashed_is_said() {
        let changes = Changes {
            applied: vec!["nodes"],
            needs_restart: vec!["http"],
            hashing: vec!["huge".parse().unwrap()],
        };
        assert_eq!(
            changes.text(),
            "changed nodes; http only with a restart; huge once hashed, see `boottorrent status`"
        );
    }
}
