//! The URL of each file of a torrent on a web seed (BEP 19).

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::error::WebSeedError;
use crate::storage::Layout;

/// What is encoded in a segment of a path: all but the unreserved characters of RFC 3986 §2.3, so
/// that no server and no proxy can take a part of a file name for syntax.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The base that all files of one torrent share.
#[derive(Clone, Debug)]
pub(super) struct BaseUrl {
    url: String,
    /// The URL is the file itself.
    is_file: bool,
}

impl BaseUrl {
    /// BEP 19: a URL that ends in a slash is a folder that the torrent's name is appended to; one
    /// that does not is the file itself, or for a torrent of many files again the folder.
    pub(super) fn new(url: &str, layout: &Layout) -> Result<Self, WebSeedError> {
        let scheme = url.get(..7).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("http://") {
            return Err(WebSeedError::Scheme(url.to_owned()));
        }
        Ok(Self { url: url.to_owned(), is_file: layout.is_single_file() && !url.ends_with('/') })
    }

    /// The URL of a file, by its path in the layout.
    pub(super) fn file(&self, path: &Path) -> String {
        if self.is_file {
            return self.url.clone();
        }
        let mut url = self.url.trim_end_matches('/').to_owned();
        for segment in path {
            url.push('/');
            url.extend(percent_encode(segment.as_encoded_bytes(), SEGMENT));
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::FileSpan;

    fn check(url: &str, path: &str, expect: &str) {
        let span = FileSpan { path: path.into(), start: 0, len: 1, padding: false };
        let layout = Layout::new(16, vec![span]).unwrap();
        let base = BaseUrl::new(url, &layout).unwrap();
        assert_eq!(base.file(Path::new(path)), expect);
    }

    #[test]
    fn a_folder_takes_the_name_and_a_file_is_itself() {
        check("http://h/a.img", "x.img", "http://h/a.img");
        check("http://h/get?id=7", "x.img", "http://h/get?id=7");
        check("http://h/pub/", "x.img", "http://h/pub/x.img");
        check("http://h/pub", "t/x.img", "http://h/pub/t/x.img");
        check("HTTP://h/pub/", "t/d/x", "HTTP://h/pub/t/d/x");
    }

    #[test]
    fn each_segment_is_encoded() {
        check("http://h/", "t/a b#c?d%e", "http://h/t/a%20b%23c%3Fd%25e");
        check("http://h/", "t/\u{e4}+~", "http://h/t/%C3%A4%2B~");
    }

    #[test]
    fn only_plain_http_is_spoken() {
        let span = FileSpan { path: "x".into(), start: 0, len: 1, padding: false };
        let layout = Layout::new(16, vec![span]).unwrap();
        for url in ["https://h/", "ftp://h/", "", "http:/", "/x"] {
            let found = BaseUrl::new(url, &layout);
            assert!(matches!(found, Err(WebSeedError::Scheme(at)) if at == url));
        }
    }
}
