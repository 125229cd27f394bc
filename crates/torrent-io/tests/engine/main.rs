//! Engines against one another, and against strangers, over real sockets on the loopback interface.
//!
//! Everything waits on channels or sockets with a deadline that only a failing test reaches.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their helpers too")]

mod node;
#[path = "../../src/web_seed/test_server.rs"]
mod server;
mod stranger;

mod hostile;
mod limits;
mod pex;
mod transfer;
mod web_seed;
