//! Groups that take nodes by what they are, and templates.

use super::*;

const ROOM: &str = "groups:
  racks:
    match: {mac: '52:54:00', arch: x86_64, subnet: 10.0.0.0/28}
    image: debian
    cmdline: 'rack={{ vars.rack }} host={{ node.name }}'
    vars: {rack: none, mirror: http://10.0.0.1/}
  old: {match: {nodes: 'o[1-9]'}, boot: disk}
nodes:
  c001: {mac: 525400000001, address: 10.0.0.7, arch: x86_64, vars: {rack: B7}, cmdline: 'n={{ node.group }}'}
  c002: {mac: 525400000002, address: 10.0.0.8, arch: arm64}
  o1: {mac: 525400000003, boot: image}
  o2: {mac: 525400000004}
";

#[test]
fn nodes_are_in_the_first_group_that_takes_them_and_have_its_words_filled_in() {
    let settings = nodes(ROOM, &[]);
    let [first, second, third, fourth] = settings.nodes.as_slice() else { panic!("not four") };
    assert_eq!(first.group.as_deref(), Some("racks"));
    assert_eq!(first.cmdline, "rack=B7 host=c001 n=racks");
    assert_eq!(first.image.as_ref().unwrap().as_str(), "debian");
    assert_eq!(first.vars["mirror"], "http://10.0.0.1/");
    assert_eq!((second.group.as_deref(), second.cmdline.as_str()), (None, ""));
    assert_eq!((third.group.as_deref(), third.boot), (Some("old"), BootFrom::Image));
    assert_eq!(fourth.boot, BootFrom::Disk);
}

#[test]
fn a_template_that_cannot_be_filled_in_is_told_with_its_line_and_a_node() {
    nodes(
        &ROOM.replace("vars.rack }}", "vars.rakc }}").replace("node.group }}", "node.groop }}"),
        &[
            ("nodes.yaml:5", "groups.racks.cmdline for the node c001: is a template that cannot"),
            ("nodes.yaml:9", "nodes.c001.cmdline: is a template that cannot be filled in"),
        ],
    );
}

#[test]
fn nothing_that_is_filled_in_can_steer_ipxe() {
    for bad in ["x || shell", "x ; shell", "a # x", "a && b", "${net0/mac}"] {
        let text = ROOM.replace("rack: B7", &format!("rack: '{bad}'"));
        nodes(&text, &[("nodes.yaml:5", "groups.racks.cmdline for the node c001: has ")]);
        let text = ROOM.replace("n={{ node.group }}", bad);
        nodes(&text, &[("nodes.yaml:9", "nodes.c001.cmdline has ")]);
    }
}

#[test]
fn selectors_and_variables_are_checked() {
    let wrong = "groups:
  a: {match: {mac: 52:5, uuid: x, arch: sparc, subnet: 10.0.0.1, nodes: 'c[1-'}, vars: {A b: 1}}
  b: {match: {macs: 52:54}, vars: [x]}
nodes: {}
";
    nodes(
        wrong,
        &[
            ("nodes.yaml:2", "x86_64"),
            ("nodes.yaml:2", "52:54:00"),
            ("nodes.yaml:2", "match.nodes"),
            ("nodes.yaml:2", "10.0.7.0/24"),
            ("nodes.yaml:2", "`x` is no UUID"),
            ("nodes.yaml:2", "`A b` is no name"),
            ("nodes.yaml:3", "is `match.mac` meant?"),
            ("nodes.yaml:3", "vars is a list"),
        ],
    );
}
