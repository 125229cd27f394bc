//! Answers that are made while they are taken: a list of any length costs a reader, and this server, one piece of it.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, Response};
use axum::response::IntoResponse;
use hyper::body::Bytes;
use serde::Serialize;

/// Bytes made at once, and whatever the last element has beyond: as much as the kernel takes of it, so that
/// a reader who reads nothing has two of them.
const PIECE_LEN: usize = 8 << 10;

/// A list on its way.
struct Listing<F> {
    next: F,
    /// What comes after the last element; gone when it was said.
    end: Option<String>,
    is_begun: bool,
}

/// The JSON object that `whole` is, but with what `next` gives, one after the other, in place of the elements of the list that is
/// its first field: that is empty in `whole`, and of the name `list`.
pub(super) fn listing<T: Serialize>(
    list: &str,
    whole: &impl Serialize,
    next: impl FnMut() -> Option<T> + Send + 'static,
) -> Response<Body> {
    let begin = format!("{{\"{list}\":[");
    let text = serde_json::to_string(whole).unwrap_or_default();
    let end = text.strip_prefix(&begin).unwrap_or("]}").to_owned() + "\n";
    let listing = Listing { next, end: Some(end), is_begun: false };
    let pieces =
        futures_util::stream::unfold((begin.into_bytes(), listing), |(begun, mut listing)| async {
            let piece = listing.piece(begun)?;
            Some((Ok::<_, Infallible>(Bytes::from(piece)), (vec![], listing)))
        });
    let fields: [(HeaderName, &str); 2] =
        [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (fields, Body::from_stream(pieces)).into_response()
}

impl<T: Serialize, F: FnMut() -> Option<T>> Listing<F> {
    /// What comes next, after `piece`; nothing after the end.
    fn piece(&mut self, mut piece: Vec<u8>) -> Option<Vec<u8>> {
        self.end.as_ref()?;
        piece.reserve(PIECE_LEN);
        while piece.len() < PIECE_LEN {
            let Some(element) = (self.next)() else {
                piece.extend(self.end.take().unwrap_or_default().into_bytes());
                break;
            };
            if std::mem::replace(&mut self.is_begun, true) {
                piece.push(b',');
            }
            // Into memory nothing fails but a map whose keys are no text, which no view has.
            let _ = serde_json::to_writer(&mut piece, &element);
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Whole {
        numbers: Vec<u32>,
        count: u32,
    }

    async fn listed(count: u32) -> (usize, String) {
        let mut numbers = 0..count;
        let whole = Whole { numbers: vec![], count };
        let mut body = listing("numbers", &whole, move || numbers.next()).into_body();
        let (mut most, mut all) = (0, vec![]);
        while let Some(frame) = std::future::poll_fn(|context| {
            hyper::body::Body::poll_frame(std::pin::Pin::new(&mut body), context)
        })
        .await
        {
            let bytes = frame.unwrap().into_data().unwrap();
            most = most.max(bytes.len());
            all.extend(bytes);
        }
        (most, String::from_utf8(all).unwrap())
    }

    #[tokio::test]
    async fn a_list_in_pieces_is_what_it_would_be_in_one() {
        for count in [0, 1, 2, 100_000] {
            let whole = Whole { numbers: (0..count).collect(), count };
            let (most, text) = listed(count).await;
            assert_eq!(text, serde_json::to_string(&whole).unwrap() + "\n");
            assert!(most <= PIECE_LEN + 30, "{most}");
        }
    }
}
