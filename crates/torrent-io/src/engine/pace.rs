//! How often the engine's thread may wake up.
//!
//! Every packet of every connection could wake it, a few thousand times a second on a 50 Mbit/s link,
//! and each time there would be next to nothing to do; two thirds of a node's CPU went into that. So
//! after each turn it rests for about the time of two blocks, as network cards do with their interrupts:
//! what arrives meanwhile is taken in one turn, and messages for one peer leave in one packet. In
//! simulation a delay of two block times on each message costs less than the packets that it saves.

use std::time::Duration;

use torrent::BLOCK_LEN;

/// The longest rest: 3 to 8 ms of latency cost 0.9 % in simulation at 50 Mbit/s, 1 to 4 nothing.
const REST_MAX: Duration = Duration::from_millis(4);

/// Below this rate a node is not busy, and answers at once.
const RATE_MIN: f64 = 1e6;

/// A shorter rest is not worth the timer that ends it (Linux ends it up to 50 µs late).
const REST_MIN: Duration = Duration::from_micros(100);

/// How often acknowledgements are looked for: one system call for each connection.
const ACKNOWLEDGED_INTERVAL_MIN: Duration = Duration::from_micros(250);
const ACKNOWLEDGED_INTERVAL_MAX: Duration = Duration::from_millis(2);

/// The rest after a turn, while `bytes_per_s` flow in the busier direction.
pub(super) fn rest(bytes_per_s: f64) -> Duration {
    if bytes_per_s < RATE_MIN {
        return Duration::ZERO;
    }
    let rest = Duration::from_secs_f64(2.0 * f64::from(BLOCK_LEN) / bytes_per_s);
    if rest < REST_MIN { Duration::ZERO } else { rest.min(REST_MAX) }
}

/// How long after one look for acknowledgements the next is due.
pub(super) fn acknowledged_interval(bytes_per_s: f64) -> Duration {
    if bytes_per_s < RATE_MIN {
        return ACKNOWLEDGED_INTERVAL_MAX;
    }
    let block_time = Duration::from_secs_f64(f64::from(BLOCK_LEN) / bytes_per_s);
    block_time.clamp(ACKNOWLEDGED_INTERVAL_MIN, ACKNOWLEDGED_INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_two_block_times_within_bounds() {
        assert_eq!(rest(0.0), Duration::ZERO);
        assert_eq!(rest(6.25e6), REST_MAX);
        assert_eq!(rest(16_384_000.0), Duration::from_millis(2));
        assert_eq!(rest(1e9), Duration::ZERO);
    }

    #[test]
    fn acknowledgements_are_looked_for_between_a_quarter_and_two_milliseconds() {
        assert_eq!(acknowledged_interval(0.0), ACKNOWLEDGED_INTERVAL_MAX);
        assert_eq!(acknowledged_interval(16_384_000.0), Duration::from_millis(1));
        assert_eq!(acknowledged_interval(1e9), ACKNOWLEDGED_INTERVAL_MIN);
    }
}
