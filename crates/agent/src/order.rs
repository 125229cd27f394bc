//! Does what the server orders, if the lab's key has signed it for this node and this boot.
//!
//! Phase 1 has the key in its initramfs. The process under an image's system, whose root is another,
//! has a copy of it in the folder that only the first user can look into.

use std::path::Path;

use boot::order::Deed;
use boot::{LabPublicKey, Mac, Order};

use crate::machine;

/// In the initramfs.
const KEY: &str = "/etc/boottorrent/lab.pub";

/// What comes along into the root of the image's system.
const KEPT: &str = "/run/boottorrent/lab.pub";

/// Knows whom to obey; nobody, without a key.
pub(crate) struct Obeyer(Option<LabPublicKey>);

impl Obeyer {
    /// In the first process of a node. Elsewhere, as in tests, there is no machine to command.
    pub(crate) fn in_phase1() -> Self {
        if std::process::id() != 1 {
            return Self(None);
        }
        // Without the copy the node goes on, and obeys no more once its system runs.
        let _ = std::fs::copy(KEY, KEPT);
        Self::with_key(Path::new(KEY))
    }

    /// In the process under an image's system.
    pub(crate) fn under_a_system() -> Self {
        Self::with_key(Path::new(KEPT))
    }

    fn with_key(path: &Path) -> Self {
        Self(std::fs::read_to_string(path).ok().and_then(|text| text.parse().ok()))
    }

    /// Does what is ordered, if this is an order of the lab.
    pub(crate) fn obey(&self, order: &Order, node: Mac, boot: u64) {
        match self.deed(order, node, boot, machine::uptime_ms()) {
            Some(Deed::Reboot) => {
                tracing::info!("the lab orders a new start");
                start_anew();
            }
            Some(Deed::Unknown) | None => tracing::warn!("an order is not the lab's: passed over"),
        }
    }

    fn deed(&self, order: &Order, node: Mac, boot: u64, uptime_ms: u64) -> Option<Deed> {
        order.open(self.0.as_ref()?, node, boot, uptime_ms)
    }
}

/// What Ctrl-Alt-Del does: every first process knows that signal, this program as well as systemd,
/// SysV's and busybox's, and ends what runs in its own way.
fn start_anew() {
    // SAFETY: a system call without memory.
    unsafe {
        libc::kill(1, libc::SIGINT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot::LabKey;

    #[test]
    fn only_the_labs_word_counts_and_outside_of_a_node_nobodys() {
        let (key, node) = (LabKey::from_seed([1; 32]), Mac([2; 6]));
        let order = Order::sign(&key, Deed::Reboot, node, 7, 1_000);
        let check = |obeyer: &Obeyer, boot, expect| {
            assert_eq!(obeyer.deed(&order, node, boot, 2_000), expect);
        };
        check(&Obeyer(Some(key.public())), 7, Some(Deed::Reboot));
        check(&Obeyer(Some(key.public())), 8, None);
        check(&Obeyer(Some(LabKey::from_seed([2; 32]).public())), 7, None);
        check(&Obeyer::in_phase1(), 7, None);
    }
}
