//! Trackers: BEP 3, 7, 15, 23, 48.
