//! Quantities as people write and read them: bytes, rates, times.
//!
//! Decimal prefixes are powers of 1,000 and binary ones (Ki, Mi) powers of 1,024, as IEC 80000-13
//! has it: link rates are decimal, piece lengths are binary, and 5 % between them is a surprise.

use std::time::Duration;

/// Reads a number of bytes such as `500000`, `10M`, `1.5G`, `256Ki` or `10 MB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is no number of bytes such as 500000, 10M, 1.5G or 256Ki");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("/s").unwrap_or(&unit);
    let factor = match unit.strip_suffix('b').unwrap_or(unit) {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1024.0 * 1024.0,
        "gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(refuse()),
    };
    let number: f64 = number.parse().map_err(|_| refuse())?;
    let bytes = (number * factor).round();
    // 2^53: up to there every whole number is one.
    if bytes > 9_007_199_254_740_992.0 {
        return Err(refuse());
    }
    Ok(bytes as u64)
}

/// Reads a limit in bytes a second, which is not zero.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("a limit of 0 would let nothing through; leave it out for no limit".to_owned()),
        rate => Ok(rate),
    }
}

/// Reads the rate of a link in bits a second, such as `1Gbit`, `100Mbit` or `2.5Gbit/s`.
pub(crate) fn parse_bits(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is no rate of a link such as 100Mbit, 1Gbit or 2.5Gbit");
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.strip_suffix("/s").unwrap_or(&lower).strip_suffix("bit");
    // What is left is written as bytes are.
    match number.map(parse_bytes) {
        Some(Ok(bits)) if bits > 0 => Ok(bits),
        _ => Err(refuse()),
    }
}

/// `2.5 Gbit/s`: a rate of a link.
pub(crate) fn bits(bits_per_s: u64) -> String {
    let (value, unit) = match bits_per_s {
        0..1_000_000 => (bits_per_s as f64 / 1e3, "kbit/s"),
        1_000_000..1_000_000_000 => (bits_per_s as f64 / 1e6, "Mbit/s"),
        _ => (bits_per_s as f64 / 1e9, "Gbit/s"),
    };
    format!("{value} {unit}")
}

/// `1.23 GB`: three figures.
pub(crate) fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    for unit in ["kB", "MB", "GB", "TB"] {
        value /= 1000.0;
        // What rounds to 1000 belongs to the next unit.
        if value < 999.5 || unit == "TB" {
            let decimals = match value {
                value if value < 9.995 => 2,
                value if value < 99.95 => 1,
                _ => 0,
            };
            return format!("{value:.decimals$} {unit}");
        }
    }
    unreachable!("the last unit takes everything")
}

/// `1.23 GB/s`.
pub(crate) fn rate(bytes_per_s: f64) -> String {
    format!("{}/s", bytes(bytes_per_s.round() as u64))
}

/// `1 h 2 min`, `3 min 4 s`, `5 s`, `0.3 s`.
pub(crate) fn duration(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// `1 peer`, `2 peers`.
pub(crate) fn count(count: usize, noun: &str) -> String {
    let plural = match count {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_either_kind_of_prefix() {
        let check =
            |text, expect: Option<u64>| assert_eq!(parse_bytes(text).ok(), expect, "{text}");
        check("0", Some(0));
        check("500000", Some(500_000));
        check("10M", Some(10_000_000));
        check("10m", Some(10_000_000));
        check("1.5G", Some(1_500_000_000));
        check("10 MB", Some(10_000_000));
        check("10MB/s", Some(10_000_000));
        check("256Ki", Some(262_144));
        check("256KiB", Some(262_144));
        check("2Gi", Some(2_147_483_648));
        check("0.5k", Some(500));
        check("", None);
        check("M", None);
        check("-1", None);
        check("1e3", None);
        check("1.2.3", None);
        check("10X", None);
        check("10000000T", None);
        check("infG", None);
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        assert!(parse_rate("0").unwrap_err().contains("leave it out"));
        assert!(parse_rate("0.1").is_err());
        assert_eq!(parse_rate("1k"), Ok(1000));
    }

    #[test]
    fn links_are_read_and_shown_in_bits() {
        let check = |text: &str, expect: Option<(u64, &str)>| {
            let read = parse_bits(text).ok();
            assert_eq!(read, expect.map(|(rate, _)| rate), "{text}");
            assert_eq!(read.map(bits).as_deref(), expect.map(|(_, shown)| shown), "{text}");
        };
        check("1Gbit", Some((1_000_000_000, "1 Gbit/s")));
        check("2.5 gbit/s", Some((2_500_000_000, "2.5 Gbit/s")));
        check("100Mbit", Some((100_000_000, "100 Mbit/s")));
        check("56kbit", Some((56_000, "56 kbit/s")));
        check("1G", None);
        check("1GB", None);
        check("0Mbit", None);
    }

    #[test]
    fn bytes_are_shown_with_three_figures() {
        let check = |count, expect: &str| assert_eq!(bytes(count), expect);
        check(0, "0 B");
        check(999, "999 B");
        check(1000, "1.00 kB");
        check(9_994, "9.99 kB");
        check(9_996, "10.0 kB");
        check(99_960, "100 kB");
        check(999_499, "999 kB");
        check(999_500, "1.00 MB");
        check(134_217_728, "134 MB");
        check(1_500_000_000, "1.50 GB");
        check(7_000_000_000_000_000, "7000 TB");
    }

    #[test]
    fn times_are_shown_as_people_say_them() {
        let check = |ms, expect: &str| assert_eq!(duration(Duration::from_millis(ms)), expect);
        check(300, "0.3 s");
        check(9_940, "9.9 s");
        check(12_900, "12 s");
        check(184_000, "3 min 4 s");
        check(3_720_000, "1 h 2 min");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([count(0, "peer"), count(1, "peer")], ["0 peers", "1 peer"]);
        assert_eq!(count(2, "address"), "2 addresses");
    }
}
