//! Images and kernels: build, import, state, phase 1.
#![deny(missing_docs)]
