//! Command lines that differ from node to node: `{{ … }}` in them stands for what is known of the node
//! and for variables of nodes.yaml.
//!
//! minijinja's expressions alone, without its blocks, loops and filters but for three that make nothing
//! longer: who may assign a command line over the network must not be able to keep the server busy with
//! it. What comes out is checked as if it had been written so ([`config`](super::config)).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::LazyLock;

use boot::{Arch, Mac};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, filters};
use serde::Serialize;

/// Variables by name.
pub(crate) type Vars = BTreeMap<String, String>;

/// What a template can name.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Known<'a> {
    pub(crate) node: Facts<'a>,
    pub(crate) server: Server,
    pub(crate) vars: &'a Vars,
}

/// What is known of a node. What is not known cannot be named.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Facts<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<&'a str>,
    pub(crate) mac: Mac,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) arch: Option<Arch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<&'a str>,
}

/// What is known of this server.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) address: Ipv4Addr,
}

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::empty();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.add_filter("default", filters::default);
    engine.add_filter("lower", filters::lower);
    engine.add_filter("upper", filters::upper);
    engine
});

/// The text for a node.
///
/// # Errors
/// What is wrong with it, and what it can name.
pub(crate) fn render(text: &str, known: &Known<'_>) -> Result<String, String> {
    if ["{%", "{#"].iter().any(|begin| text.contains(begin)) {
        return Err("has a block of a template: only {{ … }} can be used here".to_owned());
    }
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    ENGINE.render_str(text, Serde(known)).map_err(|error| {
        let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        format!("is a template that cannot be filled in: {what}; it can name {}", known.names())
    })
}

impl Known<'_> {
    fn names(&self) -> String {
        let Facts { name, mac: _, address, uuid, arch, group } = &self.node;
        let of_node = [
            ("name", name.is_some()),
            ("mac", true),
            ("address", address.is_some()),
            ("uuid", uuid.is_some()),
            ("arch", arch.is_some()),
            ("group", group.is_some()),
        ];
        let of_node = of_node.iter().filter(|(_, is_known)| *is_known);
        let of_node = of_node.map(|(name, _)| format!("node.{name}"));
        let vars = self.vars.keys().map(|name| format!("vars.{name}"));
        let names: Vec<String> = of_node.chain(["server.address".to_owned()]).chain(vars).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        let vars = Vars::from([("rack".to_owned(), "B7".to_owned())]);
        let node = Facts {
            name: Some("c001"),
            mac: "525400000001".parse().unwrap(),
            address: None,
            uuid: None,
            arch: Some(Arch::X86_64),
            group: None,
        };
        let server = Server { address: Ipv4Addr::new(10, 0, 0, 1) };
        render(text, &Known { node, server, vars: &vars })
    }

    #[test]
    fn what_is_known_is_filled_in() {
        let check =
            |text: &str, expect: &str| assert_eq!(filled(text).as_deref(), Ok(expect), "{text}");
        check("quiet", "quiet");
        check("rack={{ vars.rack }} by={{node.name}}", "rack=B7 by=c001");
        check(
            "{{ node.mac }} {{ node.arch }} {{ server.address }}",
            "52:54:00:00:00:01 x86_64 10.0.0.1",
        );
        check("{{ vars.rack|lower }}{{ 'x' if vars.rack == 'B7' else 'y' }}", "b7x");
        check("{{ vars.row|default('none') }}", "none");
        check("a < b & c", "a < b & c");
    }

    #[test]
    fn what_is_not_known_or_too_clever_is_an_error() {
        let check = |text: &str, part: &str| {
            let error = filled(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        };
        check(
            "{{ vars.row }}",
            "it can name node.name, node.mac, node.arch, server.address, vars.rack",
        );
        check("{{ node.address }}", "cannot be filled in");
        check("{{ vars.rack", "cannot be filled in");
        check("{% for i in range(9) %}x{% endfor %}", "only {{ … }}");
        for text in ["{{ vars.rack|indent(1000000000) }}", "{{ range(99999) }}", "{{ debug() }}"] {
            check(text, "cannot be filled in");
        }
    }
}
