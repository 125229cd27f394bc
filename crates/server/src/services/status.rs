//! The status of a running server, as `boottorrent status` and the API show it.

use std::path::PathBuf;

use boot::ImageName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fleet::{Summary, UnixMs};

/// All of it but the nodes one by one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// This program's.
    pub(crate) version: String,
    pub(crate) lab: PathBuf,
    pub(crate) pid: u32,
    #[serde(rename = "started_unix_ms")]
    pub(crate) started: UnixMs,
    pub(crate) interface: String,
    pub(crate) address: String,
    /// The manifest's.
    pub(crate) manifest_serial: u64,
    pub(crate) images: Vec<ImageStatus>,
    /// Images that follow, in this version, once they are hashed.
    #[serde(default)]
    pub(crate) hashing: Vec<HashingStatus>,
    /// A sentence for each thing that does not work as it should.
    #[serde(default)]
    pub(crate) degraded: Vec<String>,
    pub(crate) services: Vec<ServiceStatus>,
    pub(crate) nodes: NodeCounts,
}

/// An image on offer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageStatus {
    pub(crate) name: ImageName,
    pub(crate) title: String,
    pub(crate) len_bytes: u64,
    pub(crate) infohash: String,
    /// What a node boots when nobody chooses.
    pub(crate) is_default: bool,
}

/// How far an image is hashed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HashingStatus {
    pub(crate) name: ImageName,
    pub(crate) done_bytes: u64,
    /// 0 before it has begun.
    pub(crate) total_bytes: u64,
}

impl HashingStatus {
    /// How far it is, in a word or two.
    pub(crate) fn percent(&self) -> String {
        match (u128::from(self.done_bytes) * 100).checked_div(u128::from(self.total_bytes)) {
            Some(percent) => format!("{percent} %"),
            None => "waits for its turn".to_owned(),
        }
    }
}

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceStatus {
    /// `dhcp`, `tftp`, `http`, `tracker`, `seeder`.
    pub(crate) name: String,
    /// `off`, or how it runs in a word or two.
    pub(crate) state: String,
    /// What it has done: names end in `_count`, `_bytes`, `_bytes_per_s`. Programs must pass over what
    /// they do not know.
    pub(crate) counts: Value,
}

/// How many nodes are where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeCounts {
    pub(crate) count: usize,
    /// Nodes for whom there was no room.
    pub(crate) refused_count: u64,
    pub(crate) stages: Vec<StageCount>,
}

/// How many nodes are at a stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StageCount {
    pub(crate) stage: String,
    pub(crate) count: usize,
}

/// What `boottorrent status` asks for, and prints with `-o json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) status: Status,
    pub(crate) nodes: Vec<Summary>,
}
