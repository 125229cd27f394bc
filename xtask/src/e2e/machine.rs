//! A node as a virtual machine: memory, a network card, a serial port and nothing else. QEMU without
//! hardware virtualisation, so that it runs wherever CI runs.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::console::Console;
use crate::interrupt;
use crate::lab::{Lab, Process, Rate, Slot, Spawn};

/// Debian's QEMU.
const QEMU: &str = "qemu-system-x86_64";

/// OVMF with a variable store beside it, as Debian ships it.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// iPXE as a kernel image.
const IPXE_KERNEL: &str = "/usr/lib/ipxe/ipxe.lkrn";

/// How often the console is looked at while somebody waits for a line.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// An instruction takes 2^3 ns: 125 million a second, about what software emulation does on a busy machine.
const ICOUNT_SHIFT: u32 = 3;

/// What QEMU's monitor says when it waits for a command, and how long it may think about one.
const PROMPT: &[u8] = b"(qemu)";
const MONITOR_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a machine may print nothing while it does not take a key that was typed.
const TYPING_TIMEOUT: Duration = Duration::from_secs(60);

/// What asks the network for something to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// SeaBIOS, and iPXE in the card's ROM: all that QEMU has for a BIOS. It says that it is iPXE.
    Ipxe,
    /// A BIOS with a PXE ROM that knows TFTP and nothing of iPXE: iPXE again, started by the machine
    /// itself and told to keep its name to itself, since no other ROM is free.
    Pxe,
    /// OVMF with its own PXE client.
    Uefi,
    /// OVMF with its own HTTP client.
    UefiHttp,
}

/// The network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Card {
    Virtio,
    /// An Intel card of 2000, which has a driver everywhere.
    E1000,
}

/// A machine to be built.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Counts from 1 and is unique in its lab.
    pub(crate) number: u8,
    pub(crate) firmware: Firmware,
    pub(crate) card: Card,
    pub(crate) memory_mib: u32,
    /// Of the link towards the machine.
    pub(crate) rate: Option<Rate>,
    /// Keep every packet, for golden data.
    pub(crate) capture: bool,
    /// What an AHCI disk holds, if it has one.
    pub(crate) disk: Option<PathBuf>,
    /// Its clock counts its instructions, so that it has the same processor whatever else this one does.
    pub(crate) counts: bool,
}

impl Spec {
    pub(crate) fn new(number: u8, firmware: Firmware) -> Self {
        let card = Card::Virtio;
        Self {
            number,
            firmware,
            card,
            memory_mib: 512,
            rate: None,
            capture: false,
            disk: None,
            counts: false,
        }
    }

    pub(crate) fn counting(self) -> Self {
        Self { counts: true, ..self }
    }

    pub(crate) fn card(self, card: Card) -> Self {
        Self { card, ..self }
    }

    pub(crate) fn memory_mib(self, memory_mib: u32) -> Self {
        Self { memory_mib, ..self }
    }

    pub(crate) fn rate(self, rate: Rate) -> Self {
        Self { rate: Some(rate), ..self }
    }

    pub(crate) fn disk(self, disk: PathBuf) -> Self {
        Self { disk: Some(disk), ..self }
    }

    pub(crate) fn capture(self, capture: bool) -> Self {
        Self { capture, ..self }
    }

    pub(crate) fn name(&self) -> String {
        format!("n{:02}", self.number)
    }

    /// QEMU's prefix, so that nobody takes it for a real card.
    pub(crate) fn mac(&self) -> String {
        format!("52:54:00:b7:00:{:02x}", self.number)
    }

    fn tap(&self) -> String {
        format!("tap{}", self.number)
    }
}

/// A machine that can be switched on and off. Dropping it cuts the power.
pub(crate) struct Machine<'a> {
    lab: &'a Lab,
    spec: Spec,
    evidence: PathBuf,
    boot_count: u32,
    running: Option<Running>,
}

struct Running {
    process: Process,
    console: Console,
    since: Instant,
}

impl<'a> Machine<'a> {
    /// Plugs it in. What it says is kept in the folder `evidence`.
    pub(crate) fn new(lab: &'a Lab, spec: Spec, evidence: &Path) -> Result<Self> {
        lab.add_tap(&spec.tap(), spec.rate)?;
        let evidence = evidence.to_owned();
        Ok(Self { lab, spec, evidence, boot_count: 0, running: None })
    }

    /// As [`Machine::new`], and switches it on.
    pub(crate) fn start(lab: &'a Lab, spec: Spec, evidence: &Path) -> Result<Self> {
        let mut machine = Self::new(lab, spec, evidence)?;
        machine.power_on()?;
        Ok(machine)
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(crate) fn mac(&self) -> String {
        self.spec.mac()
    }

    pub(crate) fn power_on(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "{} is on", self.spec.name());
        self.boot_count += 1;
        let stem = match self.boot_count {
            1 => self.spec.name(),
            count => format!("{}-{count}", self.spec.name()),
        };
        let path = self.evidence.join(format!("{stem}.console"));
        // A console of an earlier run would be taken for this one until QEMU empties it.
        std::fs::write(&path, "").with_context(|| format!("writing {}", path.display()))?;
        let console = Console::new(path);
        let mut spawn = Spawn::new(format!("{stem}.qemu"), QEMU);
        spawn = spawn.args(self.hardware(console.path(), &stem));
        spawn = spawn.args(self.firmware()?);
        let process = self.lab.spawn_at_switch(spawn)?;
        self.running = Some(Running { process, console, since: Instant::now() });
        Ok(())
    }

    /// Pulls the power cord.
    pub(crate) fn power_off(&mut self) {
        if let Some(running) = self.running.take() {
            running.process.signal(libc::SIGKILL);
            running.process.wait(Duration::from_secs(5));
        }
    }

    pub(crate) fn set_rate(&self, rate: Rate) -> Result<()> {
        self.lab.set_tap_rate(&self.spec.tap(), rate)
    }

    /// What it has said since it was switched on.
    pub(crate) fn console(&self) -> Result<&Console> {
        let running = self.running.as_ref();
        Ok(&running.with_context(|| format!("{} is off", self.spec.name()))?.console)
    }

    /// Since it was switched on.
    pub(crate) fn uptime(&self) -> Duration {
        self.running.as_ref().map_or(Duration::ZERO, |running| running.since.elapsed())
    }

    /// Types on its serial console.
    pub(crate) fn type_keys(&self, keys: &str) -> Result<()> {
        let path = self.keyboard();
        let mut socket = UnixStream::connect(&path)
            .with_context(|| format!("connecting to {}", path.display()))?;
        socket.write_all(keys.as_bytes()).context("typing")?;
        // What the serial port has no room for yet, QEMU drops when the line is cut: it hangs up by itself once
        // it has read all. Until then it says here, too, what the machine prints.
        socket.shutdown(Shutdown::Write).context("typing")?;
        socket.set_read_timeout(Some(TYPING_TIMEOUT)).context("typing")?;
        std::io::copy(&mut socket, &mut std::io::sink()).context("the machine takes no keys")?;
        Ok(())
    }

    /// Presses a key of its own keyboard, by the name that QEMU has for it: that of what is printed on it
    /// in the United States.
    pub(crate) fn press(&self, key: &str) -> Result<()> {
        let path = self.socket("monitor");
        let failed = || format!("pressing {key} by {}", path.display());
        let mut socket = UnixStream::connect(&path).with_context(failed)?;
        socket.set_read_timeout(Some(MONITOR_TIMEOUT)).with_context(failed)?;
        writeln!(socket, "sendkey {key}").with_context(failed)?;
        // It asks for a command when it is there, and for the next when it has done the first.
        let mut said = vec![];
        while said.windows(PROMPT.len()).filter(|part| part == &PROMPT).count() < 2 {
            let mut part = [0; 256];
            let len = socket.read(&mut part).with_context(failed)?;
            ensure!(len > 0, "{}: it has hung up", failed());
            said.extend_from_slice(&part[..len]);
        }
        Ok(())
    }

    /// The socket of its serial port.
    fn keyboard(&self) -> PathBuf {
        self.socket("serial")
    }

    /// A short path, as those of sockets have to be.
    fn socket(&self, kind: &str) -> PathBuf {
        self.lab.slot_dir(Slot::SERVER).join(format!("{}.{kind}", self.spec.name()))
    }

    /// Waits until its console shows a text; the time since it was switched on.
    pub(crate) fn wait_for(&self, text: &str, timeout: Duration) -> Result<Duration> {
        self.wait(text, timeout, |console| console.has(text))
    }

    /// Waits until what its console shows is as wanted. `what` names that for the error.
    pub(crate) fn wait(
        &self,
        what: &str,
        timeout: Duration,
        mut is_so: impl FnMut(&Console) -> bool,
    ) -> Result<Duration> {
        let name = self.spec.name();
        let running = self.running.as_ref().with_context(|| format!("{name} is off"))?;
        let start = Instant::now();
        loop {
            if is_so(&running.console) {
                return Ok(running.since.elapsed());
            }
            interrupt::check()?;
            let tail = || format!("\n--- console of {name}:\n{}", running.console.text());
            if let Some(exit) = running.process.exit() {
                let log = running.process.log_tail();
                bail!("{name}: QEMU ended with {} before `{what}`: {log}{}", exit.code, tail());
            }
            if start.elapsed() >= timeout {
                bail!("{name}: no `{what}` within {} s{}", timeout.as_secs(), tail());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn hardware(&self, console: &Path, stem: &str) -> Vec<String> {
        let spec = &self.spec;
        let card = match spec.card {
            Card::Virtio => "virtio-net-pci",
            Card::E1000 => "e1000",
        };
        // With an iPXE ROM OVMF would use that in place of its own network stack.
        let rom = if spec.firmware == Firmware::Ipxe { "" } else { ",romfile=" };
        let mut args = vec![
            "-nodefaults".to_owned(),
            "-no-user-config".to_owned(),
            // The firmware's console on the serial port.
            "-nographic".to_owned(),
            format!("-name={stem}"),
            format!("-uuid=b0077044-0000-4000-8000-{:012x}", spec.number),
            "-accel=tcg".to_owned(),
            format!("-m={}", spec.memory_mib),
            // What it says goes into a file; what is typed comes through a socket.
            format!(
                "-chardev=socket,id=serial0,path={},server=on,wait=off,logfile={}",
                self.keyboard().display(),
                console.display()
            ),
            "-serial=chardev:serial0".to_owned(),
            format!(
                "-chardev=socket,id=monitor0,path={},server=on,wait=off",
                self.socket("monitor").display()
            ),
            "-mon=chardev=monitor0".to_owned(),
            format!("-netdev=tap,id=net0,ifname={},script=no,downscript=no", spec.tap()),
            format!("-device={card},netdev=net0,mac={},bootindex=1{rom}", spec.mac()),
            // edk2's network stack wants random numbers.
            "-device=virtio-rng-pci".to_owned(),
            // A node whose firmware found nothing asks again, as people would make it.
            "-boot=reboot-timeout=2000".to_owned(),
        ];
        if spec.counts {
            args.push(format!("-icount=shift={ICOUNT_SHIFT}"));
        }
        if let Some(disk) = &spec.disk {
            args.extend([
                "-device=ahci,id=ahci0".to_owned(),
                format!("-drive=if=none,id=disk0,format=raw,file={}", disk.display()),
                "-device=ide-hd,drive=disk0,bus=ahci0.0,model=Drum".to_owned(),
                "-smbios=type=1,manufacturer=ACME,product=Rocket,serial=BT-0001".to_owned(),
            ]);
        }
        if spec.capture {
            let path = self.evidence.join(format!("{stem}.pcap"));
            args.push(format!("-object=filter-dump,id=dump0,netdev=net0,file={}", path.display()));
        }
        args.iter().flat_map(|arg| split_option(arg)).collect()
    }

    fn firmware(&self) -> Result<Vec<String>> {
        let lines = match self.spec.firmware {
            Firmware::Ipxe => vec!["-machine=pc".to_owned()],
            Firmware::Pxe => {
                let path = self.evidence.join("plain-rom.ipxe");
                write(&path, PLAIN_ROM)?;
                let path = path.display().to_string();
                vec![
                    "-machine=pc".to_owned(),
                    format!("-kernel={IPXE_KERNEL}"),
                    format!("-initrd={path}"),
                ]
            }
            Firmware::Uefi | Firmware::UefiHttp => {
                let vars = self.evidence.join(format!("{}.vars", self.spec.name()));
                std::fs::copy(OVMF_VARS, &vars).with_context(|| format!("copying {OVMF_VARS}"))?;
                let pxe = if self.spec.firmware == Firmware::Uefi { "y" } else { "n" };
                vec![
                    "-machine=q35".to_owned(),
                    format!("-drive=if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"),
                    format!("-drive=if=pflash,format=raw,unit=1,file={}", vars.display()),
                    format!("-fw_cfg=name=opt/org.tianocore/IPv4PXESupport,string={pxe}"),
                    "-fw_cfg=name=opt/org.tianocore/IPv6PXESupport,string=n".to_owned(),
                ]
            }
        };
        Ok(lines.iter().flat_map(|line| split_option(line)).collect())
    }
}

/// What a PXE ROM does: asks, and loads what it is told to by TFTP. Its requests are those of any
/// other PXE client: options 60, 93, 94 and 97, no word of iPXE in option 77.
const PLAIN_ROM: &str = "#!ipxe\nset user-class PXE\n:again\nautoboot net0 || goto again\n";

/// `-m=512` is two arguments for QEMU.
fn split_option(option: &str) -> Vec<String> {
    match option.split_once('=') {
        Some((name, value)) => vec![name.to_owned(), value.to_owned()],
        None => vec![option.to_owned()],
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_once() {
        assert_eq!(split_option("-nographic"), ["-nographic"]);
        assert_eq!(split_option("-boot=reboot-timeout=5"), ["-boot", "reboot-timeout=5"]);
    }

    #[test]
    fn machines_of_a_lab_have_addresses_of_their_own() {
        let (first, second) = (Spec::new(1, Firmware::Ipxe), Spec::new(2, Firmware::Uefi));
        assert_ne!(first.mac(), second.mac());
        assert_ne!(first.tap(), second.tap());
    }
}
