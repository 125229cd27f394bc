//! From the name of an image to all of its bytes, verified and in memory: its torrent, the question
//! whether it fits, the download.

use boot::Image;
use boot::manifest::Discovery;
use torrent::metainfo::Metainfo;

use crate::download::{Download, Folder, VerifiedImage};
use crate::failed::{Failed, chain};
use crate::loader::LoadFailure;
use crate::memory::{self, Need};
use crate::node::Node;
use crate::sources::Sources;
use crate::torrent as torrents;

/// An image that is there, of which this node is a seed as long as `download` is kept.
pub(crate) struct Fetched {
    pub(crate) download: Download,
    pub(crate) verified: VerifiedImage,
    /// The torrent's file.
    pub(crate) torrent: Vec<u8>,
}

/// How something is fetched.
pub(crate) struct Order<'a> {
    pub(crate) image: &'a Image,
    /// Another whose bytes have to stay.
    pub(crate) beside: Option<&'a Image>,
    pub(crate) discovery: &'a Discovery,
    /// Somebody is there, who may change his mind.
    pub(crate) is_there: bool,
}

/// Fetches it. `loader_len` says, by the torrent, how many bytes of memory running it takes beside the
/// image, or why it cannot be run. None if the person wants something else.
///
/// # Errors
/// If any of that fails.
pub(crate) fn fetch(
    node: &mut Node,
    sources: &Sources,
    order: &Order<'_>,
    loader_len: impl FnOnce(&Metainfo) -> Result<u64, LoadFailure>,
) -> Result<Option<Fetched>, Failed> {
    let image = order.image;
    let console = node.console.clone();
    let (metainfo, torrent) = torrents::find(sources, image, &mut |refused| {
        console.say(&format!("  passed over: {}", chain(refused)));
    })?;
    let loader_len = loader_len(&metainfo)?;
    let folder = Folder::make(&node.options.root, image, order.beside)?;
    let image_len = metainfo.geometry().data_len();
    let need = Need { image_len, stored_len: folder.stored_len(), loader_len };
    if let Some(available) = node.available_memory() {
        memory::check(need, available)?;
    }
    let mut download = Download::start(node, &folder, image, metainfo, order.discovery)?;
    match download.finish(node, order.is_there)? {
        Some(verified) => Ok(Some(Fetched { download, verified, torrent })),
        None => Ok(None),
    }
}
