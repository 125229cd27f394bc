//! Read-only TFTP without I/O: blksize, tsize, timeout, windowsize.
#![deny(missing_docs)]
