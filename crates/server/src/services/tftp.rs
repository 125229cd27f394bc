//! TFTP within a running server: what transfers tell the fleet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tftp::{Event, Outcome};

use super::facts::{Teller, running};
use crate::fleet::{self, Fetched, Service, SharedFleet};

/// Events that wait to be read; beyond that they are dropped, and nothing depends on them.
pub(super) const EVENTS_MAX: usize = 1_024;

/// What TFTP has done.
#[derive(Debug, Default)]
pub(super) struct Counts {
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

/// Takes note of an event.
pub(super) fn note(event: &Event, counts: &Counts, fleet: &SharedFleet) {
    let add = |counter: &AtomicU64, count| {
        counter.fetch_add(count, Ordering::Relaxed);
    };
    match event {
        Event::Ended { peer, name, acked_len, outcome, .. } => {
            add(&counts.sent_bytes, *acked_len);
            match outcome {
                Outcome::Complete | Outcome::Unconfirmed => {
                    add(&counts.sent, 1);
                    if let Some(event) = fetched(*peer, &name.to_string()) {
                        fleet.tell(&event);
                    }
                }
                // Firmware asks for the length first.
                Outcome::Probed => {}
                _ => add(&counts.failed, 1),
            }
        }
        Event::Refused { .. } | Event::Busy { .. } => add(&counts.refused, 1),
        Event::Started { .. } => {}
    }
}

fn fetched(peer: SocketAddr, name: &str) -> Option<fleet::Event> {
    let IpAddr::V4(address) = peer.ip().to_canonical() else {
        return None;
    };
    let phase1 = ["vmlinuz", "initramfs.img", "lab.cpio"];
    let what = match phase1.into_iter().find(|known| *known == name) {
        Some(name) => Fetched::Phase1(name),
        None => Fetched::BootProgram(name.to_owned()),
    };
    Some(fleet::Event::Fetched { address, service: Service::Tftp, what })
}

/// How TFTP is doing.
pub(super) fn teller(counts: Arc<Counts>) -> Teller {
    Box::new(move || {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        running(
            "tftp",
            json!({
                "transfer_count": read(&counts.sent),
                "sent_bytes": read(&counts.sent_bytes),
                "failure_count": read(&counts.failed),
                "refusal_count": read(&counts.refused),
            }),
        )
    })
}
