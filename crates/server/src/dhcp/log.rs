//! What is worth a line of the log.

use std::net::SocketAddrV4;
use std::time::Duration;

use dhcp::Event;

use crate::line_limit::LineLimit;

/// Writes lines, up to a limit.
#[derive(Debug, Default)]
pub(super) struct Log {
    limit: LineLimit,
}

impl Log {
    /// Writes a line about an event. `now` is the time since the start.
    pub(super) fn event(&self, now: Duration, event: &Event) {
        match event {
            // What is wrong with the network is said in any case; `dhcp` says it rarely.
            Event::Serving { .. }
            | Event::Waiting(_)
            | Event::NoServer
            | Event::Draining { .. }
            | Event::Exhausted { .. }
            | Event::UnknownRelay(_)
            | Event::ForeignServer { .. }
            | Event::OtherLab { .. }
            | Event::Twin { .. }
            | Event::Flood { .. }
            | Event::Malformed { .. } => of_network(event),
            // Who wants to see these wants to see all of them.
            Event::Seen { .. } | Event::Offered { .. } => detail(event),
            _ if self.has_room(now) => of_machine(event),
            _ => {}
        }
    }

    /// Writes that an answer could not be sent.
    pub(super) fn not_sent(&self, now: Duration, to: SocketAddrV4, error: &std::io::Error) {
        if self.has_room(now) {
            tracing::warn!(%to, %error, "cannot send");
        }
    }

    fn has_room(&self, now: Duration) -> bool {
        self.limit.has_room(now, |count| tracing::warn!(count, "more happened than is logged"))
    }
}

fn of_network(event: &Event) {
    match event {
        Event::Serving { role, beside: Some(server) } => {
            tracing::info!("{role}, beside {server}, which gives the addresses");
        }
        Event::Serving { role, beside: None } => tracing::info!("{role}"),
        Event::NoServer => tracing::warn!(
            "nobody gives addresses on this network, and no range is set for this server: nodes \
             cannot boot"
        ),
        Event::Waiting(conflict) => {
            tracing::error!("DHCP waits until it is alone, the rest of the server runs: {conflict}")
        }
        Event::Draining { count, within, pool } => tracing::warn!(
            free = pool.free_count,
            "{count} machines that the lab does not name took addresses in {} s: nodes of the lab get \
             theirs all the same. If nobody switched on a room, somebody invents machines: look in the \
             switch for the port, let `nodes.unknown: ignore` answer nodes of the lab alone, or add a \
             range",
            within.as_secs().max(1)
        ),
        Event::Exhausted { subnet, mac, why, pool } => {
            let strangers = pool.unconfirmed_count + pool.confirmed_count;
            tracing::warn!(
                node = %mac,
                strangers,
                declined = pool.declined_count,
                "no address is left for {subnet}: {why}. Add a range, or shorten the lease time"
            );
        }
        Event::UnknownRelay(relay) => tracing::warn!(
            "the relay agent {relay} asks for addresses of its network, for which there is no range"
        ),
        Event::ForeignServer { address, boot_file } => {
            // A stranger's text, for a terminal.
            let boots =
                boot_file.as_deref().map(|file| tracing::field::display(file.escape_debug()));
            tracing::warn!(boots, "another DHCP server, {address}, answers on this network");
        }
        Event::OtherLab { address, lab, is_proved: true } => tracing::warn!(
            "another BootTorrent server, {address} (lab {lab}), is on this network: nodes boot what \
             answers first"
        ),
        Event::OtherLab { address, lab, is_proved: false } => tracing::warn!(
            "another BootTorrent server, {address} (lab {lab}), says that it is on this network; it \
             has not proved it, and nothing follows"
        ),
        Event::Twin { address } => tracing::info!(
            "a second server of this lab, {address}, is on this network: nodes boot from either"
        ),
        Event::Flood { per_s } => {
            tracing::warn!(per_s, "a flood: more messages than a fleet sends");
        }
        Event::Malformed { count, from, reason } => {
            tracing::warn!(count, %from, "cannot read a message: {reason}");
        }
        _ => {}
    }
}

fn detail(event: &Event) {
    match event {
        Event::Seen { mac, asker, machine, relay } => {
            let machine = machine.map(tracing::field::display);
            let relay = relay.map(tracing::field::display);
            tracing::debug!(node = %mac, machine, relay, "{asker} asks");
        }
        Event::Offered { mac, address: Some(address) } => {
            tracing::debug!(node = %mac, "offered {address}");
        }
        Event::Offered { mac, address: None } => tracing::debug!(node = %mac, "offered a program"),
        _ => {}
    }
}

fn of_machine(event: &Event) {
    match event {
        Event::Leased { mac, address, asker } => {
            tracing::info!(node = %mac, "{address} for {asker}");
        }
        Event::BootProgram { mac, asker, file } => {
            tracing::info!(node = %mac, "{asker} is to boot {file}");
        }
        Event::NoBootProgram { mac, asker } => {
            tracing::warn!(node = %mac, "there is no boot program for {asker}");
        }
        Event::Refused { mac, address, reason } => {
            tracing::info!(node = %mac, "must not use {address}: {reason}");
        }
        Event::Declined { mac, address } => {
            tracing::info!(node = %mac, "says that another machine uses {address}");
        }
        Event::Disbelieved { mac, address } => tracing::warn!(
            node = %mac,
            "a message in its name says that another machine uses {address}, and is not believed: only \
             who was just given an address can say so"
        ),
        Event::Conflict { mac, address, user, is_reserved: true } => tracing::warn!(
            node = %mac,
            "{address} is reserved for it, and {user} uses it: it is given another one; find that \
             machine, or reserve another address"
        ),
        Event::Conflict { mac, address, user, is_reserved: false } => tracing::warn!(
            node = %mac,
            "{address} is used by {user}, which does not have it of this server: it is left alone for ten \
             minutes"
        ),
        Event::Displaced { mac, address, by } => tracing::warn!(
            node = %by,
            "no address is left, so it is given {address} of {mac}, which the lab does not name"
        ),
        Event::Released { mac, address } => tracing::info!(node = %mac, "gives {address} back"),
        _ => {}
    }
}
