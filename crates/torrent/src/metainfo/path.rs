//! Paths of files within a torrent, which strangers write and we create on disk.

use std::fmt;

use super::MetainfoError;

/// How many folders deep a file may lie, itself and the torrent's own folder included. Deeper than
/// any tree we know (a Linux source tree has 12).
pub const PATH_DEPTH_MAX: usize = 32;

/// The longest name of a file or folder, in bytes: NAME_MAX of Linux, so that what is accepted can
/// be created.
pub const NAME_LEN_MAX: usize = 255;

/// The longest path, in bytes with separators: half of Linux's PATH_MAX, which leaves as much for
/// the download folder.
pub const PATH_LEN_MAX: usize = 2048;

/// The path of a file relative to the download folder. It cannot lead out of it: no component is
/// empty, `.` or `..`, or contains `/` or NUL. Compares as BEP 52 orders file trees.
///
/// A backslash is allowed: it is an ordinary character on every system we run on, and systemd
/// writes it into file names (`dev-disk-by\x2duuid.swap`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePath(Vec<String>);

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// No components, or an empty one.
    #[error("it is empty or has an empty part")]
    Empty,
    /// `.` or `..`.
    #[error("it has a part \".\" or \"..\"")]
    Dots,
    /// A `/`, which would make more components of one, or an absolute path.
    #[error("it has a separator within a part")]
    Separator,
    /// A NUL byte, which ends a path for the kernel.
    #[error("it has a NUL byte")]
    Nul,
    /// Not UTF-8, which BEP 3 and 52 ask for.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// More than [`NAME_LEN_MAX`] or [`PATH_LEN_MAX`] bytes.
    #[error("it is too long")]
    TooLong,
    /// More than [`PATH_DEPTH_MAX`] components.
    #[error("it is too deep")]
    TooDeep,
    /// BEP 47 attribute `l`: writing through a link could leave the download folder.
    #[error("it is a symbolic link")]
    Symlink,
    /// Two files, or a file and a folder, of the same name.
    #[error("another file has the same path, or lies on it")]
    Taken,
}

impl FilePath {
    /// A path of these components.
    ///
    /// # Errors
    /// If it is empty, could leave the download folder or exceeds a limit.
    pub fn new<I>(components: I) -> Result<Self, MetainfoError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let raw: Vec<I::Item> = components.into_iter().collect();
        let checked: Result<Vec<String>, PathFault> =
            raw.iter().map(|part| component(part.as_ref())).collect();
        let path = checked.and_then(|parts| {
            let len: usize = parts.iter().map(|part| part.len() + 1).sum();
            match parts.len() {
                0 => Err(PathFault::Empty),
                count if count > PATH_DEPTH_MAX => Err(PathFault::TooDeep),
                _ if len > PATH_LEN_MAX + 1 => Err(PathFault::TooLong),
                _ => Ok(Self(parts)),
            }
        });
        path.map_err(|fault| MetainfoError::Path { path: lossy(&raw), fault })
    }

    /// The names of the folders, then of the file. At least one.
    #[must_use]
    pub fn components(&self) -> &[String] {
        &self.0
    }

    pub(super) fn refuse(&self, fault: PathFault) -> MetainfoError {
        MetainfoError::Path { path: self.to_string(), fault }
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Checks the name of one file or folder.
pub(super) fn component(name: &[u8]) -> Result<String, PathFault> {
    let name = str::from_utf8(name).map_err(|_| PathFault::NotUtf8)?;
    match name {
        "" => Err(PathFault::Empty),
        "." | ".." => Err(PathFault::Dots),
        _ if name.contains('/') => Err(PathFault::Separator),
        _ if name.contains('\0') => Err(PathFault::Nul),
        _ if name.len() > NAME_LEN_MAX => Err(PathFault::TooLong),
        _ => Ok(name.to_owned()),
    }
}

/// A refused path for an error message: cut, so that the message is not as long as the path.
pub(super) fn lossy<T: AsRef<[u8]>>(components: &[T]) -> String {
    const SHOWN_MAX: usize = 200;
    let mut shown = String::new();
    for (at, part) in components.iter().enumerate() {
        if at > 0 {
            shown.push('/');
        }
        shown.extend(String::from_utf8_lossy(part.as_ref()).chars().take(SHOWN_MAX));
        if shown.chars().count() > SHOWN_MAX {
            shown = shown.chars().take(SHOWN_MAX).collect();
            shown.push('…');
            break;
        }
    }
    shown
}

/// Refuses two paths that are the same, or of which one lies within the other.
pub(super) fn check_distinct<'a>(
    paths: impl Iterator<Item = &'a FilePath>,
) -> Result<(), MetainfoError> {
    let mut sorted: Vec<&FilePath> = paths.collect();
    sorted.sort_unstable();
    // Whatever begins with a path sorts directly behind it.
    match sorted.windows(2).find(|pair| pair[1].0.starts_with(&pair[0].0)) {
        Some(pair) => Err(pair[1].refuse(PathFault::Taken)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(parts: &[&str], expect: Result<&str, PathFault>) {
        let path = FilePath::new(parts);
        match (path, expect) {
            (Ok(path), Ok(expect)) => assert_eq!(path.to_string(), expect),
            (Err(MetainfoError::Path { fault, .. }), Err(expect)) => assert_eq!(fault, expect),
            (got, expect) => panic!("{got:?} instead of {expect:?}"),
        }
    }

    #[test]
    fn paths_cannot_leave_the_folder() {
        check(&["a", "b c", "ü"], Ok("a/b c/ü"));
        check(&["..."], Ok("..."));
        check(&[r"dev-disk-by\x2duuid.swap"], Ok(r"dev-disk-by\x2duuid.swap"));
        check(&[], Err(PathFault::Empty));
        check(&["a", ""], Err(PathFault::Empty));
        check(&["a", "..", "b"], Err(PathFault::Dots));
        check(&["."], Err(PathFault::Dots));
        check(&["/etc"], Err(PathFault::Separator));
        check(&["a/b"], Err(PathFault::Separator));
        check(&["a\0"], Err(PathFault::Nul));
        check(&[&"a".repeat(255)], Ok(&"a".repeat(255)));
        check(&[&"a".repeat(256)], Err(PathFault::TooLong));
        check(&["a"; 32], Ok(&["a"; 32].join("/")));
        check(&["a"; 33], Err(PathFault::TooDeep));
        let half = "a".repeat(127);
        check(&[half.as_str(); 16], Ok(&[half.as_str(); 16].join("/")));
        check(&[half.as_str(); 17], Err(PathFault::TooLong));
        assert!(FilePath::new([b"\xff"]).is_err());
    }

    #[test]
    fn refused_path_is_named_but_cut() {
        let error = FilePath::new(["..", "etc", "passwd"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "path \"../etc/passwd\" is refused: it has a part \".\" or \"..\""
        );
        let long = FilePath::new(vec!["a".repeat(300); 100]).unwrap_err();
        assert!(long.to_string().len() < 300);
    }

    #[test]
    fn paths_must_not_overlap() {
        let paths = |list: &[&[&str]]| {
            let list: Vec<_> = list.iter().map(|p| FilePath::new(*p).unwrap()).collect();
            check_distinct(list.iter()).is_ok()
        };
        assert!(paths(&[&["a", "b"], &["a.b"], &["a", "c"], &["a-"], &["b"]]));
        assert!(!paths(&[&["a", "b"], &["c"], &["a", "b"]]));
        assert!(!paths(&[&["a", "b"], &["a.b"], &["a-"], &["a"]]));
    }
}
