//! Metainfo: what a .torrent file says (BEP 3, 47, 52).
/// x
pub const PATH_DEPTH_MAX: usize = 32;
/// x
pub const FILES_MAX: usize = 1 << 16;
