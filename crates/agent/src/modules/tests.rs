use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// Takes what it is given, except for what it is told to refuse, and shows what a driver brings.
#[derive(Default)]
struct FakeKernel {
    inserted: Vec<String>,
    refused: Vec<&'static str>,
    brings: Option<(&'static str, PathBuf, &'static str)>,
}

impl Kernel for FakeKernel {
    fn insert(&mut self, path: &Path, parameters: &str) -> Result<(), InsertError> {
        let file = path.file_name().unwrap().to_str().unwrap();
        let text = [file, parameters].join(" ").trim_end().to_owned();
        self.inserted.push(text);
        if self.refused.contains(&file) {
            return Err(InsertError::Refused(io::Error::other("bad")));
        }
        if let Some((_, dir, alias)) = self.brings.take_if(|(brings, ..)| *brings == file) {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("modalias"), format!("{alias}\n")).unwrap();
        }
        Ok(())
    }
}

struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let modules = dir.path().join("modules");
        fs::create_dir(&modules).unwrap();
        fs::write(
            modules.join("modules.dep"),
            "k/virtio_pci.ko: k/virtio.ko\nk/virtio.ko:\nk/virtio_net.ko: k/failover.ko k/virtio.ko\n\
             k/failover.ko:\nk/snd.ko:\nk/overlay.ko:\n",
        )
        .unwrap();
        fs::write(
            modules.join("modules.alias"),
            "alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias virtio:d00000001v* virtio_net\n\
             alias pci:v*bc04* snd\n",
        )
        .unwrap();
        let machine = Self { dir };
        machine.device("0", "pci:v00001234d1sv1sd1bc04sc00i00");
        machine.device("1", "pci:v00001AF4d1sv1sd1bc02sc00i00");
        machine
    }

    fn sys(&self) -> PathBuf {
        self.dir.path().join("sys")
    }

    /// A PCI device, linked as in sysfs.
    fn device(&self, name: &str, alias: &str) {
        let device = self.sys().join("devices").join(name);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("modalias"), format!("{alias}\n")).unwrap();
        let bus = self.sys().join("bus/pci/devices");
        fs::create_dir_all(&bus).unwrap();
        symlink(&device, bus.join(name)).unwrap();
    }

    fn loader(&self, cmdline: &str) -> Loader<FakeKernel> {
        let config = ModulesConfig {
            dir: self.dir.path().join("modules"),
            sys: self.sys(),
            cmdline: cmdline.to_owned(),
        };
        let mut kernel = FakeKernel::default();
        let virtio0 = self.sys().join("bus/virtio/devices/virtio0");
        kernel.brings = Some(("virtio_pci.ko", virtio0, "virtio:d00000001v00001AF4"));
        Loader::open(&config, kernel).unwrap()
    }
}

#[test]
fn the_network_comes_first_and_what_it_brings_is_found() {
    let machine = Machine::new();
    let mut loader = machine.loader("");
    let summary = loader.coldplug();
    assert_eq!(summary.loaded, ["virtio", "virtio_pci", "snd", "failover", "virtio_net"]);
    assert_eq!(summary.failed, [""; 0]);
}

#[test]
fn everything_may_be_done_twice() {
    let machine = Machine::new();
    let mut loader = machine.loader("");
    let first = loader.coldplug();
    assert_eq!(loader.coldplug(), Summary::default());
    let mut again = Summary::default();
    loader.hear_of("virtio:d00000001v00001AF5", &mut again);
    assert_eq!(again, Summary::default());
    assert_eq!(loader.kernel.inserted.len(), first.loaded.len());
}

#[test]
fn a_device_that_comes_later_gets_its_driver() {
    let machine = Machine::new();
    let mut loader = machine.loader("");
    loader.coldplug();
    let mut summary = Summary::default();
    loader.load_wanted("overlay", &mut summary);
    assert_eq!(summary.loaded, ["overlay"]);
    loader.hear_of("usb:v1", &mut summary);
    assert_eq!(summary.loaded, ["overlay"], "nothing drives it");
}

#[test]
fn a_module_without_what_it_needs_is_not_tried() {
    let machine = Machine::new();
    let mut loader = machine.loader("");
    loader.kernel.refused = vec!["virtio.ko"];
    let summary = loader.coldplug();
    assert_eq!(summary.loaded, ["snd"]);
    assert_eq!(summary.failed, ["module virtio: the kernel refuses it: bad"]);
    assert_eq!(loader.kernel.inserted, ["virtio.ko", "snd.ko"]);
    let mut later = Summary::default();
    loader.load_wanted("virtio_net", &mut later);
    assert!(!loader.kernel.inserted.contains(&"virtio_net.ko".to_owned()));
}

#[test]
fn the_command_line_has_parameters_and_bars_modules() {
    let cmdline = "quiet boottorrent.server=http://10.0.0.1:8080 virtio-net.napi_tx=0 \
                   modprobe.blacklist=snd,foo virtio_net.csum=1";
    let machine = Machine::new();
    let mut loader = machine.loader(cmdline);
    loader.coldplug();
    assert_eq!(
        loader.kernel.inserted,
        ["virtio.ko", "virtio_pci.ko", "failover.ko", "virtio_net.ko napi_tx=0 csum=1"]
    );
}

#[test]
fn a_kernel_without_modules_says_where_they_should_be() {
    let machine = Machine::new();
    let config = ModulesConfig {
        dir: machine.dir.path().join("nowhere"),
        sys: machine.sys(),
        cmdline: String::new(),
    };
    let Err(error) = Loader::open(&config, FakeKernel::default()) else { panic!("it opened") };
    assert!(error.to_string().contains("nowhere/modules.dep cannot be read"), "{error}");
}
