//! Which nodes an image is needed by: those that are assigned to it, and those that run it.

use std::path::Path;

use crate::client::Target;
use crate::lab;
use crate::status;

/// Each in words; none if the image is not needed.
pub(super) fn nodes(dir: &Path, name: &str) -> Vec<String> {
    let mut users = vec![];
    // A lab whose files have problems still says who is assigned, as far as it can be read.
    if let Ok((configuration, _)) = lab::check(dir) {
        let assigned = configuration.settings.nodes.iter();
        let assigned =
            assigned.filter(|node| node.image.as_ref().is_some_and(|it| it.as_str() == name));
        users.extend(assigned.map(|node| format!("{} is assigned to it", node.name)));
    }
    // Without a server nobody knows what runs, and nobody needs what is removed from it.
    if let Ok(report) = status::ask(&Target::Lab(dir.to_owned())) {
        for node in report.nodes {
            if node.image().is_some_and(|image| image.as_str() == name) {
                let who = node.name.clone().unwrap_or_else(|| node.mac.to_string());
                users.push(format!("{who} runs it"));
            }
        }
    }
    users
}
