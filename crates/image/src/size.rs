//! The size of an image as people write it: `700M`, `5G`, `1.5G`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The least megabytes of an image: no Linux that serves anybody is smaller.
pub const SIZE_MB_MIN: u32 = 100;

/// The most megabytes of an image: it is held in a node's memory.
pub const SIZE_MB_MAX: u32 = 50_000;

/// How much an image may hold, in megabytes of 1024 × 1024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ImageSize(u32);

/// A text that is no size of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageSizeError {
    /// It is not written as one.
    #[error("`{0}` is no size: write 700M, 5G or 1.5G")]
    Form(String),
    /// It is too small or too large.
    #[error("{0} MB is out of limits: an image has {SIZE_MB_MIN} to {SIZE_MB_MAX} MB")]
    Limits(u64),
}

impl ImageSize {
    /// In megabytes.
    pub fn megabytes(self) -> u32 {
        self.0
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) << 20
    }
}

impl TryFrom<u32> for ImageSize {
    type Error = ImageSizeError;

    fn try_from(megabytes: u32) -> Result<Self, ImageSizeError> {
        match megabytes {
            SIZE_MB_MIN..=SIZE_MB_MAX => Ok(Self(megabytes)),
            other => Err(ImageSizeError::Limits(other.into())),
        }
    }
}

impl From<ImageSize> for u32 {
    fn from(size: ImageSize) -> Self {
        size.0
    }
}

impl FromStr for ImageSize {
    type Err = ImageSizeError;

    /// Whole megabytes with `M`, or gigabytes with up to three decimals with `G`.
    fn from_str(text: &str) -> Result<Self, ImageSizeError> {
        let form = || ImageSizeError::Form(text.chars().take(40).collect());
        let megabytes = match (text.strip_suffix('M'), text.strip_suffix('G')) {
            (Some(number), _) => whole(number).ok_or_else(form)?,
            (_, Some(number)) => gigabytes(number).ok_or_else(form)?,
            _ => return Err(form()),
        };
        u32::try_from(megabytes).map_err(|_| ImageSizeError::Limits(megabytes))?.try_into()
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0)
    }
}

/// A number that does not begin with zero and is short enough to calculate with.
fn whole(text: &str) -> Option<u64> {
    let digits = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    (digits && !text.starts_with('0')).then(|| text.parse().ok())?
}

/// The megabytes in `1.5`.
fn gigabytes(text: &str) -> Option<u64> {
    let (units, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{decimals:0<3}").parse::<u64>().ok()?;
    Some(whole(units)? * 1024 + thousandths * 1024 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_megabytes_or_gigabytes() {
        let check = |text: &str, expect: u32| {
            assert_eq!(text.parse::<ImageSize>().map(ImageSize::megabytes), Ok(expect), "{text}");
        };
        check("700M", 700);
        check("5G", 5120);
        check("1.5G", 1536);
        check("10.125G", 10368);
        check("100M", SIZE_MB_MIN);
        check("50000M", SIZE_MB_MAX);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "5", "5g", "100K", "1.5M", "0.5G", "0M", "1'5G", "1.2345G", "-1G"] {
            let error = text.parse::<ImageSize>().unwrap_err();
            assert!(matches!(error, ImageSizeError::Form(_)), "{text}: {error}");
        }
    }

    #[test]
    fn the_limits_are_said() {
        for text in ["99M", "50001M", "999999999G"] {
            let error = text.parse::<ImageSize>().unwrap_err().to_string();
            assert!(error.contains("100 to 50000 MB"), "{text}: {error}");
        }
    }
}
