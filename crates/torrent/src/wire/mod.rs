//! The peer wire protocol: BEP 3, 6 (fast), 10 (extensions), 11 (PEX), 20, 21 and 52 (hashes).

mod message;

pub use message::{HashRange, Message};
