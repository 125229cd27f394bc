//! Metainfo: what a .torrent file says (BEP 3, 47, 52).
