use super::*;

fn asking(mode: Mode) -> Config {
    Config { mode, force: false, ..config(60) }
}

/// The questions among outputs, as they are received by others.
fn questions(outputs: &[Output]) -> Vec<Vec<u8>> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send { bytes, .. } => Some(bytes.clone()),
            _ => None,
        })
        .collect()
}

/// Another server's offer in answer to a question.
fn offer(question: &[u8], yiaddr: Ipv4Addr, file: &[u8]) -> Vec<u8> {
    let question = Message::decode(question).unwrap();
    Ask::new(MessageType::Offer, 0)
        .patch(0, &[2])
        .patch(4, &question.xid.to_be_bytes())
        .patch(16, &yiaddr.octets())
        .patch(28, &question.mac.0)
        .patch(108, file)
        .option(54, &[10, 0, 0, 99])
        .bytes()
}

#[test]
fn alone_on_a_network_it_becomes_the_server() {
    for mode in [Mode::Auto, Mode::Server] {
        let mut lab = Lab::started(asking(mode));
        assert_eq!(sent(&lab.ask(&Ask::discover(1).pxe(0))).map(|(m, _)| m.is_reply), Some(false));
        let outputs = lab.pass(Duration::from_secs(5));
        let serving = Event::Serving { role: Role::Server, beside: None };
        assert_eq!(events(&outputs), [&serving]);
        assert!(outputs.contains(&Output::Listen(false)));
        assert_eq!(lab.answer(&Ask::discover(1)).0.kind, MessageType::Offer);
    }
}

#[test]
fn it_asks_as_a_node_and_as_a_relay_agent() {
    let mut lab = Lab::started(asking(Mode::Auto));
    let mut outputs = lab.drain();
    assert_eq!(outputs[0], Output::Listen(true));
    outputs.extend(lab.pass(Duration::from_secs(5)));
    let asked: Vec<_> = questions(&outputs)
        .iter()
        .map(|bytes| Message::decode(bytes).unwrap())
        .map(|question| (question.giaddr, question.flags))
        .collect();
    let none = Ipv4Addr::UNSPECIFIED;
    assert_eq!(asked, [(none, 0x8000), (SERVER, 0x8000), (none, 0x8000), (SERVER, 0x8000)]);
}

/// Answers every question of a look by broadcast, as another server that gives addresses.
fn answer_a_look(lab: &mut Lab, asked: &[Output], file: &[u8]) -> Vec<Output> {
    let from = SocketAddrV4::new(ip(99), 67);
    let questions = questions(asked);
    questions
        .iter()
        .flat_map(|question| lab.packet(Port::Client, from, &offer(question, ip(200), file)))
        .collect()
}

/// Lets time pass until it begins another look.
fn next_look(lab: &mut Lab) -> Vec<Output> {
    let end = lab.now + 2 * LOOK_AROUND;
    let is_looking = lab.service.probe.is_some();
    let count = lab.service.looks.count + u64::from(is_looking);
    loop {
        assert!(lab.now < end, "it never looks around");
        let outputs = lab.pass(Duration::from_millis(100));
        if lab.service.looks.count == count && lab.service.probe.is_some() {
            return outputs;
        }
    }
}

#[test]
fn beside_another_server_auto_becomes_a_proxy_and_server_waits() {
    for mode in [Mode::Auto, Mode::Server] {
        let mut lab = Lab::started(asking(mode));
        let asked = lab.drain();
        answer_a_look(&mut lab, &asked, b"");
        assert_eq!(lab.service.role(), None, "one look proves nothing");
        let asked = next_look(&mut lab);
        let outputs = answer_a_look(&mut lab, &asked, b"");
        assert!(lab.now <= START + Duration::from_secs(5));
        if mode == Mode::Auto {
            let serving = Event::Serving { role: Role::Proxy, beside: Some(ip(99)) };
            assert_eq!(events(&outputs), [&serving]);
        } else {
            assert_eq!(waits(&outputs), Some(Conflict::ForeignServer(ip(99))));
            assert_eq!(lab.service.waits_for(), Some(Conflict::ForeignServer(ip(99))));
            assert_eq!(sent(&lab.ask(&Ask::discover(1).pxe(0))), None);
        }
    }
}

#[test]
fn one_answer_at_a_start_decides_nothing() {
    for mode in [Mode::Auto, Mode::Server] {
        for last_role in [None, Some(Role::Server)] {
            let mut lab = Lab::begun(asking(mode), last_role, START);
            let asked = lab.drain();
            answer_a_look(&mut lab, &asked, b"");
            let outputs = lab.pass(Duration::from_secs(12));
            let serving = Event::Serving { role: Role::Server, beside: None };
            assert!(events(&outputs).contains(&&serving), "{mode:?} {last_role:?}: {outputs:?}");
        }
    }
}

#[test]
fn a_server_of_before_does_not_wait_for_another() {
    let mut lab = Lab::begun(asking(Mode::Server), Some(Role::Server), START);
    let asked = lab.drain();
    let mut outputs = answer_a_look(&mut lab, &asked, b"");
    let asked = next_look(&mut lab);
    outputs.extend(answer_a_look(&mut lab, &asked, b""));
    outputs.extend(lab.pass(Duration::from_secs(10)));
    let foreign = Event::ForeignServer { address: ip(99), boot_file: None };
    let serving = Event::Serving { role: Role::Server, beside: None };
    assert_eq!(events(&outputs), [&foreign, &serving]);
}

#[test]
fn who_waits_serves_when_the_other_was_silent_for_two_looks() {
    let mut lab = Lab::started(asking(Mode::Server));
    let asked = lab.drain();
    answer_a_look(&mut lab, &asked, b"");
    for _ in 0..3 {
        let asked = next_look(&mut lab);
        answer_a_look(&mut lab, &asked, b"");
        lab.pass(Duration::from_secs(5));
        assert!(lab.service.waits_for().is_some());
    }
    next_look(&mut lab);
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.service.role(), None, "silent once");
    next_look(&mut lab);
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.service.role(), Some(Role::Server));
}

#[test]
fn auto_becomes_a_server_when_the_other_was_silent_for_two_looks() {
    let mut lab = Lab::started(asking(Mode::Auto));
    let mut asked = lab.drain();
    for _ in 0..4 {
        answer_a_look(&mut lab, &asked, b"");
        asked = next_look(&mut lab);
    }
    answer_a_look(&mut lab, &asked, b"");
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.service.role(), Some(Role::Proxy));
    next_look(&mut lab);
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.service.role(), Some(Role::Proxy), "silent once");
    let asked = next_look(&mut lab);
    answer_a_look(&mut lab, &asked, b"");
    lab.pass(Duration::from_secs(5));
    next_look(&mut lab);
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.service.role(), Some(Role::Proxy), "silent once, again");
    next_look(&mut lab);
    let outputs = lab.pass(Duration::from_secs(5));
    assert_eq!(events(&outputs), [&Event::Serving { role: Role::Server, beside: None }]);
    assert_eq!(lab.answer(&Ask::discover(1)).0.kind, MessageType::Offer);
}

#[test]
fn a_proxy_of_before_gives_a_router_the_time_to_start() {
    let mut lab = Lab::begun(asking(Mode::Auto), Some(Role::Proxy), START);
    let outputs = lab.pass(Duration::from_secs(5));
    let serving = Event::Serving { role: Role::Proxy, beside: None };
    assert_eq!(events(&outputs), [&serving, &Event::NoServer]);
    next_look(&mut lab);
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.service.role(), Some(Role::Server));
}

#[test]
fn forced_it_serves_at_once_and_says_who_else_does() {
    let mut lab = Lab::started(config(60));
    let outputs = lab.drain();
    let question = &questions(&outputs)[0];
    assert_eq!(lab.service.role(), Some(Role::Server));
    let from = SocketAddrV4::new(ip(99), 67);
    let outputs = lab.packet(Port::Client, from, &offer(question, ip(200), b"other.efi\0"));
    let boot_file = Some("other.efi".to_owned());
    assert_eq!(events(&outputs), [&Event::ForeignServer { address: ip(99), boot_file }]);
    assert_eq!(lab.service.role(), Some(Role::Server));
}

#[test]
fn answers_to_others_questions_mean_nothing() {
    let mut lab = Lab::started(asking(Mode::Auto));
    lab.drain();
    let question = Ask::discover(1).patch(28, &config(60).mac.0).bytes();
    let from = SocketAddrV4::new(ip(99), 67);
    assert!(lab.packet(Port::Client, from, &offer(&question, ip(200), b"")).is_empty());
    assert_eq!(lab.service.role(), None);
}

#[test]
fn a_proxy_without_a_server_says_that_nobody_gives_addresses() {
    let mut lab = Lab::started(proxy());
    let outputs = lab.pass(Duration::from_secs(5));
    assert!(events(&outputs).contains(&&Event::NoServer));
    let mut lab = Lab::started(Config { ranges: vec![], ..asking(Mode::Auto) });
    let outputs = lab.pass(Duration::from_secs(5));
    assert!(events(&outputs).contains(&&Event::NoServer));
    assert_eq!(lab.service.role(), Some(Role::Proxy));
}

#[test]
fn a_server_that_comes_later_is_reported_and_changes_nothing() {
    let mut lab = Lab::started(asking(Mode::Auto));
    lab.pass(Duration::from_secs(5));
    let mut asked = vec![];
    while asked.is_empty() {
        assert!(lab.now < START + 2 * LOOK_AROUND, "it never looks around");
        asked = questions(&lab.pass(SECOND));
    }
    let from = SocketAddrV4::new(ip(99), 67);
    let answer = offer(&asked[0], ip(200), b"");
    let outputs = lab.packet(Port::Client, from, &answer);
    let foreign = Event::ForeignServer { address: ip(99), boot_file: None };
    assert_eq!(events(&outputs), [&foreign]);
    assert!(lab.packet(Port::Client, from, &answer).is_empty(), "said once");
    assert_eq!(lab.service.role(), Some(Role::Server));
}

/// Two services on one network, each hearing what the other sends.
fn meet(first: &mut Lab, second: &mut Lab, from_first: Vec<Output>) -> Vec<Output> {
    let mut heard = vec![];
    for output in from_first {
        if let Output::Send { to, bytes, .. } = output {
            let port = if to.port() == 67 { Port::Server } else { Port::Client };
            let from = SocketAddrV4::new(first.service.config.address, 67);
            heard.extend(second.packet(port, from, &bytes));
        }
    }
    heard
}

#[test]
fn a_second_lab_waits_and_the_first_goes_on() {
    for mode in [Mode::Auto, Mode::Server, Mode::Proxy] {
        let mut first = Lab::started(asking(Mode::Auto));
        first.pass(Duration::from_secs(5));
        let other = Config { address: ip(2), lab: LabId([9; 8]), ..asking(mode) };
        let mut second = Lab::started(other);
        let asked = second.drain();
        let answered = meet(&mut second, &mut first, asked);
        let (address, lab) = (ip(2), LabId([9; 8]));
        assert_eq!(events(&answered), [&Event::OtherLab { address, lab, is_proved: false }]);
        let outputs = meet(&mut first, &mut second, answered);
        let conflict = Conflict::OtherLab { address: SERVER, lab: LabId([7; 8]) };
        assert_eq!(waits(&outputs), Some(conflict), "{mode:?}");
        assert_eq!(first.service.role(), Some(Role::Server));
        second.pass(Duration::from_secs(100));
        assert!(second.service.role().is_some(), "the first one is gone");
    }
}

/// Another server's answer with a marker, and the proof that it has.
fn marked(question: &[u8], proof: &[u8]) -> Vec<u8> {
    let question = Message::decode(question).unwrap();
    let marker = [&b"BootTorrent"[..], &[0; 8], &[3; 8], &[1]].concat();
    let answer = Ask::new(MessageType::Offer, 0)
        .patch(0, &[2])
        .patch(4, &question.xid.to_be_bytes())
        .patch(28, &question.mac.0)
        .option(54, &[10, 0, 0, 99])
        .option(224, &marker);
    if proof.is_empty() { answer.bytes() } else { answer.option(225, proof).bytes() }
}

#[test]
fn who_only_says_to_be_a_lab_is_told_and_not_believed() {
    for (mode, proof) in [(Mode::Auto, &[][..]), (Mode::Server, &[1; 96]), (Mode::Proxy, &[2; 95])]
    {
        let mut lab = Lab::started(asking(mode));
        let from = SocketAddrV4::new(ip(99), 67);
        let mut outputs = vec![];
        for question in questions(&lab.drain()) {
            outputs.extend(lab.packet(Port::Client, from, &marked(&question, proof)));
        }
        let hearsay = Event::OtherLab { address: ip(99), lab: LabId([0; 8]), is_proved: false };
        assert_eq!(events(&outputs), [&hearsay]);
        lab.pass(Duration::from_secs(5));
        assert!(lab.service.role().is_some(), "{mode:?}");
    }
}

#[test]
fn a_proof_of_before_proves_nothing() {
    let mut first = Lab::started(asking(Mode::Auto));
    first.pass(Duration::from_secs(5));
    let other = || Config { address: ip(2), lab: LabId([9; 8]), ..asking(Mode::Auto) };
    let mut second = Lab::started(other());
    let asked = second.drain();
    let recorded = meet(&mut second, &mut first, asked);
    // The same number was drawn: only the asker is another.
    let begin = Start { seed: 99, ..start(LabId([9; 8]), 0) };
    let mut third = Lab { service: Service::new(other(), begin, START).unwrap(), now: START };
    third.service.probe = second.service.probe.clone();
    let outputs = meet(&mut first, &mut third, recorded);
    assert_eq!(waits(&outputs), None);
    assert!(matches!(events(&outputs)[..], [Event::OtherLab { is_proved: false, .. }]));
}

#[test]
fn questions_with_markers_decide_nothing_and_few_are_answered() {
    let mut lab = Lab::started(asking(Mode::Auto));
    lab.drain();
    let marker = [&b"BootTorrent"[..], &[0; 16], &[0]].concat();
    let mut answered = 0;
    for _ in 0..1_000 {
        let outputs = lab.ask(&Ask::discover(1).option(224, &marker));
        assert_eq!(waits(&outputs), None);
        answered += questions(&outputs).len();
    }
    assert_eq!(answered, INTRODUCTIONS_PER_S as usize);
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.service.role(), Some(Role::Server));
}

#[test]
fn a_second_server_of_the_lab_waits_also_where_it_served_before() {
    let mut first = Lab::started(asking(Mode::Server));
    first.pass(Duration::from_secs(5));
    let config = |lab| Config { address: ip(2), lab: LabId([lab; 8]), ..asking(Mode::Server) };
    for (lab, does_wait) in [(7, true), (9, false)] {
        let mut second = Lab::begun(config(lab), Some(Role::Server), START);
        second.service.me.run = [0xff; 8];
        let asked = second.pass(SECOND);
        let answered = meet(&mut second, &mut first, asked);
        let outputs = meet(&mut first, &mut second, answered);
        assert_eq!(waits(&outputs).is_some(), does_wait, "{lab}");
    }
}

#[test]
fn two_proxies_of_one_lab_go_on_together() {
    let mut first = Lab::started(asking(Mode::Proxy));
    first.pass(Duration::from_secs(5));
    let twin = Config { address: ip(2), ..asking(Mode::Proxy) };
    let mut second = Lab::started(twin);
    second.service.me.run = [0xff; 8];
    let asked = second.pass(SECOND);
    let answered = meet(&mut second, &mut first, asked);
    assert_eq!(events(&answered), [&Event::Twin { address: ip(2) }]);
    let outputs = meet(&mut first, &mut second, answered);
    assert_eq!(waits(&outputs), None);
    assert!(events(&outputs).contains(&&Event::Twin { address: SERVER }), "{outputs:?}");
    assert_eq!(second.service.role(), Some(Role::Proxy));
}

#[test]
fn servers_without_a_lab_are_nobody_s_twins() {
    let config = |address, mode| Config { address, lab: LabId::NONE, ..asking(mode) };
    let mut first = Lab::started(config(SERVER, Mode::Proxy));
    first.pass(Duration::from_secs(5));
    let mut second = Lab::started(config(ip(2), Mode::Proxy));
    second.service.me.run = [0xff; 8];
    let asked = second.pass(SECOND);
    let answered = meet(&mut second, &mut first, asked);
    let outputs = meet(&mut first, &mut second, answered);
    let conflict = Conflict::OtherLab { address: SERVER, lab: LabId::NONE };
    assert_eq!(waits(&outputs), Some(conflict));
}

/// Whichever of them answers first.
#[test]
fn beside_a_server_and_another_lab_the_lab_is_the_reason_to_wait() {
    for mode in [Mode::Auto, Mode::Server] {
        let mut first = Lab::started(asking(Mode::Auto));
        first.pass(Duration::from_secs(5));
        let other = Config { address: ip(2), lab: LabId([9; 8]), ..asking(mode) };
        let mut second = Lab::started(other);
        let asked = second.drain();
        answer_a_look(&mut second, &asked, b"");
        let answered = meet(&mut second, &mut first, asked);
        let outputs = meet(&mut first, &mut second, answered);
        let conflict = Conflict::OtherLab { address: SERVER, lab: LabId([7; 8]) };
        assert_eq!(waits(&outputs), Some(conflict), "{mode:?}");
    }
}

#[test]
fn of_two_labs_that_begin_together_one_goes_on() {
    let mut first = Lab::started(asking(Mode::Auto));
    let other = Config { address: ip(2), lab: LabId([9; 8]), ..asking(Mode::Auto) };
    let mut second = Lab::started(other);
    let (from_first, from_second) = (first.drain(), second.drain());
    let by_second = meet(&mut first, &mut second, from_first);
    let by_first = meet(&mut second, &mut first, from_second);
    let of_first = meet(&mut second, &mut first, by_second);
    let of_second = meet(&mut first, &mut second, by_first);
    let conflict = Conflict::OtherLab { address: SERVER, lab: LabId([7; 8]) };
    assert_eq!((waits(&of_first), waits(&of_second)), (None, Some(conflict)));
    let outputs = first.pass(Duration::from_secs(5));
    assert_eq!(events(&outputs), [&Event::Serving { role: Role::Server, beside: None }]);
}

#[test]
fn an_offer_in_its_own_name_is_no_other_server() {
    let mut lab = Lab::started(asking(Mode::Auto));
    let question = Message::decode(&questions(&lab.drain())[0]).unwrap();
    let own = Ask::new(MessageType::Offer, 0)
        .patch(0, &[2])
        .patch(4, &question.xid.to_be_bytes())
        .patch(16, &ip(200).octets())
        .patch(28, &question.mac.0)
        .option(54, &SERVER.octets());
    lab.packet(Port::Client, SocketAddrV4::new(SERVER, 67), &own.bytes());
    assert_eq!(lab.service.role(), None);
}

#[test]
fn its_own_broadcasts_mean_nothing() {
    let mut lab = Lab::started(asking(Mode::Auto));
    for question in questions(&lab.drain()) {
        let from = SocketAddrV4::new(SERVER, 67);
        assert!(lab.packet(Port::Server, from, &question).is_empty());
    }
    assert_eq!(lab.service.role(), None);
}
