//! Which part of a file is asked for: one byte range (RFC 9110 section 14). Pure.

/// What to send of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: there was no range, or one that is to be passed over.
    Whole,
    /// `len` bytes from `start`; at least one, all within the file.
    Part { start: u64, len: u64 },
    /// The range begins beyond the end of the file.
    Unsatisfiable,
}

/// Reads the field `Range` for a file of `len` bytes.
///
/// Another unit than bytes, a malformed range, and more than one range are passed over, as section
/// 14.2 allows: the whole file is then the answer. (Several ranges in one answer need
/// `multipart/byteranges`, which no boot program and no web seed asks for.)
pub(crate) fn parse(field: Option<&str>, len: u64) -> Wanted {
    field.and_then(|field| parse_one(field, len)).unwrap_or(Wanted::Whole)
}

fn parse_one(field: &str, len: u64) -> Option<Wanted> {
    let (unit, range) = field.trim().split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let wanted = match (first.trim_end(), last.trim_start()) {
        ("", suffix) => match number(suffix)?.min(len) {
            0 => Wanted::Unsatisfiable,
            suffix => Wanted::Part { start: len - suffix, len: suffix },
        },
        (first, last) => {
            let first = number(first)?;
            let last = if last.is_empty() { u64::MAX } else { number(last)? };
            match first {
                _ if last < first => return None,
                _ if first >= len => Wanted::Unsatisfiable,
                _ => Wanted::Part { start: first, len: last.min(len - 1) - first + 1 },
            }
        }
    };
    Some(wanted)
}

/// Digits alone: `u64::from_str` would take a sign. More than fits is as good as the end.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn part(start: u64, len: u64) -> Wanted {
        Wanted::Part { start, len }
    }

    #[test]
    fn one_range_is_taken() {
        let check = |field, expect| assert_eq!(parse(Some(field), 100), expect, "{field}");
        check("bytes=0-9", part(0, 10));
        check("bytes=90-", part(90, 10));
        check("bytes=-10", part(90, 10));
        check("bytes=0-0", part(0, 1));
        check("bytes=99-99", part(99, 1));
        check("bytes=50-1000", part(50, 50));
        check("bytes=-1000", part(0, 100));
        check("Bytes = 1-2", part(1, 2));
        check("bytes=0-99999999999999999999999", part(0, 100));
    }

    #[test]
    fn beyond_the_end_there_is_nothing() {
        let check = |field, len| assert_eq!(parse(Some(field), len), Wanted::Unsatisfiable);
        check("bytes=100-", 100);
        check("bytes=100-200", 100);
        check("bytes=99999999999999999999999-", 100);
        check("bytes=-0", 100);
        check("bytes=0-", 0);
        check("bytes=-5", 0);
    }

    #[test]
    fn what_is_no_single_range_is_passed_over() {
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=9-1",
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=0x1-2",
        ] {
            assert_eq!(parse(Some(field), 100), Wanted::Whole, "{field}");
        }
        assert_eq!(parse(None, 100), Wanted::Whole);
    }

    proptest::proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_beyond_the_file(field in "(bytes=)?[0-9 ,-]{0,24}", len: u64) {
            if let Wanted::Part { start, len: part } = parse(Some(&field), len) {
                assert!(part > 0 && start.checked_add(part).is_some_and(|end| end <= len));
            }
        }
    }
}
