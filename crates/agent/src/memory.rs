//! Whether an image fits in the memory of this node, asked before anything is downloaded: without
//! memory the kernel kills this program in the middle of it.

use boot::Failure;

use crate::console::mib;
use crate::failed::Fails;

/// What has to stay free beside the image. The agent with its threads takes about 10 MiB; socket
/// buffers of a full swarm up to 4 MiB a peer for those few that are fast; the kernel's own pages
/// and reserves 1 to 2 % of a node with a gigabyte; the rest is for what was not thought of.
pub(crate) const HEADROOM: u64 = 64 << 20;

/// What a system needs to start on the running kernel, beside its root, which stays in memory: systemd
/// with its journal, udev and a login prompt takes 70 to 100 MiB with what it writes.
pub(crate) const OVERLAY_HEADROOM: u64 = 128 << 20;

/// What an image needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// Bytes of the image.
    pub(crate) image_len: u64,
    /// Bytes of it that are in memory already, from an attempt before.
    pub(crate) stored_len: u64,
    /// Bytes that the loader needs at the same time.
    pub(crate) loader_len: u64,
}

/// The image does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} are missing: the image has {}, loading it takes {} more, {} have to stay free, and {} are available",
    mib(needed - available), mib(need.image_len), mib(need.loader_len), mib(HEADROOM), mib(*available)
)]
pub(crate) struct NotEnough {
    need: Need,
    needed: u64,
    available: u64,
}

impl Fails for NotEnough {
    fn failure(&self) -> Failure {
        Failure::NotEnoughMemory
    }
}

/// Whether it fits into what the kernel can give, `MemAvailable`.
///
/// # Errors
/// If it does not.
pub(crate) fn check(need: Need, available: u64) -> Result<(), NotEnough> {
    let missing = need.image_len.saturating_sub(need.stored_len);
    let needed = missing.saturating_add(need.loader_len).saturating_add(HEADROOM);
    if needed <= available { Ok(()) } else { Err(NotEnough { need, needed, available }) }
}

/// What kexec takes beside the image: the kernel reads each file whole before it copies it to where
/// it will run, so for a moment there are two more of each.
pub(crate) const fn kexec_len(file_lens: u64) -> u64 {
    file_lens.saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_missing_is_said() {
        let need = Need { image_len: 300 * MIB, stored_len: 0, loader_len: 100 * MIB };
        assert_eq!(check(need, 464 * MIB), Ok(()));
        let error = check(need, 463 * MIB).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1.0 MiB are missing: the image has 300 MiB, loading it takes 100 MiB more, 64 MiB \
             have to stay free, and 463 MiB are available"
        );
    }

    #[test]
    fn what_is_there_already_is_not_needed_again() {
        let need = Need { image_len: 300 * MIB, stored_len: 300 * MIB, loader_len: 0 };
        assert_eq!(check(need, 64 * MIB), Ok(()));
    }

    #[test]
    fn lengths_beyond_reason_do_not_fit() {
        let need = Need { image_len: u64::MAX, stored_len: 0, loader_len: u64::MAX };
        assert!(check(need, 1 << 40).is_err());
    }
}
