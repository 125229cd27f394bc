//! Long work on images, as a person sees it: the step, how far it is, and Ctrl+C.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use image::command::{Event, Work};
use serde_json::json;

use crate::cli::OutputFormat;
use crate::progress::Console;
use crate::signals;

/// What is being done, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    /// What it is about: an image or a kernel.
    pub(crate) name: &'a str,
    pub(crate) output: OutputFormat,
}

/// Does long work: shows its steps, and has it end at Ctrl+C, after which nothing of it is left.
pub(crate) fn with_work<T, E: Into<anyhow::Error>>(
    task: Task<'_>,
    work: impl FnOnce(&Work<'_>) -> Result<T, E>,
) -> anyhow::Result<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    signals::watch(move |_| stopped.store(true, Ordering::Relaxed))?;
    let console = RefCell::new(Console::new(task.output));
    let step = RefCell::new(String::new());
    let tell = |event: Event<'_>| match event {
        Event::Step(text) => {
            text.clone_into(&mut step.borrow_mut());
            let event = json!({"event": "step", "name": task.name, "step": text});
            console.borrow().say(&format!("{}: {text}", task.name), &event);
        }
        Event::Progress { done, total } => {
            console.borrow_mut().hashing(&step.borrow(), task.name, done, total);
        }
        Event::Warning(text) => console.borrow().warn(text),
    };
    let result = work(&Work { tell: &tell, stop: &stop });
    console.borrow().finish();
    result.map_err(Into::into)
}
