//! `boottorrent-agent`: PID 1 of phase 1.
//!
//! In the order of a boot: `init` and `cmdline` make a system of a kernel, `link` (with `modules` and
//! `network`) gets it on the network, `manifest` says what the lab offers, `choose` and `menu` (drawn
//! by `screen`) what this node boots (`password` asks who may), `other_kernel` sees that the right one runs, `fetch` with
//! `torrent`, `memory` and `download` brings it, `loader` runs it, or `guest` in a virtual machine, `booted`
//! is what stays under it. `run` is the sequence and
//! what happens when a step fails; `console` and `report` say how it goes, `help` to who asks
//! from elsewhere.

mod cmdline;
mod hardware;
mod init;
mod machine;

mod link;
mod modules;
mod network;

mod manifest;
mod sources;

mod choose;
mod menu;
mod password;
mod screen;

mod download;
mod enough;
mod fetch;
mod memory;
mod torrent;
mod watch;

mod other_kernel;

mod booted;
mod guest;
mod loader;

mod console;
mod help;
mod keyboard;
mod keys;
mod log;
mod order;
mod report;
mod shell;

mod args;
mod backoff;
mod events;
mod failed;
mod http;
mod node;
mod run;

use std::process::ExitCode;

use crate::args::Asked;
use crate::cmdline::Words;
use crate::console::Console;
use crate::events::Inbox;
use crate::log::{Log, Show, Tracer};
use crate::node::{Node, Options};
use crate::run::Run;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        as_init();
    }
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Asked::Network(args)) => match network::run_alone(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("boottorrent-agent: {error:#}");
                ExitCode::FAILURE
            }
        },
        Ok(Asked::Booted) => match booted::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("boottorrent-agent: {error:#}");
                ExitCode::FAILURE
            }
        },
        Ok(Asked::Version) => {
            println!("boottorrent-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Asked::Run(options, keyboard)) => elsewhere(*options, keyboard),
        Err(error) => {
            eprintln!("boottorrent-agent: {error}\n\n{}", args::USAGE);
            ExitCode::from(2)
        }
    }
}

/// As the first process of a node: never comes back.
fn as_init() -> ! {
    let problems = init::mount_all();
    init::take_console();
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    init::never_stand_still(&line);
    let words = Words::parse(&line);
    let log = Log::default();
    let terminals = console::open_kernel_consoles();
    let keyboards = terminals.iter().filter_map(|terminal| terminal.try_clone().ok()).collect();
    let console = Console::new(terminals, log.clone());
    // Before there is another thread: each inherits which signals it leaves to this one.
    init::obey_signals(console.clone());
    trace(&console, &log, words.debug);
    console.say(concat!("\nBootTorrent ", env!("CARGO_PKG_VERSION"), ", phase 1"));
    for problem in problems.iter().chain(&words.problems) {
        console.say(&format!("  {problem}"));
    }
    let inbox = Inbox::new();
    keyboard::listen(keyboards, inbox.sender());
    let options = Options {
        server: words.server,
        mac: words.mac,
        proof: words.proof,
        image: words.image,
        choice: words.choice,
        name: words.name,
        shell: words.shell,
        no_shell: words.no_shell,
        debug: words.debug,
        ..Options::of_node()
    };
    let machine = machine::look(&options.root);
    let mut node = Node::new(options, console, log, inbox, machine);
    init::survive_panics(&node);
    Run::new(&node).run(&mut node);
    // It does not come back; if it did, a kernel without its first process would panic.
    init::restart(rustix::system::RebootCommand::Restart)
}

/// Anywhere else, for tests.
fn elsewhere(options: Options, keyboard: bool) -> ExitCode {
    let output = match console::standard_output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("boottorrent-agent: standard output: {error}");
            return ExitCode::FAILURE;
        }
    };
    let log = Log::default();
    let console = Console::new(vec![output], log.clone());
    trace(&console, &log, options.debug);
    let inbox = Inbox::new();
    if keyboard && let Ok(input) = console::standard_input() {
        keyboard::listen(vec![input], inbox.sender());
    }
    let machine = machine::look(std::path::Path::new("/"));
    let mut node = Node::new(options, console, log, inbox, machine);
    if Run::new(&node).run(&mut node) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn trace(console: &Console, log: &Log, debug: bool) {
    let shown = console.clone();
    let show: Show = Box::new(move |line| shown.say(line));
    Tracer::install(log.clone(), debug.then_some(show));
}
