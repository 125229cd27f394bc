//! Tells the server where this node is. A thread of its own sends; of reports that wait, the latest
//! takes the place of the others; nobody ever waits for a server that does not answer.

use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use boot::report::{Answer, Hardware, Machine, PROOF_FIELD, PROOF_LEN_MAX, Source};
use boot::{Mac, Report, Stage};

use crate::events::{Answered, Event};
use crate::http::ServerUrl;
use crate::log::Log;
use crate::machine;
use crate::order::Obeyer;

/// A report that has not arrived by then is worth less than the next one.
const TIMEOUT: Duration = Duration::from_secs(2);

/// After a failure: a server that is down is not asked each second by a whole fleet.
const PAUSE: Duration = Duration::from_secs(3);

/// How often a node that stays where it is says so. The answer tells it of a newer manifest, so this
/// is also how long a repair takes to be noticed.
const REPEAT: Duration = Duration::from_secs(5);

/// An answer is a few dozen bytes.
const ANSWER_LEN_MAX: u64 = 16 << 10;

/// To whom reports go, and from whom.
#[derive(Clone, Debug)]
pub(crate) struct Correspondence {
    /// The server.
    pub(crate) server: ServerUrl,
    /// This node.
    pub(crate) node: Mac,
}

/// A secret: nobody finds it in a log.
#[derive(Clone)]
struct Proof(String);

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

/// The thread that reports.
#[derive(Clone)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// What is to be told, without sockets or clock.
#[derive(Debug)]
struct Queue {
    to: Option<Correspondence>,
    /// Shows the server that it is this node which reports.
    proof: Option<Proof>,
    boot: u64,
    sequence: u64,
    stage: Option<Stage>,
    /// The stage has not been told.
    is_news: bool,
    machine: Machine,
    /// The machine has not been told.
    machine_is_news: bool,
    hardware: Option<Hardware>,
    /// The hardware has not been told.
    hardware_is_news: bool,
    sources: Vec<Source>,
    /// The sources have not been told.
    sources_are_news: bool,
    failed_before: bool,
    /// This program is about to end: nothing is put off any more.
    hurry: bool,
}

impl Queue {
    fn submit(&mut self, stage: Stage) {
        self.stage = Some(stage);
        self.is_news = true;
    }

    /// As [`Self::submit`], but the next repeat is soon enough.
    fn amend(&mut self, stage: Stage) {
        self.stage = Some(stage);
    }

    /// Takes the secret of an answer, which one of another server or a later boot may be. Nothing else of a
    /// stranger's gets into a header.
    fn believe(&mut self, proof: Option<String>) {
        let is_one = |text: &String| {
            text.len() <= PROOF_LEN_MAX
                && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        };
        self.proof = proof.filter(is_one).map(Proof).or(self.proof.take());
    }

    /// What to send now, if anything. It counts as told until [`Self::failed`] is called.
    fn take(&mut self, is_repeat: bool) -> Option<(Correspondence, Report)> {
        let to = self.to.clone()?;
        let stage = self.stage.clone()?;
        if !self.is_news && !is_repeat {
            return None;
        }
        self.sequence += 1;
        self.is_news = false;
        let machine = self.machine_is_news.then(|| self.machine.clone());
        let report = Report {
            node: to.node,
            boot: self.boot,
            sequence: self.sequence,
            uptime_ms: 0,
            stage,
            machine,
            hardware: self.hardware.clone().filter(|_| self.hardware_is_news),
            sources: if self.sources_are_news { self.sources.clone() } else { vec![] },
            log: vec![],
        };
        Some((to, report))
    }

    /// It was not delivered; unless something else waits by now, it is tried again.
    fn failed(&mut self) {
        self.is_news = true;
        self.failed_before = true;
    }

    /// It was delivered. Says whether others before it were not.
    fn delivered(&mut self, report: &Report) -> bool {
        if report.machine.as_ref() == Some(&self.machine) {
            self.machine_is_news = false;
        }
        if report.hardware == self.hardware {
            self.hardware_is_news = false;
        }
        if report.sources == self.sources {
            self.sources_are_news = false;
        }
        std::mem::take(&mut self.failed_before)
    }
}

impl Reporter {
    /// Starts the thread. Nothing is sent before [`Self::address`] has said where to.
    pub(crate) fn start(boot: u64, machine: Machine, log: Log, events: Sender<Event>) -> Self {
        Self::begin(boot, 0, machine, Obeyer::in_phase1(), log, events)
    }

    /// As [`Self::start`], where reports up to `sequence` were sent by another process.
    pub(crate) fn resume(
        boot: u64,
        sequence: u64,
        machine: Machine,
        log: Log,
        events: Sender<Event>,
    ) -> Self {
        Self::begin(boot, sequence, machine, Obeyer::under_a_system(), log, events)
    }

    fn begin(
        boot: u64,
        sequence: u64,
        machine: Machine,
        obeyer: Obeyer,
        log: Log,
        events: Sender<Event>,
    ) -> Self {
        let queue = Queue {
            to: None,
            proof: None,
            boot,
            sequence,
            stage: None,
            is_news: false,
            machine,
            machine_is_news: true,
            hardware: None,
            hardware_is_news: false,
            sources: vec![],
            sources_are_news: false,
            failed_before: false,
            hurry: false,
        };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        let worker = Worker { shared: shared.clone(), client: client(), obeyer, log, events };
        // Without the thread nobody hears of this node, which boots all the same.
        let _ = thread::Builder::new().name("report".to_owned()).spawn(move || worker.run());
        Self { shared }
    }

    /// Says where to send, from now on, and what this node is.
    pub(crate) fn address(&self, to: Correspondence, machine: Machine) {
        let mut queue = self.shared.queue();
        queue.machine_is_news |= queue.machine != machine;
        queue.machine = machine;
        queue.to = Some(to);
        self.shared.changed.notify_all();
    }

    /// What is sent with reports, from now on.
    pub(crate) fn prove_by(&self, proof: String) {
        self.shared.queue().proof = Some(Proof(proof));
    }

    /// What is sent with reports.
    pub(crate) fn proof(&self) -> Option<String> {
        self.shared.queue().proof.clone().map(|Proof(proof)| proof)
    }

    /// Says what this node is made of, with the next report if that is new.
    pub(crate) fn stock(&self, hardware: Hardware) {
        let mut queue = self.shared.queue();
        let hardware = Some(hardware);
        queue.hardware_is_news |= queue.hardware != hardware;
        queue.hardware = hardware;
    }

    /// Says who gave how much of the image, with the next report.
    pub(crate) fn came_from(&self, sources: Vec<Source>) {
        let mut queue = self.shared.queue();
        queue.sources_are_news |= queue.sources != sources;
        queue.sources = sources;
    }

    /// Tells where this node is.
    pub(crate) fn submit(&self, stage: Stage) {
        self.shared.queue().submit(stage);
        self.shared.changed.notify_all();
    }

    /// The number of the last report that was sent or tried.
    pub(crate) fn sequence(&self) -> u64 {
        self.shared.queue().sequence
    }

    /// What the next report says, without being a reason for one.
    pub(crate) fn amend(&self, stage: Stage) {
        self.shared.queue().amend(stage);
    }

    /// Waits until all is told, at most `within`. To be called when nothing follows.
    pub(crate) fn finish(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut queue = self.shared.queue();
        queue.hurry = true;
        self.shared.changed.notify_all();
        while queue.is_news && queue.to.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.shared.wait(queue, left);
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, most: Duration) -> MutexGuard<'a, Queue> {
        self.changed.wait_timeout(queue, most).unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Worker {
    shared: Arc<Shared>,
    client: ureq::Agent,
    obeyer: Obeyer,
    log: Log,
    events: Sender<Event>,
}

impl Worker {
    fn run(self) {
        let mut repeat_at = Instant::now() + REPEAT;
        loop {
            let Some((to, mut report)) = self.next(repeat_at) else { continue };
            report.uptime_ms = machine::uptime_ms();
            if report.machine.is_some() || matches!(report.stage, Stage::Failed { .. }) {
                report.log = self.log.lines();
            }
            let proof = self.shared.queue().proof.clone();
            let sent = self.send(&to, proof.as_ref(), &report);
            repeat_at = Instant::now() + REPEAT;
            let mut queue = self.shared.queue();
            match &sent {
                Some(answer) => {
                    queue.believe(answer.proof.clone());
                    let after_silence = queue.delivered(&report);
                    let (serial, downloading) = (answer.manifest_serial, answer.downloading);
                    let answered = Answered { serial, downloading, after_silence };
                    let _ = self.events.send(Event::Answer(answered));
                }
                None => queue.failed(),
            }
            self.shared.changed.notify_all();
            match sent {
                Some(answer) => {
                    drop(queue);
                    if let Some(order) = answer.order {
                        self.obeyer.obey(&order, report.node, report.boot);
                    }
                }
                None => self.pause(queue),
            }
        }
    }

    /// Waits for the server to come back, unless there is no time for that.
    fn pause(&self, mut queue: MutexGuard<'_, Queue>) {
        let end = Instant::now() + PAUSE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || std::mem::take(&mut queue.hurry) {
                return;
            }
            queue = self.shared.wait(queue, left);
        }
    }

    /// Waits for something to tell. None if there is nothing yet after all.
    fn next(&self, repeat_at: Instant) -> Option<(Correspondence, Report)> {
        let mut queue = self.shared.queue();
        let left = repeat_at.saturating_duration_since(Instant::now());
        if !queue.is_news || queue.to.is_none() {
            // Without anybody to tell a repeat is never due.
            let most = if queue.to.is_none() { REPEAT } else { left };
            queue = self.shared.wait(queue, most);
        }
        queue.take(repeat_at <= Instant::now())
    }

    fn send(&self, to: &Correspondence, proof: Option<&Proof>, report: &Report) -> Option<Answer> {
        let body = serde_json::to_vec(report).ok()?;
        let url = to.server.join("/api/v1/reports");
        let mut request = self.client.post(&url).content_type("application/json");
        if let Some(Proof(proof)) = proof {
            request = request.header(PROOF_FIELD, proof);
        }
        let sent = request.send(&body);
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%url, %error, "a report was not delivered");
                return None;
            }
        };
        let bytes = response.body_mut().with_config().limit(ANSWER_LEN_MAX).read_to_vec().ok()?;
        // A server that has taken it and says nothing has no newer manifest to tell of.
        Some(serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("BootTorrent/", env!("CARGO_PKG_VERSION")))
        .proxy(None)
        .build()
        .new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn queue() -> Queue {
        Queue {
            to: Some(Correspondence {
                server: "http://h".parse().unwrap(),
                node: Mac([2, 0, 0, 0, 0, 1]),
            }),
            proof: None,
            boot: 7,
            sequence: 0,
            stage: None,
            is_news: false,
            machine: machine::look(Path::new("/nonexistent")),
            machine_is_news: true,
            hardware: None,
            hardware_is_news: false,
            sources: vec![],
            sources_are_news: false,
            failed_before: false,
            hurry: false,
        }
    }

    fn told(queue: &mut Queue, is_repeat: bool) -> Option<(u64, Stage, bool)> {
        let (_, report) = queue.take(is_repeat)?;
        let told = (report.sequence, report.stage.clone(), report.machine.is_some());
        queue.delivered(&report);
        Some(told)
    }

    #[test]
    fn the_latest_is_told_and_the_machine_once() {
        let mut queue = queue();
        assert_eq!(told(&mut queue, true), None);
        queue.submit(Stage::Link);
        queue.submit(Stage::Lease);
        assert_eq!(told(&mut queue, false), Some((1, Stage::Lease, true)));
        assert_eq!(told(&mut queue, false), None);
        assert_eq!(told(&mut queue, true), Some((2, Stage::Lease, false)));
    }

    #[test]
    fn a_secret_is_taken_if_it_is_one_and_else_kept() {
        let mut queue = queue();
        let mut after = |proof: Option<&str>| {
            queue.believe(proof.map(str::to_owned));
            queue.proof.as_ref().map(|Proof(text)| text.clone())
        };
        assert_eq!(after(None), None);
        assert_eq!(after(Some("1a-2b")).as_deref(), Some("1a-2b"));
        for other in [None, Some("a\r\nb: c"), Some(&"a".repeat(PROOF_LEN_MAX + 1)[..])] {
            assert_eq!(after(other).as_deref(), Some("1a-2b"), "{other:?}");
        }
        assert_eq!(after(Some("3c-4d")).as_deref(), Some("3c-4d"));
    }

    #[test]
    fn what_is_amended_is_told_with_the_next_repeat() {
        let mut queue = queue();
        queue.submit(Stage::Link);
        assert!(told(&mut queue, false).is_some());
        queue.amend(Stage::Lease);
        assert_eq!(told(&mut queue, false), None);
        assert_eq!(told(&mut queue, true), Some((2, Stage::Lease, false)));
    }

    #[test]
    fn hardware_is_told_once_it_has_arrived_and_no_more() {
        let mut queue = queue();
        queue.submit(Stage::Link);
        (queue.hardware, queue.hardware_is_news) = (Some(Hardware::default()), true);
        assert!(queue.take(false).unwrap().1.hardware.is_some());
        queue.failed();
        let (_, report) = queue.take(false).unwrap();
        assert!(report.hardware.is_some(), "the one before was lost");
        queue.delivered(&report);
        assert_eq!(queue.take(true).unwrap().1.hardware, None);
    }

    #[test]
    fn nothing_is_told_to_nobody() {
        let mut queue = queue();
        queue.to = None;
        queue.submit(Stage::Link);
        assert_eq!(told(&mut queue, true), None);
    }

    #[test]
    fn what_was_not_delivered_is_tried_again_with_the_machine() {
        let mut queue = queue();
        queue.submit(Stage::Link);
        assert!(queue.take(false).is_some());
        queue.failed();
        let (_, report) = queue.take(false).unwrap();
        assert_eq!((report.sequence, report.machine.is_some()), (2, true));
        assert!(queue.delivered(&report), "others before it were lost");
        assert!(!queue.delivered(&report));
    }
}
