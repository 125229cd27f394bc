//! A node as it is shown, and what it takes.

use std::collections::VecDeque;

use boot::report::{Card, Disk, Hardware, Source};
use serde::Serialize;

use super::node::{Entry, NAME_LEN_MAX, Node, PastBoot, Summary};
use super::timeline::Step;
use super::trust::Hearsay;

/// A node, for whoever asks: without what would help to speak in its name.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeShown<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    events: &'a VecDeque<Entry>,
    log: &'a VecDeque<String>,
    steps: &'a VecDeque<Step>,
    past: &'a VecDeque<PastBoot>,
    hardware: &'a Hardware,
    sources: &'a [Source],
    heard: &'a Option<Hearsay>,
}

impl Node {
    /// As everybody may see it.
    pub(crate) fn shown(&self) -> NodeShown<'_> {
        NodeShown {
            summary: &self.summary,
            events: &self.events,
            log: &self.log,
            steps: &self.steps,
            past: &self.past,
            hardware: &self.hardware,
            sources: &self.sources,
            heard: &self.heard,
        }
    }

    /// Bytes that it takes, as far as that differs between nodes: those of its texts and lists.
    pub(super) fn len(&self) -> usize {
        let steps = |steps: &VecDeque<Step>| steps.len() * size_of::<Step>();
        let texts = self.events.iter().map(|entry| entry.text.len() + size_of::<Entry>());
        let lines = self.log.iter().map(|line| line.len() + size_of::<String>());
        let past = self.past.iter().map(|boot| steps(&boot.steps) + size_of::<PastBoot>());
        let parts = self.hardware.disks.len() * (size_of::<Disk>() + 2 * NAME_LEN_MAX)
            + self.hardware.cards.len() * (size_of::<Card>() + 2 * NAME_LEN_MAX)
            + self.sources.len() * size_of::<Source>();
        size_of::<Self>()
            + texts.chain(lines).chain(past).sum::<usize>()
            + steps(&self.steps)
            + parts
    }
}
