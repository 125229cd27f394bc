//! What is done with images from afar: back to a version that was kept, or the same files published
//! anew. The same as `boottorrent image rollback` and `publish`, which need no server.

use std::sync::atomic::AtomicBool;

use boot::ImageName;
use image::catalogue::Catalogue;
use image::command::Work;
use image::error::ImageError;

use super::{Deeds, Done, Refusal, blocking, chain};

impl Deeds {
    /// Nodes boot a kept version, by default the one before.
    pub(super) async fn roll_back(
        &self,
        image: ImageName,
        to: Option<u32>,
    ) -> Result<Done, Refusal> {
        self.exchange(image, "is back", move |catalogue, name| catalogue.rollback(name, to)).await
    }

    /// Nodes are told of the same files with another title or other words for the command line.
    pub(super) async fn publish(
        &self,
        image: ImageName,
        title: Option<String>,
        cmdline: Option<String>,
    ) -> Result<Done, Refusal> {
        self.exchange(image, "is published", move |catalogue, name| {
            let work = Work { tell: &|_| (), stop: &AtomicBool::new(false) };
            image::build::publish(catalogue, name, title, cmdline, &work)
        })
        .await
    }

    /// Has another version take the place of what nodes boot. If the lab would be wrong with it the one
    /// before is put back, so that a server that starts anew finds what it can serve.
    async fn exchange(
        &self,
        image: ImageName,
        what: &str,
        change: impl FnOnce(&Catalogue, &str) -> Result<u32, ImageError> + Send + 'static,
    ) -> Result<Done, Refusal> {
        // Two at a time would put each other's folders right.
        let _alone = self.0.images.lock().await;
        let (dir, name) = (self.0.settings.dir.clone(), image.clone());
        let changed = blocking(move || {
            let (catalogue, name) = (Catalogue::new(&dir), name.as_str());
            let before = catalogue.data(name)?.version;
            change(&catalogue, name).map(|after| (before, after))
        });
        let (before, version) = changed.await?.map_err(refusal)?;
        if let Err(text) = (self.0.reload)().await {
            let dir = self.0.settings.dir.clone();
            let back =
                blocking(move || Catalogue::new(&dir).rollback(image.as_str(), Some(before)));
            self.0.versions.forget();
            back.await?.map_err(refusal)?;
            return Err(Refusal::Conflict(format!("it stays at version {before}: {text}")));
        }
        self.0.versions.forget();
        let text = format!("{image} {what}: version {version}");
        Ok(Done { version: Some(version), text, ..Done::default() })
    }
}

/// Who asks can do something about some of what is in the way, and the server's owner about the rest.
fn refusal(error: ImageError) -> Refusal {
    let text = chain(&error);
    match error {
        ImageError::NoSuchImage(_) => Refusal::Missing(text),
        ImageError::Read { .. } | ImageError::Write { .. } => Refusal::Failed(format!(
            "{text}: if it is another user's, `boottorrent image rollback` or `publish` as root does it"
        )),
        ImageError::Data { .. } | ImageError::Command(_) | ImageError::NoSpace { .. } => {
            Refusal::Failed(text)
        }
        _ => Refusal::Conflict(text),
    }
}
