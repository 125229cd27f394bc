//! Whom a service prefers when its table is full.

use std::net::IpAddr;
use std::sync::Arc;

/// How much an address is worth a place, least first: a bound refuses or cuts off strangers before nodes, and
/// nodes before those that the lab names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Nobody knows whose address it is.
    Stranger,
    /// A node has leased it.
    Leased,
    /// A node has leased it which the lab names.
    Named,
}

/// Says of an address how much it is worth a place: what services ask at their doors.
pub(crate) type Standings = Arc<dyn Fn(IpAddr) -> places::Standing + Send + Sync>;

/// For commands that run without a lab, which knows nobody.
pub(crate) fn strangers() -> Standings {
    Arc::new(|_| places::Standing::Stranger)
}

impl From<Priority> for places::Standing {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Stranger => Self::Stranger,
            Priority::Leased => Self::Leased,
            Priority::Named => Self::Named,
        }
    }
}
