//! What an agent tells the server: where it is. `POST /api/v1/reports`, one JSON object; the answer
//! is an [`Answer`]. A node boots as well when nobody listens.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::node::{Arch, Firmware, Mac};
use crate::order::Order;
use crate::stage::Stage;

/// The most bytes of a report that a server reads.
pub const LEN_MAX: usize = 16 << 10;

/// The field of a report's HTTP header with the node's secret for this boot, which its boot script gave it as
/// `boottorrent.proof=` or an answer as [`Answer::proof`]: that it is this node which reports.
pub const PROOF_FIELD: &str = "boottorrent-proof";

/// The most characters of that secret.
pub const PROOF_LEN_MAX: usize = 64;

/// The most bytes of log lines in a report.
pub const LOG_LEN_MAX: usize = 4 << 10;

/// One report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose.
    pub node: Mac,
    /// Of which boot: drawn by the agent when it starts, so that a node that was switched off and on
    /// is told from one whose packets arrive late.
    pub boot: u64,
    /// Counts the reports of a boot from 1; of two the higher is the later.
    pub sequence: u64,
    /// Milliseconds since the node's kernel started.
    pub uptime_ms: u64,
    /// Where it is.
    #[serde(flatten)]
    pub stage: Stage,
    /// What it is. Sent with the first report of a boot, and when something of it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// What it is made of. Sent once it is known, and when something of it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// Who gave it how much of the image that it downloads or has downloaded, most first, [`SOURCES_MAX`]
    /// at most. Sent now and then while it downloads, and once it is whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// The latest lines of the agent's log, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Which kernels it runs.
    pub arch: Arch,
    /// How it was started, as far as a kernel can know.
    pub firmware: Firmware,
    /// The SMBIOS UUID, in its usual text form; some boards have none, or all the same.
    #[serde(default)]
    pub uuid: Option<String>,
    /// Who made it and what he calls it, as SMBIOS says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Its serial number, as SMBIOS says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// The memory that Linux counts.
    pub memory_bytes: u64,
    /// Logical processors.
    pub processors: u32,
    /// The interface that has the lease.
    #[serde(default)]
    pub interface: Option<String>,
    /// Its driver.
    #[serde(default)]
    pub driver: Option<String>,
    /// The address that it leased.
    #[serde(default)]
    pub address: Option<String>,
    /// The agent's version.
    pub agent: String,
    /// The running kernel's release.
    pub kernel: String,
}

/// The most sources of a report: most of a download comes from fewer, and 50 bytes each go to the server
/// from every node.
pub const SOURCES_MAX: usize = 16;

/// A peer that gave something: a node, or the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The peer's, as this node sees it.
    pub address: IpAddr,
    /// Bytes of the image.
    pub bytes: u64,
}

/// The most disks, and the most cards, that a report lists: what a server for storage has beyond that
/// would fill it.
pub const PARTS_MAX: usize = 16;

/// What a node is made of, as far as the kernel of phase 1 has drivers for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// What its processor calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// By name, [`PARTS_MAX`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Of Ethernet, in the order in which they were found, [`PARTS_MAX`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<Card>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The kernel's name for it, such as `nvme0n1`.
    pub name: String,
    /// Its size.
    pub len_bytes: u64,
    /// What its maker calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The kernel's name for it, such as `eth0`.
    pub name: String,
    /// Its address.
    pub mac: Mac,
    /// Its driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Of its link, in Mbit/s, if it has one and its driver knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mbit_per_s: Option<u32>,
}

/// The server's answer to a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The serial of the manifest that is in force; a node that waits to try again fetches it when
    /// it is newer than its own.
    #[serde(default)]
    pub manifest_serial: u64,
    /// What the node is to do; it believes this by the signature alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// To a node that is whole: how many others download the same image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloading: Option<u32>,
    /// To a node that has no secret for this boot, or one of before: what it sends from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden: what agents in the field send. Never change these; add to them.
    const FIRST: &str = r#"{"node":"52:54:00:12:34:56","boot":7,"sequence":1,"uptime_ms":2100,"stage":"agent","machine":{"arch":"x86_64","firmware":"bios","uuid":null,"memory_bytes":1073741824,"processors":2,"interface":null,"driver":null,"address":null,"agent":"0.1.0","kernel":"6.1.0-40-amd64"}}"#;
    const LISTED: &str = r#"{"node":"52:54:00:12:34:56","boot":7,"sequence":1,"uptime_ms":2100,"stage":"agent","machine":{"arch":"x86_64","firmware":"bios","uuid":null,"memory_bytes":1073741824,"processors":2,"interface":null,"driver":null,"address":null,"agent":"0.1.0","kernel":"6.1.0-40-amd64"},"hardware":{"processor":"Abacus 3000","disks":[{"name":"nvme0n1","len_bytes":512110190592,"model":"Drum"}],"cards":[{"name":"eth0","mac":"52:54:00:12:34:56","driver":"igc","mbit_per_s":2500}]}}"#;
    const FAILED: &str = r#"{"node":"52:54:00:12:34:56","boot":7,"sequence":9,"uptime_ms":9000,"stage":"failed","failure":"BT21","reason":"nobody answered on eth0 within 20 s","retry_in_s":4,"log":["a","b"]}"#;

    const GIVEN: &str = r#"{"node":"52:54:00:12:34:56","boot":7,"sequence":10,"uptime_ms":9500,"stage":"verified","image":"debian","sources":[{"address":"10.0.0.1","bytes":70},{"address":"fe80::1","bytes":30}]}"#;
    const BOOTED: &str = r#"{"node":"52:54:00:12:34:56","boot":7,"sequence":11,"uptime_ms":9900,"stage":"booted","image":"debian"}"#;
    const SEEDING: &str = r#"{"node":"52:54:00:12:34:56","boot":7,"sequence":12,"uptime_ms":9999,"stage":"booted","image":"debian","seeding":{"uploaded_bytes":7,"peers":3}}"#;

    #[test]
    fn reports_keep_their_form() {
        for golden in [FIRST, LISTED, FAILED, GIVEN, BOOTED, SEEDING] {
            let report: Report = serde_json::from_str(golden).unwrap();
            assert_eq!(serde_json::to_string(&report).unwrap(), golden);
        }
    }

    #[test]
    fn a_report_of_a_newer_agent_is_read_as_far_as_it_is_known() {
        let newer = r#"{"node":"52:54:00:12:34:56","boot":7,"sequence":1,"uptime_ms":1,"stage":"teleport","colour":"red"}"#;
        let report: Report = serde_json::from_str(newer).unwrap();
        assert_eq!(report.stage, Stage::Unknown);
    }
}
