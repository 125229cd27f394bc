//! Why a node is where it is: what it waits for, whether that takes too long, and what to do then,
//! in plain words. Pure: from what was recorded and the time.

use std::collections::VecDeque;

use boot::Stage;
use boot::stage::Progress;

use super::node::{Standing, Summary, UnixMs};
use super::timeline::Step;
use crate::quantity;
use crate::status::since;

/// An agent at work says something at least this often, in milliseconds: six times its usual ten
/// seconds between reports.
const SILENT_MS: u64 = 60_000;

/// What can be said of a node at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Why {
    /// Where it is, in a sentence.
    pub(crate) headline: String,
    /// What has to happen next; none if it is where it shall be.
    pub(crate) waits_for: Option<String>,
    /// Whether that takes longer than it does in a boot that goes well.
    pub(crate) is_late: bool,
    /// What a person can do about it, if something is wrong.
    pub(crate) cure: Option<String>,
}

/// What a stage waits for, how many milliseconds it takes at most where all is well, and what is
/// usually wrong where it takes longer.
struct Wait(&'static str, u64, &'static str);

/// For stages about which nothing more is known than that they last. The times are estimates with
/// room for a slow machine, not measured.
fn wait(stage: &Stage) -> Option<Wait> {
    Some(match stage {
        Stage::Discovered => Wait(
            "an answer to its DHCP request",
            10_000,
            "this server did not answer it: `boottorrent status` says whether DHCP runs and whether \
             its range is exhausted, and `boottorrent doctor` whether another server is in the way",
        ),
        Stage::Offered => Wait(
            "its firmware to fetch the boot program that the answer names",
            30_000,
            "the node did not come for its boot program: another DHCP server's answer may have won \
             (wrong next-server), a firewall may drop UDP 69 and TCP 8080 on this server \
             (`boottorrent doctor`), or Secure Boot refuses the program",
        ),
        Stage::Bootloader => Wait(
            "phase 1 to load and its agent to report",
            90_000,
            "the boot program ran and the agent did not report: look at the node's screen; often \
             Secure Boot refuses the kernel, the network card's driver is not in the initramfs \
             (`boottorrent phase1 build --module NAME`), or reports are dropped on TCP 8080",
        ),
        Stage::Agent => Wait("the agent to find a network interface", 30_000, "look at its screen"),
        Stage::Link => Wait(
            "a carrier on a network interface",
            40_000,
            "check cable and switch port; ports with spanning tree take 30 s and more",
        ),
        Stage::Lease => Wait(
            "an address by DHCP",
            30_000,
            "no DHCP server answers the agent: see `boottorrent status`",
        ),
        Stage::Manifest => Wait(
            "the signed list of images",
            30_000,
            "the node does not reach this server's HTTP port: check the firewall",
        ),
        Stage::Loading { .. } => Wait(
            "the image's own system to ask for an address",
            180_000,
            "the image's kernel runs and was not heard from: look at the node's screen for a panic; \
             a system with a fixed address can say itself that it is up (docs/api.md, `booted`)",
        ),
        _ => return None,
    })
}

/// What is to be said of `node` at `now`.
pub(crate) fn why(node: &Summary, now: UnixMs) -> Why {
    let age_ms = now.since(node.since);
    let age = time(age_ms);
    let Some(stage) = &node.stage else {
        return Why {
            headline: "never seen on the network".to_owned(),
            waits_for: Some("it to be switched on and to boot from the network".to_owned()),
            is_late: false,
            cure: Some(
                "if it is on: put network boot first in its firmware, check its cable and VLAN, and \
                 that its Ethernet address is the one in nodes.yaml"
                    .to_owned(),
            ),
        };
    };
    let headline = format!("{}, for {age}", node.stage_text());
    let late = |waits_for: &str, cure: String| Why {
        headline: headline.clone(),
        waits_for: Some(waits_for.to_owned()),
        is_late: true,
        cure: Some(cure),
    };
    let in_time = |waits_for: Option<String>| Why {
        headline: headline.clone(),
        waits_for,
        is_late: false,
        cure: None,
    };
    let silent_ms = now.since(node.seen);
    if node.standing == Standing::Waiting && matches!(stage, Stage::Bootloader) {
        return to_be_accepted(node, &age);
    }
    match stage {
        Stage::Booted { .. } => {
            Why { headline: format!("{}, {age} ago", node.stage_text()), ..in_time(None) }
        }
        Stage::Failed { failure, reason, retry_in_s } => Why {
            headline: format!("failed with {failure}, {age} ago: {reason}"),
            waits_for: Some(format!("its next attempt, {retry_in_s} s after the failure")),
            is_late: true,
            cure: Some(failure.cure().to_owned()),
        },
        Stage::Downloading(_) | Stage::Verified { .. } | Stage::Menu if silent_ms > SILENT_MS => {
            let silent = time(silent_ms);
            late(
                "a sign of life",
                format!(
                    "nothing was heard of it for {silent}: it was switched off, its cable is out, or it \
                     crashed; look at its screen, or switch it off and on"
                ),
            )
        }
        Stage::Downloading(progress) => download(&in_time, &late, progress),
        Stage::Verified { .. } => {
            in_time(Some("its seed time to pass: it gives to others meanwhile".to_owned()))
        }
        Stage::Menu => in_time(Some("somebody to choose, or the menu's timeout".to_owned())),
        stage => match wait(stage) {
            Some(Wait(what, at_most_ms, cure)) if age_ms > at_most_ms => {
                late(what, cure.to_owned())
            }
            Some(Wait(what, ..)) => in_time(Some(what.to_owned())),
            None => in_time(None),
        },
    }
}

fn to_be_accepted(node: &Summary, age: &str) -> Why {
    Why {
        headline: format!("not one of this lab's nodes, for {age}"),
        waits_for: Some("somebody to accept it".to_owned()),
        is_late: false,
        cure: Some(format!(
            "accept it on its page or with `boottorrent node accept {}`; that unknown nodes wait is \
             `nodes.unknown` in Boottorrent.yaml",
            node.mac
        )),
    }
}

fn download(
    in_time: &impl Fn(Option<String>) -> Why,
    late: &impl Fn(&str, String) -> Why,
    progress: &Progress,
) -> Why {
    let left = progress.total_bytes.saturating_sub(progress.verified_bytes);
    let Some(seconds) = left.checked_div(progress.rate_bytes_per_s) else {
        let cure = format!(
            "no bytes arrive, from {}: check that this server's torrent port (6881) and HTTP port can be \
             reached from the node",
            quantity::count(progress.peers as usize, "peer"),
        );
        return late("somebody to send it the image", cure);
    };
    let (left, time) = (quantity::bytes(left), time(seconds.saturating_mul(1000)));
    let rate = quantity::rate(progress.rate_bytes_per_s as f64);
    in_time(Some(format!("{left} more of the image: about {time} at {rate}")))
}

fn time(ms: u64) -> String {
    since(UnixMs(ms), UnixMs(0))
}

/// How long each stage of a boot lasted: the stage, when it began, and its milliseconds; the last one
/// of a boot that goes on has none.
pub(crate) fn durations(steps: &VecDeque<Step>) -> Vec<(Step, Option<u64>)> {
    let nexts = steps.iter().skip(1).map(|next| Some(next.at)).chain([None]);
    steps.iter().zip(nexts).map(|(step, next)| (*step, next.map(|at| at.since(step.at)))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is said of a node that came to `stage` at 1 s and was heard of at 2 s, at `now_s`.
    fn check(stage: Value, now_s: u64, is_late: bool, expect: &str) {
        let mut node =
            json!({"mac": "52:54:00:00:00:01", "since_unix_ms": 1000, "seen_unix_ms": 2000});
        node.as_object_mut().unwrap().extend(stage.as_object().unwrap().clone());
        let node: Summary = serde_json::from_value(node).unwrap();
        let why = why(&node, UnixMs(now_s * 1000));
        let text = format!("{why:?}");
        assert!(text.contains(expect), "{text}");
        assert_eq!(why.is_late, is_late, "{text}");
        assert!(!why.is_late || why.cure.is_some(), "{text}");
    }

    #[test]
    fn a_stage_says_what_it_waits_for_and_after_a_while_what_may_be_wrong() {
        check(json!({}), 9, false, "never seen");
        check(json!({"stage": "offered"}), 9, false, "boot program");
        check(json!({"stage": "offered"}), 99, true, "next-server");
        check(json!({"stage": "bootloader"}), 999, true, "Secure Boot");
        check(json!({"stage": "menu"}), 9, false, "somebody to choose");
        check(json!({"stage": "booted", "image": "debian"}), 9999, false, "booted debian");
    }

    #[test]
    fn who_waits_to_be_accepted_is_told_so() {
        let stage = json!({"stage": "bootloader", "standing": "waiting"});
        check(stage, 999, false, "node accept 52:54:00:00:00:01");
    }

    #[test]
    fn a_failure_says_its_cure() {
        let stage =
            json!({"stage": "failed", "failure": "BT12", "reason": "eth0", "retry_in_s": 4});
        check(stage, 5, true, "spanning tree");
    }

    #[test]
    fn a_download_says_how_long_it_takes_and_who_is_silent_is_late() {
        let at = |rate: u64| {
            json!({"stage": "downloading", "image": "debian", "verified_bytes": 100_000_000,
                "total_bytes": 300_000_000, "rate_bytes_per_s": rate, "peers": 2})
        };
        check(at(10_000_000), 5, false, "200 MB more of the image: about 20 s");
        check(at(0), 5, true, "no bytes arrive, from 2 peers");
        check(at(10_000_000), 500, true, "nothing was heard of it for 8 min 18 s");
    }
}
