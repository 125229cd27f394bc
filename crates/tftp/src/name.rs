//! Names of files as nodes send them, made into names that can lead nowhere else.
//!
//! Firmware takes a name from a DHCP option and writes it its own way: `/boot/x`, `\boot\x` (boot
//! programs of Windows), `./x`, `//x`, and, where it believed that the option ends with a NUL, with
//! bytes 0xFF (the end of DHCP's options) behind it. All of these mean one file. Case counts.

use std::fmt;

/// The most bytes of a name. DHCP's field for it has 128; PXELINUX makes up names of up to 255.
pub const NAME_LEN_MAX: usize = 512;

/// A relative path of one or more names joined by `/`, none of which is empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName(String);

/// A name that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has a `..` in it.
    #[error("the name leads out of what is served")]
    Outside,
    /// It is not UTF-8 or has control characters, so that no file of ours is called so.
    #[error("the name is not text")]
    NotText,
    /// Nothing is left of it.
    #[error("the name is empty")]
    Empty,
    /// More than [`NAME_LEN_MAX`] bytes.
    #[error("the name is longer than {NAME_LEN_MAX} bytes")]
    Long,
}

impl FileName {
    /// Reads a name as it was sent.
    ///
    /// # Errors
    /// If no file can be called so.
    pub fn parse(sent: &[u8]) -> Result<Self, NameError> {
        if sent.len() > NAME_LEN_MAX {
            return Err(NameError::Long);
        }
        let end = sent.iter().rposition(|&byte| byte != 0xff).map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&sent[..end]).map_err(|_| NameError::NotText)?;
        if text.contains(char::is_control) {
            return Err(NameError::NotText);
        }
        let mut name = String::with_capacity(text.len());
        for part in text.split(['/', '\\']) {
            match part {
                "" | "." => {}
                ".." => return Err(NameError::Outside),
                part => {
                    if !name.is_empty() {
                        name.push('/');
                    }
                    name.push_str(part);
                }
            }
        }
        if name.is_empty() { Err(NameError::Empty) } else { Ok(Self(name)) }
    }

    /// The name as text, without a leading `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &[u8], expect: Result<&str, NameError>) {
        let got = FileName::parse(sent);
        assert_eq!(got.as_ref().map(FileName::as_str), expect.as_ref().map(|name| *name));
    }

    #[test]
    fn spellings_of_firmware_mean_one_file() {
        for sent in [
            &b"boot/undionly.kpxe"[..],
            b"/boot/undionly.kpxe",
            b"//boot//undionly.kpxe",
            b"./boot/./undionly.kpxe",
            b"\\boot\\undionly.kpxe",
            b"boot/undionly.kpxe\xff",
            b"boot/undionly.kpxe\xff\xff\xff",
        ] {
            check(sent, Ok("boot/undionly.kpxe"));
        }
    }

    #[test]
    fn case_counts() {
        check(b"Snponly.EFI", Ok("Snponly.EFI"));
    }

    #[test]
    fn no_name_leads_out() {
        for sent in [&b".."[..], b"../etc/passwd", b"/boot/../../etc", b"boot\\..\\..\\x", b"a/.."]
        {
            check(sent, Err(NameError::Outside));
        }
        check(b"a..b/...", Ok("a..b/..."));
    }

    #[test]
    fn what_is_no_text_names_nothing() {
        check(b"a\xffb", Err(NameError::NotText));
        check(b"a\nb", Err(NameError::NotText));
        check(b"\xff", Err(NameError::Empty));
        check(b"/", Err(NameError::Empty));
        check(&[b'a'; NAME_LEN_MAX + 1], Err(NameError::Long));
    }
}
