//! Whom a service prefers when its table is full.

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
