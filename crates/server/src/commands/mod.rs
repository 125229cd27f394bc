//! The commands that care for a lab and for this program; those that serve have files of their own.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod dashboard;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod man;
pub(crate) mod password;
pub(crate) mod version;

mod network;
