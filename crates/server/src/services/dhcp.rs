//! DHCP within a running server: how it is doing.

use dhcp::Event;
use serde_json::json;

use super::facts::{Teller, running};
use crate::dhcp::{Control, Status, has_fetched, role, told};
use crate::fleet::SharedFleet;

/// Events that wait to be read; beyond that they are dropped, and nothing depends on them.
pub(super) const EVENTS_MAX: usize = 4_096;

/// Takes note of an event. A machine that asks anew after it has fetched something uses its address.
pub(super) fn note(event: &Event, control: &Control, fleet: &SharedFleet) {
    if let Event::Seen { mac, .. } = event
        && has_fetched(fleet, *mac)
    {
        control.used(*mac);
    }
    if let Some(role) = role(event) {
        fleet.lock().set_dhcp(role);
    }
    if let Some(event) = told(event) {
        fleet.tell(&event);
    }
}

/// How DHCP is doing.
pub(super) fn teller(control: Control) -> Teller {
    Box::new(move || {
        let status = control.status();
        let mut told = running(
            "dhcp",
            json!({
                "lease_count": status.lease_count,
                "free_address_count": status.pool.free_count,
                "stranger_count": status.pool.unconfirmed_count + status.pool.confirmed_count,
                "declined_address_count": status.pool.declined_count,
                "datagram_count": status.received_count,
                "answer_count": status.sent_count,
                "dropped_answer_count": status.dropped_count,
            }),
        );
        told.state = state(&status);
        told
    })
}

fn state(status: &Status) -> String {
    if let Some(failure) = &status.failure {
        return format!("does not run, and is tried again: {failure}");
    }
    if let Some(conflict) = status.waits_for {
        return format!("waits: {conflict}");
    }
    let Some(role) = status.role else {
        return "looking for other servers".to_owned();
    };
    match &status.drained {
        Some(Event::Draining { count, within, .. }) => format!(
            "{role}; {count} machines that the lab does not name took addresses in {} s",
            within.as_secs().max(1)
        ),
        _ => role.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dhcp::{Conflict, Pool, Role};

    use super::*;

    #[test]
    fn the_state_says_why_no_node_is_served() {
        let mut status = Status::default();
        assert_eq!(state(&status), "looking for other servers");
        status.role = Some(Role::Server);
        assert_eq!(state(&status), "DHCP server");
        let (count, within) = (990, Duration::from_millis(2_700));
        status.drained = Some(Event::Draining { count, within, pool: Pool::default() });
        assert!(
            state(&status)
                .ends_with("990 machines that the lab does not name took addresses in 2 s")
        );
        status.waits_for = Some(Conflict::ForeignServer([10, 0, 0, 9].into()));
        assert!(state(&status).starts_with("waits: another DHCP server, 10.0.0.9,"));
        status.failure = Some("no socket".to_owned());
        assert_eq!(state(&status), "does not run, and is tried again: no socket");
    }
}
