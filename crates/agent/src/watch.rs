//! Whether a download still moves. Pure: the clock and the figures are handed in.

use std::time::Duration;

/// Silence after which nobody sends the image: trackers have been asked again, and web seeds have
/// been tried some times.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long bytes may come without any of them becoming a verified one: the longest piece, 16 MiB,
/// at 1 Mbit/s.
const FRUITLESS_MAX: Duration = Duration::from_secs(140);

/// Silence that is enough when somebody has sent bytes that are not the image's: it is not used any
/// more, and who else has the bytes sends them within this.
const CORRUPT_SILENCE_MAX: Duration = Duration::from_secs(5);

/// Why a download is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing comes.
    Silent,
    /// What comes is not the image.
    Corrupt,
}

/// The latest figures, and since when they are so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    verified: (u64, Duration),
    downloaded: (u64, Duration),
    corrupt: bool,
}

impl Watch {
    /// Begins at `now`, a time since whenever.
    pub(crate) fn new(now: Duration) -> Self {
        Self { verified: (0, now), downloaded: (0, now), corrupt: false }
    }

    /// The figures at `now`, in bytes.
    pub(crate) fn figures(&mut self, now: Duration, verified: u64, downloaded: u64) {
        if verified != self.verified.0 {
            self.verified = (verified, now);
        }
        if downloaded != self.downloaded.0 {
            self.downloaded = (downloaded, now);
        }
    }

    /// Somebody sent other bytes than the image's.
    pub(crate) fn corrupt(&mut self) {
        self.corrupt = true;
    }

    /// What to think of it at `now`.
    pub(crate) fn verdict(&self, now: Duration) -> Option<Verdict> {
        let fruitless = now.saturating_sub(self.verified.1);
        let silent = now.saturating_sub(self.downloaded.1);
        if self.corrupt && fruitless >= CORRUPT_SILENCE_MAX {
            Some(Verdict::Corrupt)
        } else if silent >= SILENCE_MAX || fruitless >= FRUITLESS_MAX {
            Some(Verdict::Silent)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_download_is_silent_when_nothing_comes() {
        let mut watch = Watch::new(at(100));
        assert_eq!(watch.verdict(at(129)), None);
        assert_eq!(watch.verdict(at(130)), Some(Verdict::Silent));
        watch.figures(at(129), 0, 1);
        assert_eq!(watch.verdict(at(158)), None);
        assert_eq!(watch.verdict(at(159)), Some(Verdict::Silent));
    }

    #[test]
    fn bytes_that_never_become_verified_ones_are_not_waited_for() {
        let mut watch = Watch::new(at(0));
        for second in 0..140 {
            watch.figures(at(second), 0, second);
            assert_eq!(watch.verdict(at(second)), None);
        }
        assert_eq!(watch.verdict(at(140)), Some(Verdict::Silent));
    }

    #[test]
    fn corrupt_bytes_matter_only_if_nobody_has_good_ones() {
        let mut watch = Watch::new(at(0));
        watch.corrupt();
        for second in 1..60 {
            watch.figures(at(second), second, second);
            assert_eq!(watch.verdict(at(second)), None);
        }
        assert_eq!(watch.verdict(at(64)), Some(Verdict::Corrupt));
    }
}
