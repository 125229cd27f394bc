//! The rate of a link, written as `tc` writes it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};

/// Bits per second of a link, headers included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(u64);

impl Rate {
    pub(crate) fn bits_per_s(self) -> u64 {
        self.0
    }

    pub(crate) fn bytes_per_s(self) -> u64 {
        self.0 / 8
    }

    /// This rate divided, for a slow link.
    pub(crate) fn divided_by(self, divisor: u64) -> Self {
        Self((self.0 / divisor).max(8_000))
    }
}

impl FromStr for Rate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        let digits_len = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
        let (digits, unit) = lower.split_at(digits_len);
        let factor = match unit {
            "bit" => 1,
            "kbit" => 1_000,
            "mbit" => 1_000_000,
            "gbit" => 1_000_000_000,
            _ => 0,
        };
        let number: u64 = digits.parse().with_context(|| format!("{text:?} is not a rate"))?;
        let bits = number.saturating_mul(factor);
        ensure!(bits >= 8_000, "{text:?} is not a rate: write 50mbit or 1gbit, at least 8kbit");
        Ok(Self(bits))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000_000_000) {
            write!(f, "{}gbit", self.0 / 1_000_000_000)
        } else if self.0.is_multiple_of(1_000_000) {
            write!(f, "{}mbit", self.0 / 1_000_000)
        } else {
            write!(f, "{}kbit", self.0 / 1_000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_tc_writes_them() {
        for (text, expect) in [
            ("50mbit", Some(50_000_000)),
            ("1Gbit", Some(1_000_000_000)),
            ("8kbit", Some(8_000)),
            ("7kbit", None),
            ("50", None),
            ("mbit", None),
            ("50mb", None),
        ] {
            assert_eq!(text.parse::<Rate>().ok().map(Rate::bits_per_s), expect, "{text}");
        }
    }
}
