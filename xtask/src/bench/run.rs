//! One run: a fresh lab, the goodput of its links, a server, nodes, the case's accident, and the
//! account at the end.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::case::{Case, Plan, Role};
use super::contender::{Contender, Done, Stage};
use super::image::{self, Image};
use super::machine::Clock;
use super::outcome::{NodeOutcome, Outcome};
use crate::lab::{Exit, Lab, Process, Slot, Spawn, Traffic};

/// How often memory (and in dead-seed the server's counter) is looked at.
const TICK: Duration = Duration::from_millis(200);

/// How long the stream runs that measures B; its first second does not count.
const BLAST_TIME_S: f64 = 4.0;
const BLAST_PORT: u16 = 5_001;

/// Interpreters of 64 nodes start on two cores in this time.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an unlimited run may take: 1 GiB at 18 MB/s.
const UNLIMITED_TIMEOUT: Duration = Duration::from_secs(60);

/// Time to write resume data and say goodbye before SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

enum What {
    Ready,
    Done,
    Ended(Exit),
}

struct Event {
    node: Slot,
    what: What,
    at: Instant,
}

struct Node {
    slot: Slot,
    role: Role,
    process: Option<Process>,
    started: Option<Instant>,
    done: Option<Instant>,
    done_by_exit: bool,
    gone: bool,
    anonymous_len_max: u64,
}

struct Run<'a> {
    plan: &'a Plan,
    stage: Stage<'a>,
    contender: &'a dyn Contender,
    servers: Vec<Process>,
    sent_before: Traffic,
    server_anonymous_len_max: u64,
    nodes: Vec<Node>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    problems: Vec<String>,
    accident_due: bool,
}

/// Runs one contender once. A contender that fails is an outcome; only a broken lab is an error.
pub(super) fn run(
    plan: &Plan,
    contender: &dyn Contender,
    image: &Image,
    number: usize,
    logs: &Path,
) -> Result<Outcome> {
    let lab = Lab::new(plan.node_count, plan.rate, logs)?;
    let before = Clock::now()?;
    let goodput = plan.rate.map(|_| goodput(&lab)).transpose()?;
    let load_before = goodput.map(|_| Clock::now().map(|now| before.until(now))).transpose()?;
    let path = lab.slot_dir(Slot::SERVER).join(image::NAME);
    std::fs::copy(&image.path, &path).context("copying the image into the lab")?;
    let stage = Stage { lab: &lab, image, path, node_count: plan.node_count };
    for node in lab.nodes().filter(|node| plan.case.role(*node) == Role::Slow) {
        lab.set_rate(node, plan.slow_rate().context("slow nodes need a rate")?)?;
    }
    let servers = contender.start_server(&stage)?;
    let (sender, events) = channel();
    let nodes = lab.nodes().map(|slot| Node::new(slot, plan.case.role(slot))).collect();
    let mut run = Run {
        plan,
        stage,
        contender,
        servers,
        sent_before: lab.traffic(Slot::SERVER)?,
        server_anonymous_len_max: 0,
        nodes,
        sender,
        events,
        problems: Vec::new(),
        accident_due: true,
    };
    let clock = Clock::now()?;
    run.start_nodes(|role| role != Role::Late)?;
    run.watch(goodput.map(|goodput| plan.len as f64 / goodput))?;
    let load = clock.until(Clock::now()?);
    let sent = run.sent()?;
    let cpu_s = run.stop_all();
    Ok(Outcome {
        plan: plan.clone(),
        contender: contender.name(),
        number,
        goodput,
        nodes: run.nodes.iter().map(|node| node.outcome(&run.stage)).collect(),
        server_sent_len: sent.sent_len,
        server_dropped_count: sent.dropped_count,
        server_anonymous_len_max: run.server_anonymous_len_max,
        cpu_s,
        load_before,
        load,
        problems: run.problems,
    })
}

/// B: what one TCP stream carries from the server to the first node, in bytes per second.
fn goodput(lab: &Lab) -> Result<f64> {
    let node = Slot::node(1);
    let to = format!("{}:{BLAST_PORT}", node.address());
    let (sender, lines) = channel();
    let receiver = super::contender::own("blast-receive")?.arg(&to);
    let receiver =
        lab.spawn(node, receiver.on_line(move |line| drop(sender.send(line.to_owned()))))?;
    receiver.wait_listening(BLAST_PORT)?;
    let blast = super::contender::own("blast-send")?.arg(&to).arg(BLAST_TIME_S.to_string());
    let limit = Duration::from_secs_f64(BLAST_TIME_S * 4.0);
    lab.spawn(Slot::SERVER, blast)?.succeed(limit)?;
    receiver.succeed(limit)?;
    for slot in [Slot::SERVER, node] {
        lab.forget_paths(slot)?;
    }
    let line = lines.recv_timeout(limit).context("the link's measurement says nothing")?;
    line.strip_prefix("bytes_per_s ")
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("the link's measurement says {line:?}"))
}

impl Node {
    fn new(slot: Slot, role: Role) -> Self {
        Self {
            slot,
            role,
            process: None,
            started: None,
            done: None,
            done_by_exit: false,
            gone: false,
            anonymous_len_max: 0,
        }
    }

    fn is_pending(&self) -> bool {
        self.role != Role::Doomed && !self.gone && self.done.is_none()
    }

    fn outcome(&self, stage: &Stage<'_>) -> NodeOutcome {
        let started = self.started;
        NodeOutcome {
            name: self.slot.name(),
            role: self.role,
            seconds: self.done.zip(started).map(|(done, start)| (done - start).as_secs_f64()),
            verified: self.done.is_some() && stage.image.equals(&stage.result(self.slot)),
            anonymous_len_max: self.anonymous_len_max,
        }
    }
}

impl Run<'_> {
    /// Starts the nodes of some roles together. Their clock starts here, or, for those that must
    /// load an interpreter first, when all have.
    fn start_nodes(&mut self, starts: impl Fn(Role) -> bool) -> Result<()> {
        let chosen: Vec<usize> =
            (0..self.nodes.len()).filter(|i| starts(self.nodes[*i].role)).collect();
        let mut start = Instant::now();
        let mut held_count = 0;
        for &index in &chosen {
            let slot = self.nodes[index].slot;
            let (spawn, done) = self.contender.node(&self.stage, slot)?;
            held_count += usize::from(spawn.is_held());
            let process = self.stage.lab.spawn(slot, self.watched(spawn, slot, done))?;
            self.nodes[index].process = Some(process);
            self.nodes[index].done_by_exit = matches!(done, Done::Exit);
        }
        if held_count > 0 {
            self.wait_ready(held_count)?;
            start = Instant::now();
        }
        for &index in &chosen {
            let node = &mut self.nodes[index];
            node.started = Some(start);
            node.process.as_mut().expect("just started").release()?;
        }
        Ok(())
    }

    fn watched(&self, spawn: Spawn, node: Slot, done: Done) -> Spawn {
        let (on_line, on_exit) = (self.sender.clone(), self.sender.clone());
        let spawn = spawn.on_exit(move |exit| {
            let _ = on_exit.send(Event { node, what: What::Ended(exit), at: exit.at });
        });
        if spawn.is_held() || matches!(done, Done::Line(_)) {
            spawn.on_line(move |line| {
                let what = match done {
                    Done::Line(marker) if line.contains(marker) => What::Done,
                    _ if line == "ready" => What::Ready,
                    _ => return,
                };
                let _ = on_line.send(Event { node, what, at: Instant::now() });
            })
        } else {
            spawn
        }
    }

    fn wait_ready(&mut self, mut held_count: usize) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while held_count > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).context("a node does not get ready")?;
            ensure!(!matches!(event.what, What::Ended(_)), "{}", self.complaint(event.node));
            if matches!(event.what, What::Ready) {
                held_count -= 1;
            } else {
                self.handle(&event);
            }
        }
        Ok(())
    }

    /// Until every node that can finish has, or the time is up.
    fn watch(&mut self, limit_s: Option<f64>) -> Result<()> {
        let start = Instant::now();
        let after =
            |multiple: f64| start + Duration::from_secs_f64(multiple * limit_s.unwrap_or(0.0));
        let accident = self.plan.accident_at().map(after);
        let slowest = if self.plan.case == Case::Slow { Role::Slow } else { Role::Usual };
        let deadline = match limit_s {
            Some(_) => after(self.plan.give_up * self.plan.slowness(slowest)),
            None => start + UNLIMITED_TIMEOUT,
        };
        let mut tick = start;
        while self.nodes.iter().any(Node::is_pending) {
            let now = Instant::now();
            if now >= deadline {
                let pending = self.nodes.iter().filter(|node| node.is_pending()).count();
                self.problems.push(format!("{pending} nodes were not done when time was up"));
                break;
            }
            if self.accident_due && accident.is_some_and(|at| now >= at) {
                self.accident_due = false;
                self.cause_accident()?;
            }
            if now >= tick {
                tick = now + TICK;
                self.look_around()?;
            }
            let until = accident.filter(|_| self.accident_due).map_or(tick, |at| at.min(tick));
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => self.handle(&event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender"),
            }
        }
        if self.plan.case == Case::DeadSeed && self.accident_due {
            self.problems.push("the server never sent enough to be killed".into());
        }
        Ok(())
    }

    fn handle(&mut self, event: &Event) {
        let by_exit = matches!(event.what, What::Ended(_));
        let node = &mut self.nodes[event.node.number() - 1];
        let is_done = match event.what {
            What::Ready => false,
            What::Done => true,
            What::Ended(exit) => exit.code == 0 && node.done_by_exit,
        };
        if is_done && node.done.is_none() {
            node.done = Some(event.at);
        }
        if by_exit && node.done.is_none() && !node.gone {
            node.gone = true;
            if node.role != Role::Doomed {
                let complaint = self.complaint(event.node);
                self.problems.push(complaint);
            }
        }
    }

    fn complaint(&self, node: Slot) -> String {
        let process = self.nodes[node.number() - 1].process.as_ref();
        let tail = process.map(Process::log_tail).unwrap_or_default();
        format!("{} ended early: {tail}", node.name())
    }

    fn cause_accident(&mut self) -> Result<()> {
        match self.plan.case {
            Case::Late => self.start_nodes(|role| role == Role::Late)?,
            Case::Kill | Case::KillOne | Case::Poweroff => {
                let doomed: Vec<_> =
                    self.nodes.iter().filter(|node| node.role == Role::Doomed).collect();
                if self.plan.case == Case::Poweroff {
                    for node in &doomed {
                        self.stage.lab.unplug(node.slot)?;
                    }
                }
                for process in doomed.iter().filter_map(|node| node.process.as_ref()) {
                    process.signal(libc::SIGKILL);
                }
            }
            Case::DeadSeed => {
                self.stage.lab.unplug(Slot::SERVER)?;
                for server in &self.servers {
                    server.signal(libc::SIGKILL);
                }
            }
            Case::Clean | Case::Slow | Case::One | Case::Unlimited => {}
        }
        Ok(())
    }

    /// Samples memory; in dead-seed also decides whether the server's time has come.
    fn look_around(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            let now = node.process.as_ref().and_then(Process::anonymous_len).unwrap_or(0);
            node.anonymous_len_max = node.anonymous_len_max.max(now);
        }
        for server in &self.servers {
            let now = server.anonymous_len().unwrap_or(0);
            self.server_anonymous_len_max = self.server_anonymous_len_max.max(now);
            ensure!(
                server.exit().is_none_or(|exit| exit.code == 0) || !self.accident_due,
                "{} died:\n{}",
                server.name(),
                server.log_tail()
            );
        }
        if self.plan.case == Case::DeadSeed && self.accident_due {
            let sent_len = self.sent()?.sent_len;
            if sent_len as f64 >= self.plan.dead_seed_at * self.plan.len as f64 {
                self.accident_due = false;
                self.cause_accident()?;
            }
        }
        Ok(())
    }

    /// What the server has sent since the nodes started (before, the link was measured).
    fn sent(&self) -> Result<Traffic> {
        let now = self.stage.lab.traffic(Slot::SERVER)?;
        Ok(Traffic {
            sent_len: now.sent_len - self.sent_before.sent_len,
            dropped_count: now.dropped_count - self.sent_before.dropped_count,
        })
    }

    /// Ends all processes; the CPU seconds they used.
    fn stop_all(&mut self) -> f64 {
        let processes: Vec<&Process> = self
            .nodes
            .iter()
            .filter_map(|node| node.process.as_ref())
            .chain(&self.servers)
            .collect();
        for process in &processes {
            process.signal(libc::SIGTERM);
        }
        processes
            .iter()
            .filter_map(|process| process.stop(GRACE))
            .map(|exit| exit.cpu.as_secs_f64())
            .sum()
    }
}
