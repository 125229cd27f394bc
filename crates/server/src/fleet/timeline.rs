//! The timeline of a boot: which stage a node came to, and when.

use std::collections::VecDeque;

use boot::{Failure, Stage};
use serde::{Deserialize, Deserializer, Serialize};

use super::node::UnixMs;

/// Steps kept of a boot: it has a dozen stages, and one that fails over and over shows how it began
/// and how it ends.
pub(crate) const STEPS_MAX: usize = 24;

/// Of a boot's steps those that are never given up, so that what came first stays: the stages before
/// a download.
const STEPS_FIRST: usize = 8;

/// The word of a stage, without what is known while it lasts. An old word that this program does not
/// know is `unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StageWord(&'static str);

const WORDS: &[&str] = &[
    "discovered",
    "offered",
    "bootloader",
    "agent",
    "link",
    "lease",
    "manifest",
    "menu",
    "downloading",
    "verified",
    "loading",
    "booted",
    "failed",
];

impl StageWord {
    pub(crate) const fn as_str(self) -> &'static str {
        self.0
    }
}

impl From<&Stage> for StageWord {
    fn from(stage: &Stage) -> Self {
        Self(stage.name())
    }
}

impl From<String> for StageWord {
    fn from(text: String) -> Self {
        Self(WORDS.iter().find(|word| **word == text).copied().unwrap_or("unknown"))
    }
}

impl<'de> Deserialize<'de> for StageWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// A node came to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    #[serde(rename = "unix_ms")]
    pub(crate) at: UnixMs,
    pub(crate) stage: StageWord,
    /// Why, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
}

/// Takes note of a step; of too many the oldest after the first few give way.
pub(super) fn note(steps: &mut VecDeque<Step>, at: UnixMs, stage: &Stage) {
    if steps.len() >= STEPS_MAX {
        steps.remove(STEPS_FIRST);
    }
    let failure = match stage {
        Stage::Failed { failure, .. } => Some(*failure),
        _ => None,
    };
    steps.push_back(Step { at, stage: stage.into(), failure });
}

/// The failure that a node had last: kept after it has come further, so that a boot that went well in
/// the third attempt shows what the first two ran into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastFailure {
    #[serde(rename = "unix_ms")]
    pub(crate) at: UnixMs,
    pub(crate) failure: Failure,
    /// One printable sentence.
    pub(crate) reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_steps_the_first_and_the_last_are_kept() {
        let mut steps = VecDeque::new();
        for at in 0..1000 {
            note(&mut steps, UnixMs(at), &Stage::Link);
        }
        assert_eq!(steps.len(), STEPS_MAX);
        assert_eq!((steps[0].at, steps[STEPS_MAX - 1].at), (UnixMs(0), UnixMs(999)));
    }

    #[test]
    fn each_stage_has_its_word() {
        let stages = [Stage::Discovered, Stage::Menu, Stage::booted(None)];
        for stage in stages {
            let word = StageWord::from(&stage);
            let text = serde_json::to_string(&word).unwrap();
            assert_eq!(serde_json::from_str::<StageWord>(&text).unwrap(), word);
            assert_eq!(word.as_str(), stage.name());
        }
        assert_eq!(StageWord::from("teleport".to_owned()).as_str(), "unknown");
    }
}
