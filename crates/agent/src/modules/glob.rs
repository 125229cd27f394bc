//! The patterns of modules.alias (fnmatch(3) without flags): `*`, `?`, and sets such as `[0-9a-f]` or
//! `[!x]`. A pattern is our own kernel package's, the text comes from a device.

/// Whether the whole of `text` is as `pattern` says.
///
/// Runs in at most `pattern.len() * text.len()` steps: a star that has to give way gives way to the
/// last one, never to those before it.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on if the rest does not fit: behind the last star, and one byte further on.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(&byte)) => {
                if let Some(len) = one(&pattern[p..], byte) {
                    (p, t) = (p + len, t + 1);
                    continue;
                }
            }
            // Nothing that is left of the pattern fits an empty rest: it is no star.
            (Some(_), None) => return false,
            (None, Some(_)) => {}
        }
        let Some((after_star, from)) = retry else {
            return false;
        };
        (p, t) = (after_star, from + 1);
        retry = Some((after_star, t));
        if t > text.len() {
            return false;
        }
    }
}

/// The length of the pattern's first element if it fits `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', set @ ..] => match in_set(set, byte) {
            Some((true, len)) => Some(len + 1),
            Some((false, _)) => None,
            // A bracket that is never closed is itself.
            None => (byte == b'[').then_some(1),
        },
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [first, ..] => (*first == byte).then_some(1),
        [] => None,
    }
}

/// Whether a set, of which the opening bracket is gone, has `byte`, and its length with the closing
/// one; `None` if it is not closed.
fn in_set(set: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let first = at;
    let mut found = false;
    loop {
        match &set[at.min(set.len())..] {
            [] => return None,
            [b']', ..] if at > first => return Some((found != negated, at + 1)),
            [low, b'-', high, ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                at += 3;
            }
            [single, ..] => {
                found |= *single == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, text: &str, expect: bool) {
        assert_eq!(matches(pattern, text), expect, "{pattern} and {text}");
    }

    #[test]
    fn aliases_of_the_kernel_fit_their_devices() {
        let e1000 = "pci:v00008086d0000100Esv*sd*bc*sc*i*";
        check(e1000, "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", true);
        check(e1000, "pci:v00008086d0000100Fsv00001AF4sd00001100bc02sc00i00", false);
        check("virtio:d00000001v*", "virtio:d00000001v00001AF4", true);
        check(
            "usb:v0BDAp8152d*dc*dsc*dp*ic02isc06ip00in*",
            "usb:v0BDAp8152d2000dc00dsc00dp00ic02isc06ip00in00",
            true,
        );
        check("dmi*:svnQEMU*:", "dmi:bvnSeaBIOS:svnQEMU:pn:", true);
        check("usb:v*d012[3-9]dc*", "usb:v0525d0124dc00", true);
        check("usb:v*d012[3-9]dc*", "usb:v0525d0122dc00", false);
    }

    #[test]
    fn stars_take_nothing_or_anything() {
        check("*", "", true);
        check("a*", "a", true);
        check("a*b*c", "aXbXbXc", true);
        check("a*b*c", "aXbXbX", false);
        check("*ab", "aab", true);
        check("**a**", "a", true);
    }

    #[test]
    fn the_whole_text_has_to_fit() {
        check("abc", "abcd", false);
        check("abcd", "abc", false);
        check("", "", true);
        check("", "a", false);
        check("a?", "a", false);
    }

    #[test]
    fn sets_hold_ranges_bytes_and_their_opposites() {
        check("[a-cx]", "b", true);
        check("[a-cx]", "x", true);
        check("[a-cx]", "d", false);
        check("[!a]", "b", true);
        check("[!a]", "a", false);
        check("[]a]", "]", true);
        check("[a-]", "-", true);
        check("[a", "[a", true);
        check("\\*", "*", true);
        check("\\*", "a", false);
    }

    #[test]
    fn a_pattern_of_many_stars_is_no_trap() {
        check(&"a*".repeat(40), &"a".repeat(5_000), true);
        check(&format!("{}b", "*a".repeat(40)), &"a".repeat(5_000), false);
    }

    proptest! {
        #[test]
        fn any_text_fits_itself_between_stars(text in "[a-z0-9:]{0,40}", before in "[a-z]{0,9}") {
            prop_assert!(matches(&text, &text));
            let pattern = format!("*{text}*");
            let longer = format!("{before}{text}{before}");
            prop_assert!(matches(&pattern, &longer));
        }

        #[test]
        fn no_pattern_makes_it_panic(pattern in "\\PC{0,30}", text in "\\PC{0,30}") {
            let _ = matches(&pattern, &text);
        }
    }
}
