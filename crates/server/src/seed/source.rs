//! What a lab's server gives over HTTP: its manifest, if it is another than before, and torrents.
//! None of it is believed before it is verified, and none of it is longer than its kind can be.

use std::str::FromStr;
use std::time::Duration;

use boot::manifest::{self, Manifest, ManifestError};
use boot::{Image, LabPublicKey, Signature};
use torrent::metainfo::{METAINFO_LEN_MAX, Metainfo, MetainfoError};

/// A server on the same network answers in milliseconds; one that is gone shall be known as that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For all of an answer: 4 MiB of manifest over a megabit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A signature is one line of some 170 bytes.
const SIGNATURE_LEN_MAX: usize = 1024;

/// A lab's server as nodes reach it, such as `http://10.0.0.1:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabUrl(String);

/// A text that is no such URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the URL of a lab's server: write it like http://10.0.0.1:8080")]
pub(crate) struct LabUrlError(String);

impl FromStr for LabUrl {
    type Err = LabUrlError;

    fn from_str(text: &str) -> Result<Self, LabUrlError> {
        let host = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        match host {
            Some(host) if !host.is_empty() && !host.contains(['/', ' ', '?', '#', '@']) => {
                Ok(Self(format!("http://{host}")))
            }
            _ => Err(LabUrlError(text.chars().take(80).collect())),
        }
    }
}

impl std::fmt::Display for LabUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something was not got, or not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("{url}: {source}")]
    Lost { url: String, source: ureq::Error },
    #[error("{url}: no signature stands there")]
    NoSignature { url: String },
    #[error("{url}")]
    Manifest { url: String, source: ManifestError },
    #[error("{url}: serial {serial} is older than {newest}, which was seen before")]
    Stale { url: String, serial: u64, newest: u64 },
    #[error("{url}")]
    Metainfo { url: String, source: MetainfoError },
    #[error("{url}: this is not the torrent that the manifest names (yet)")]
    OtherInfohash { url: String },
}

/// A manifest that was verified, and the bytes that show it to others.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
    pub(super) signature: String,
}

impl Signed {
    /// Verifies; `url` is where it is from, for whoever reads the error.
    pub(super) fn open(
        url: &str,
        bytes: Vec<u8>,
        signature: Vec<u8>,
        key: &LabPublicKey,
    ) -> Result<Self, SourceError> {
        let none = || SourceError::NoSignature { url: url.to_owned() };
        let signature = String::from_utf8(signature).map_err(|_| none())?;
        let parsed: Signature = signature.parse().map_err(|_| none())?;
        let manifest = Manifest::open(&bytes, &parsed, key)
            .map_err(|source| SourceError::Manifest { url: url.to_owned(), source })?;
        Ok(Self { manifest, bytes, signature })
    }
}

/// An answer.
struct Got {
    bytes: Vec<u8>,
    /// What tells it from another one at the same URL.
    tag: Option<String>,
}

/// The lab's server.
#[derive(Debug)]
pub(super) struct Source {
    url: LabUrl,
    key: LabPublicKey,
    client: ureq::Agent,
    /// Of the manifest that was taken last.
    tag: Option<String>,
}

impl Source {
    pub(super) fn new(url: LabUrl, key: LabPublicKey) -> Self {
        let client = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .user_agent(concat!("BootTorrent/", env!("CARGO_PKG_VERSION")))
            // A lab is on this network: what the environment says of proxies is not for it.
            .proxy(None)
            .build()
            .new_agent();
        Self { url, key, client, tag: None }
    }

    /// The manifest in force; none if it is the one that was got before. `newest` is the serial of
    /// one that is known: nothing older is taken.
    ///
    /// # Errors
    /// If the server does not give it, or it is not this lab's.
    pub(super) fn manifest(&mut self, newest: u64) -> Result<Option<Signed>, SourceError> {
        let url = format!("{}/manifest.json", self.url);
        let Some(got) = self.get(&url, manifest::LEN_MAX, self.tag.as_deref())? else {
            return Ok(None);
        };
        let signature = format!("{}/manifest.sig", self.url);
        let signature = self.get(&signature, SIGNATURE_LEN_MAX, None)?;
        let signature = signature.map(|got| got.bytes).unwrap_or_default();
        // Another may have been published between the two; then it does not hold, and the next look
        // gets both anew.
        let signed = Signed::open(&url, got.bytes, signature, &self.key)?;
        let serial = signed.manifest.serial;
        if serial < newest {
            return Err(SourceError::Stale { url, serial, newest });
        }
        self.tag = got.tag;
        Ok(Some(signed))
    }

    /// The torrent of an image, and its bytes.
    ///
    /// # Errors
    /// If the server does not give the one that the manifest names.
    pub(super) fn torrent(&self, image: &Image) -> Result<(Metainfo, Vec<u8>), SourceError> {
        let url = format!("{}/torrents/{}.torrent", self.url, image.name);
        let bytes = self.get(&url, METAINFO_LEN_MAX, None)?.map(|got| got.bytes);
        let bytes = bytes.unwrap_or_default();
        match open_torrent(&bytes, image) {
            Ok(Some(metainfo)) => Ok((metainfo, bytes)),
            Ok(None) => Err(SourceError::OtherInfohash { url }),
            Err(source) => Err(SourceError::Metainfo { url, source }),
        }
    }

    /// What is there, of at most `len_max` bytes, with its tag; none if it still has `tag`.
    fn get(
        &self,
        url: &str,
        len_max: usize,
        tag: Option<&str>,
    ) -> Result<Option<Got>, SourceError> {
        let lost = |source| SourceError::Lost { url: url.to_owned(), source };
        let mut request = self.client.get(url);
        if let Some(tag) = tag {
            request = request.header("If-None-Match", tag);
        }
        let mut response = request.call().map_err(lost)?;
        if response.status() == 304 {
            return Ok(None);
        }
        let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok());
        let tag = tag.map(str::to_owned);
        let body = response.body_mut().with_config().limit(len_max as u64);
        Ok(Some(Got { bytes: body.read_to_vec().map_err(lost)?, tag }))
    }
}

/// The torrent that `bytes` are, if it is the image's; none if it is another's. SHA-1 is not asked.
pub(super) fn open_torrent(bytes: &[u8], image: &Image) -> Result<Option<Metainfo>, MetainfoError> {
    let metainfo = Metainfo::decode(bytes)?;
    let hash = metainfo.info_hash_v2();
    let is_it = hash.is_some_and(|hash| hash.as_bytes() == image.infohash);
    Ok(is_it.then_some(metainfo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_named_by_the_root_of_its_server() {
        let check = |text: &str, expect: Option<&str>| {
            let url = text.parse::<LabUrl>().ok();
            assert_eq!(url.map(|url| url.to_string()).as_deref(), expect, "{text}");
        };
        check("http://10.0.0.1:8080", Some("http://10.0.0.1:8080"));
        check("http://lab.example/", Some("http://lab.example"));
        check("http://10.0.0.1:8080/manifest.json", None);
        check("http://user@10.0.0.1", None);
        check("https://10.0.0.1", None);
        check("10.0.0.1:8080", None);
        check("http://", None);
    }
}
