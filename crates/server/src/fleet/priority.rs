//! How much an address is worth a place, for services whose tables are full.

use std::net::IpAddr;
use std::sync::Arc;

use places::Standing;

/// Says of an address how much it is worth a place: what services ask at their doors.
pub(crate) type Standings = Arc<dyn Fn(IpAddr) -> Standing + Send + Sync>;

/// For commands that run without a lab, which knows nobody.
pub(crate) fn strangers() -> Standings {
    Arc::new(|_| Standing::Stranger)
}
