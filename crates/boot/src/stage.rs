//! Where a node is in its boot. The order of [`Stage`] is that of a boot that goes well; the server
//! sees the first three itself, the rest are reported by the agent.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::image::ImageName;

/// A stage and what is known while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// The firmware has asked for an address or a boot server.
    Discovered,
    /// We have answered.
    Offered,
    /// It has fetched a boot program, or that has fetched its script.
    Bootloader,
    /// The agent runs.
    Agent,
    /// It looks for an interface with a carrier.
    Link,
    /// It asks for an address.
    Lease,
    /// It reads the manifest and verifies its signature.
    Manifest,
    /// A person is choosing.
    Menu,
    /// It downloads.
    Downloading(Progress),
    /// It has the whole image, every byte verified, and may go on seeding.
    Verified {
        /// The image.
        image: ImageName,
    },
    /// It hands over to the image's kernel or program: the agent's last word.
    Loading {
        /// The image.
        image: ImageName,
    },
    /// The image's own system has been seen.
    Booted {
        /// The image, if it is known.
        #[serde(default)]
        image: Option<ImageName>,
        /// If the node goes on seeding under its system: how that goes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seeding: Option<Seeding>,
    },
    /// Something went wrong. The agent tries again, and says when.
    Failed {
        /// What.
        failure: Failure,
        /// In one sentence, with the names and numbers of the case.
        reason: String,
        /// Seconds until the agent tries again.
        retry_in_s: u64,
    },
    /// A stage of a newer agent.
    #[serde(other)]
    Unknown,
}

/// How a node that runs its image's system seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seeding {
    /// Bytes that other nodes have had from it, in this boot.
    pub uploaded_bytes: u64,
    /// Connected peers, the server among them.
    pub peers: u32,
    /// The most that it sends; none if there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes_per_s: Option<u64>,
    /// It has stopped for now, since the system has little memory left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The image.
    pub image: ImageName,
    /// Bytes verified.
    pub verified_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// The rate over the last seconds.
    pub rate_bytes_per_s: u64,
    /// Connected peers, the server among them.
    pub peers: u32,
    /// Bytes that other nodes have had from this one.
    #[serde(default)]
    pub uploaded_bytes: u64,
    /// Whether the bytes come by HTTP because no peer answers.
    #[serde(default)]
    pub http: bool,
}

impl Stage {
    /// The image's own system, of which nothing else is known.
    pub const fn booted(image: Option<ImageName>) -> Self {
        Self::Booted { image, seeding: None }
    }

    /// The word for it in tables, logs and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Discovered => "discovered",
            Self::Offered => "offered",
            Self::Bootloader => "bootloader",
            Self::Agent => "agent",
            Self::Link => "link",
            Self::Lease => "lease",
            Self::Manifest => "manifest",
            Self::Menu => "menu",
            Self::Downloading(_) => "downloading",
            Self::Verified { .. } => "verified",
            Self::Loading { .. } => "loading",
            Self::Booted { .. } => "booted",
            Self::Failed { .. } => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// Its place in a boot that goes well, from 0; none for those outside that order.
    pub fn rank(&self) -> Option<u8> {
        match self {
            Self::Discovered => Some(0),
            Self::Offered => Some(1),
            Self::Bootloader => Some(2),
            Self::Agent => Some(3),
            Self::Link => Some(4),
            Self::Lease => Some(5),
            Self::Manifest => Some(6),
            Self::Menu => Some(7),
            Self::Downloading(_) => Some(8),
            Self::Verified { .. } => Some(9),
            Self::Loading { .. } => Some(10),
            Self::Booted { .. } => Some(11),
            Self::Failed { .. } | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_one_flat_object() {
        let progress = Progress {
            image: "debian".parse().unwrap(),
            verified_bytes: 1,
            total_bytes: 2,
            rate_bytes_per_s: 3,
            peers: 4,
            uploaded_bytes: 5,
            http: false,
        };
        let text = serde_json::to_string(&Stage::Downloading(progress.clone())).unwrap();
        assert_eq!(
            text,
            r#"{"stage":"downloading","image":"debian","verified_bytes":1,"total_bytes":2,"rate_bytes_per_s":3,"peers":4,"uploaded_bytes":5,"http":false}"#
        );
        assert_eq!(serde_json::from_str::<Stage>(&text).unwrap(), Stage::Downloading(progress));
    }

    #[test]
    fn a_stage_of_a_newer_agent_is_unknown() {
        let stage: Stage = serde_json::from_str(r#"{"stage":"teleport","to":"orbit"}"#).unwrap();
        assert_eq!(stage, Stage::Unknown);
        assert_eq!(stage.rank(), None);
    }

    #[test]
    fn the_word_is_the_one_on_the_wire() {
        let failed = Stage::Failed {
            failure: Failure::NoLease,
            reason: "nobody answered".to_owned(),
            retry_in_s: 4,
        };
        for stage in [Stage::Discovered, Stage::Menu, Stage::booted(None), failed] {
            let value = serde_json::to_value(&stage).unwrap();
            assert_eq!(value["stage"], stage.name());
        }
    }
}
