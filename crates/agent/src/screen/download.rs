//! The page of a download: for somebody who has chosen, and may choose again.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;

use super::{BOLD, PLAIN, head, line, wrap};
use crate::console::{duration, mib};

/// How a download is going. Lengths in bytes, rates in bytes a second.
#[derive(Clone, Debug)]
pub(crate) struct Progress<'a> {
    /// The node's name.
    pub(crate) node: &'a str,
    /// The image's title.
    pub(crate) title: &'a str,
    pub(crate) verified: u64,
    pub(crate) total: u64,
    pub(crate) rate: u64,
    /// Who sends it, as `4 peers` or `by HTTP`.
    pub(crate) from: &'a str,
    /// What other nodes have had from this one.
    pub(crate) uploaded: u64,
    pub(crate) upload_rate: u64,
    /// What trackers and web seeds said last, if they had trouble.
    pub(crate) heard: &'a str,
}

impl Progress<'_> {
    fn percent(&self) -> u64 {
        let percent = (u128::from(self.verified) * 100).checked_div(self.total.into());
        percent.map_or(100, |percent| percent.min(100) as u64)
    }

    fn left(&self) -> String {
        match self.total.saturating_sub(self.verified).checked_div(self.rate) {
            Some(seconds) => format!("{} left", duration(seconds)),
            None => "waiting".to_owned(),
        }
    }
}

/// Draws it on the whole of `buffer`.
pub(crate) fn draw(progress: &Progress<'_>, buffer: &mut Buffer) {
    let area = buffer.area;
    head(buffer, area, "Downloading", progress.node);
    let spare = u16::from(area.height >= 12);
    let body = Rect {
        x: area.x + 1.min(area.width),
        y: area.y + (1 + spare).min(area.height),
        width: area.width.saturating_sub(2),
        height: area.height.saturating_sub(1 + spare),
    };
    let Progress { verified, total, rate, uploaded, upload_rate, .. } = *progress;
    let lines = [
        (progress.title.to_owned(), BOLD),
        (bar(progress.percent(), body.width), PLAIN),
        (format!("{} of {}, {}", mib(verified), mib(total), progress.left()), PLAIN),
        (format!("{}/s, {}", mib(rate), progress.from), PLAIN),
        (format!("given to others: {}, {}/s", mib(uploaded), mib(upload_rate)), PLAIN),
    ];
    let keys_len = u16::from(body.height > 3);
    let room = body.height - keys_len;
    let above = Rect { height: room, ..body };
    let mut row = 0;
    for (text, style) in lines {
        line(buffer, above, row, &text, style);
        row += 1 + spare;
    }
    for text in wrap(progress.heard, body.width) {
        line(buffer, above, row, &text, PLAIN);
        row += 1;
    }
    let keys = Rect { y: body.y + room, height: keys_len, ..body };
    line(buffer, keys, 0, "Esc menu, keeps what has come  ^S shell", PLAIN);
}

/// `[#####.....]  50 %`
fn bar(percent: u64, width: u16) -> String {
    let len = u64::from(width).saturating_sub("[]  100 %".len() as u64);
    let done = (len * percent / 100) as usize;
    let left = len as usize - done;
    format!("[{}{}] {percent:>4} %", "#".repeat(done), ".".repeat(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::{check_sizes, check_snapshot, shot};

    const PROGRESS: Progress<'_> = Progress {
        node: "52:54:00:b7:00:01",
        title: "Debian 12 for the lab",
        verified: 150 << 20,
        total: 600 << 20,
        rate: 10 << 20,
        from: "4 peers",
        uploaded: 90 << 20,
        upload_rate: 5 << 20,
        heard: "",
    };

    #[test]
    fn a_download_tells_how_far_it_is_and_what_it_gives() {
        let found = shot(60, 14, |buffer| draw(&PROGRESS, buffer));
        check_snapshot("download-60x14", &found);
    }

    #[test]
    fn trouble_is_shown_below() {
        let heard = "http://10.0.0.1:6969/announce: connection refused";
        let progress = Progress { heard, rate: 0, from: "0 peers", ..PROGRESS };
        let found = shot(40, 10, |buffer| draw(&progress, buffer));
        check_snapshot("trouble-40x10", &found);
    }

    #[test]
    fn no_screen_is_too_small() {
        check_sizes(|buffer| draw(&PROGRESS, buffer));
        let nothing = Progress { total: 0, verified: 0, ..PROGRESS };
        check_sizes(|buffer| draw(&nothing, buffer));
    }
}
