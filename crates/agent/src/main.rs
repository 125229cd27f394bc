//! `boottorrent-agent`: PID 1 of phase 1.

fn main() {}
