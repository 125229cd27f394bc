//! A purse of bytes that many share, without order or waiting: who wants more than its own gets a share of what is
//! left, so that few can have much and many leave something to who comes last (the dynamic threshold
//! of switches' shared buffers, Choudhury and Hahne 1998).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One may have this part of what the others leave: four take a fifth of the purse, a hundred 86 % of it.
const PART: usize = 16;

/// Bytes to share.
#[derive(Clone, Debug)]
pub(super) struct Purse(Arc<AtomicUsize>);

/// What somebody has of them; it goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Grant {
    purse: Purse,
    len: usize,
}

impl Purse {
    pub(super) fn new(len: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(len)))
    }

    /// Nothing of it, to begin with.
    pub(super) fn grant(&self) -> Grant {
        Grant { purse: self.clone(), len: 0 }
    }

    #[cfg(test)]
    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Grant {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes it `len` bytes; returns whether the purse had them.
    pub(super) fn resize(&mut self, len: usize) -> bool {
        let Some(more) = len.checked_sub(self.len) else {
            self.purse.0.fetch_add(self.len - len, Ordering::Relaxed);
            self.len = len;
            return true;
        };
        let take = |left: usize| left.checked_sub(more).filter(|_| len <= left / PART);
        let taken = self.purse.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if taken {
            self.len = len;
        }
        taken
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.purse.0.fetch_add(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_who_want_much_leave_something() {
        let purse = Purse::new(64 << 20);
        let mut grants: Vec<Grant> = (0..4_096).map(|_| purse.grant()).collect();
        for len in [64 << 10, 256 << 10, 1 << 20] {
            for grant in &mut grants {
                grant.resize(len);
            }
        }
        assert!(purse.left() > 512 << 10, "{}", purse.left());
        assert!(purse.grant().resize(32 << 10));
        assert_eq!(purse.left() + grants.iter().map(|grant| grant.len).sum::<usize>(), 64 << 20);
        drop(grants);
        assert_eq!(purse.left(), 64 << 20);
    }

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let purse = Purse::new(1 << 20);
        let mut grant = purse.grant();
        assert!(grant.resize(64 << 10) && !grant.resize(128 << 10));
        assert!(grant.resize(0) && grant.resize(64 << 10));
    }
}
