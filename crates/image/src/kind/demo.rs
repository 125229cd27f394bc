//! The worked example for authors of kinds: an image that is one text file. It can die in the middle,
//! so that one sees what is left and how it is cleaned.

use super::{BootEntry, Kind};
use crate::catalogue::Build;
use crate::command::Work;
use crate::data::ImageData;
use crate::error::ImageError;
use crate::host;

/// The attribute with the text.
pub const MESSAGE: &str = "message";

/// The attribute that makes the program die in the middle of the build, as by `kill -9`.
pub const CRASH: &str = "crash";

/// A program of the image that prints the message.
const PROGRAM: &str = "hello";

/// An image that says something.
pub struct Demo;

impl Kind for Demo {
    fn name(&self) -> &'static str {
        "demo"
    }

    fn class(&self) -> &'static str {
        "DemoImage"
    }

    fn about(&self) -> &'static str {
        "an example for authors of kinds: prints a message on the node"
    }

    fn create(
        &self,
        build: &Build<'_>,
        data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError> {
        work.step("writing the message")?;
        let message = data.attributes.entry(MESSAGE.to_owned()).or_default();
        if message.is_empty() {
            "Hello from a demo image".clone_into(message);
        }
        let text = message.replace('\'', "'\\''");
        let file = build.output().join(PROGRAM);
        host::write(&file, format!("#!/bin/busybox sh\necho '{text}'\n"))
            .map_err(ImageError::write(&file))?;
        if data.attributes.remove(CRASH).is_some() {
            work.step("dying, as was asked for")?;
            std::process::abort();
        }
        Ok(())
    }

    fn copy(
        &self,
        _from: &str,
        build: &Build<'_>,
        data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError> {
        self.create(build, data, work)
    }

    fn boot_entry(&self, data: &ImageData) -> BootEntry {
        let title = super::title(data);
        BootEntry {
            config: format!("dispname: {title}\nmethod: bin\nbin: {PROGRAM}\n"),
            script: None,
        }
    }
}
