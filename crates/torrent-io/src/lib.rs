//! torrent-io
