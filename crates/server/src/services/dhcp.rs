//! DHCP within a running server: how it is doing.

use serde_json::json;

use super::facts::{Teller, running};
use crate::dhcp::{Control, Status};

/// Events that wait to be read; beyond that they are dropped, and nothing depends on them.
pub(super) const EVENTS_MAX: usize = 4_096;

/// How DHCP is doing.
pub(super) fn teller(control: Control) -> Teller {
    Box::new(move || {
        let Status { role, free_count, lease_count, received_count, sent_count, dropped_count } =
            control.status();
        let mut status = running(
            "dhcp",
            json!({
                "lease_count": lease_count,
                "free_address_count": free_count,
                "datagram_count": received_count,
                "answer_count": sent_count,
                "dropped_answer_count": dropped_count,
            }),
        );
        status.state =
            role.map_or_else(|| "looking for other servers".to_owned(), |role| role.to_string());
        status
    })
}
