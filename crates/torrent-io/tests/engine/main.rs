//! Engines against one another, and against strangers, over real sockets on the loopback interface.
//!
//! Everything waits on channels or sockets with a deadline that only a failing test reaches.

mod node;
mod stranger;

mod hostile;
mod transfer;
