//! The cases, by name.

mod files;
mod floods;
mod machines;
mod starts;
mod words;

use anyhow::Result;

use super::attacker::{self, Attack};
use super::scene::Scene;

/// See the module documentation of [`super`].
pub(super) struct Case {
    pub(super) name: &'static str,
    /// One sentence: what must be true.
    pub(super) what: &'static str,
    /// Whether the server runs from the beginning.
    pub(super) starts: bool,
    /// Under which the boot path is measured, and for how long; 0 for not at all.
    pub(super) attacks: &'static [Attack],
    pub(super) seconds: u64,
    pub(super) then: fn(&mut Scene<'_>) -> Result<()>,
}

/// Long enough for 50 leases of named nodes and twice as many scripts, and for every table to be full for most
/// of it.
const SECONDS: u64 = 4;

/// Long enough for tables to fill and for what ends after 15 s of silence to have ended.
const SECONDS_ALL: u64 = 25;

impl Case {
    /// Whether it needs the processors for itself.
    pub(super) fn is_alone(&self) -> bool {
        self.seconds > 0
    }
}

/// A case in which the boot path is measured under attacks.
const fn flood(
    name: &'static str,
    what: &'static str,
    attacks: &'static [Attack],
    then: fn(&mut Scene<'_>) -> Result<()>,
) -> Case {
    Case { name, what, starts: true, attacks, seconds: SECONDS, then }
}

/// A case of what is said to a server that runs.
const fn told(
    name: &'static str,
    what: &'static str,
    then: fn(&mut Scene<'_>) -> Result<()>,
) -> Case {
    Case { name, what, starts: true, attacks: &[], seconds: 0, then }
}

/// A case that starts the server itself, or needs none.
const fn apart(
    name: &'static str,
    what: &'static str,
    then: fn(&mut Scene<'_>) -> Result<()>,
) -> Case {
    Case { name, what, starts: false, attacks: &[], seconds: 0, then }
}

fn nothing_more(_: &mut Scene<'_>) -> Result<()> {
    Ok(())
}

pub(super) const ALL: &[Case] = &[
    flood("calm", "nobody attacks: what the rest is compared with", &[], nothing_more),
    flood(
        "unread-lists",
        "lists that nobody reads cost their own bytes alone",
        &[attacker::UNREAD_LISTS],
        nothing_more,
    ),
    flood(
        "slow-downloads",
        "slow readers with 64 addresses leave the door open, and cost their own bytes alone",
        &[attacker::SLOW_DOWNLOADS],
        nothing_more,
    ),
    flood(
        "idle-doors",
        "connections that say nothing leave the door open",
        &[attacker::IDLE_DOORS],
        nothing_more,
    ),
    flood(
        "reports",
        "invented nodes and long reports do not hold leases up, or the owner",
        &[attacker::SMALL_REPORTS, attacker::FAT_REPORTS],
        floods::reports_are_written_once,
    ),
    flood(
        "starvation",
        "when all addresses are taken, named nodes have theirs, and the log says so",
        &[attacker::STARVE],
        floods::named_have_addresses,
    ),
    flood(
        "seed-peers",
        "the seed takes a node though it is full",
        &[attacker::SEED_PEERS],
        nothing_more,
    ),
    flood(
        "tracker",
        "idle connections of one address leave the tracker to others",
        &[attacker::TRACKER_IDLE],
        nothing_more,
    ),
    flood(
        "tftp",
        "transfers that nobody takes leave TFTP to nodes",
        &[attacker::TFTP_REQUESTS],
        nothing_more,
    ),
    flood(
        "listeners",
        "one address does not keep others from the live events",
        &[attacker::LISTENERS],
        floods::others_listen,
    ),
    Case {
        name: "all-at-once",
        what: "nodes boot with every attack of the list running",
        starts: true,
        attacks: attacker::ALL,
        seconds: SECONDS_ALL,
        then: nothing_more,
    },
    told(
        "machines",
        "a BIOS and a UEFI machine boot with every attack of the list running",
        machines::boot_through_all,
    ),
    apart(
        "rogue-at-start",
        "an offer during a start ends nothing, and is outlived",
        starts::rogue_at_start,
    ),
    told(
        "kills",
        "20 × kill -9 under load loses no acknowledged lease",
        starts::killed_twenty_times,
    ),
    told(
        "architecture",
        "what others say of a node's architecture does not decide its boot",
        words::architecture_is_its_own,
    ),
    told(
        "decline",
        "a DECLINE in a node's name does not take its reserved address away",
        words::declined_by_another,
    ),
    told("next-boot", "a stranger cancels no boot that was ordered", words::ordered_boot_stays),
    told("orders", "the agent is believed and told, the liar is not", words::agent_is_believed),
    told(
        "pages-of-others",
        "other sites' pages and names are refused everywhere",
        words::pages_of_others,
    ),
    told("history", "a flood hides no new node, and forgets no known one", floods::history_stays),
    told("large-image", "a large image holds up no assignment", words::large_image),
    told("echo", "TFTP does not make much of little for whom it was not asked", floods::tftp_echo),
    apart(
        "lan",
        "one address does not keep others from a LANTorrent endpoint",
        floods::lan_is_open,
    ),
    apart("marker-at-start", "a marker during a start ends nothing", starts::marker_at_start),
    apart("full-disk", "an unchanged lab starts on a full disk", starts::full_disk),
    apart(
        "damaged-state",
        "an unchanged lab starts with a damaged state.db",
        starts::damaged_state,
    ),
    apart("lan-header", "a header for one endpoint opens no other", files::lan_header),
    apart("tftp-link", "a link out of a folder is not served", files::tftp_link),
    apart(
        "squashfs-link",
        "a squashfs with a link publishes no file of this machine",
        files::squashfs_link,
    ),
    apart(
        "setuid-tree",
        "other users of this machine reach no setuid program of a tree",
        files::setuid_tree,
    ),
];
