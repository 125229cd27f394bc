//! A process that ends when what started it gives up.

use std::process::Child;

/// Ends its process when dropped, if that has not ended by itself.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It has ended by itself when all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
