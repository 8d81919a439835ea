//! The emulated machine: QEMU's command line for it, and one running instance.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::console::{Console, Heard};
use crate::monitor::Monitor;
use crate::options::{Disk, DiskKind, Nic, Storage};
use crate::{progress, ring};

/// Sessions started so far, to tell their sockets apart.
static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// A processor with SVM, less the features that TCG lacks, which are named only to keep it quiet. MONITOR
/// is off because TCG faults on an MWAIT that asks for interrupts to break it.
pub(crate) const CPU: &str = "EPYC-v4,+x2apic,+vgif,-monitor,-fxsr-opt,-misalignsse,-osvw,-topoext,\
                              -perfctr-core,-clzero,-ibpb,-nrip-save,-xsavec,-xsaves";

/// What the machine boots.
#[derive(Clone)]
pub(crate) enum Boot {
    /// A Linux kernel on the bare machine.
    Linux { kernel: PathBuf, initramfs: PathBuf, cmdline: String },
    /// The hypervisor by PVH, with the boot bundle.
    Hypervisor { image: PathBuf, bundle: PathBuf, cmdline: String },
    /// A disc image, by BIOS or by the given UEFI firmware (code and variables).
    Disc { image: PathBuf, firmware: Option<(PathBuf, PathBuf)> },
}

/// A machine to be started.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u64,
    pub(crate) cpu: String,
    /// Whether each processor has a thread of the host, rather than all of them one in turn. With threads, QEMU lets any
    /// processor that loads the state of its FPU write flags of the first one, those of SVM among them
    /// (docs/adr/0013-one-thread.md).
    pub(crate) threads: bool,
    pub(crate) boot: Boot,
    pub(crate) disks: Vec<Disk>,
    pub(crate) nics: Vec<Nic>,
    /// Whether a reset of the guest starts it anew, rather than ending QEMU.
    pub(crate) reboots: bool,
}

/// How a machine ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// The guest switched the machine off.
    PoweredOff,
    /// The guest reset the machine, or a triple fault did.
    Reset,
    /// QEMU ended otherwise, for the reason in the text.
    Failed(String),
}

impl Spec {
    /// QEMU's command line, without the console. `folder` takes the sockets, the scratch disks and the logs.
    ///
    /// # Errors
    /// A scratch disk cannot be made.
    fn command(&self, folder: &Path) -> Result<Command> {
        let mut command = Command::new(QEMU);
        let accel = if self.threads { "tcg,thread=multi" } else { "tcg,thread=single" };
        command.args(["-M", "q35", "-accel", accel, "-nodefaults", "-display", "none"]);
        command.args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory_mib)]);
        command.args(["-cpu", &self.cpu, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        if !self.reboots {
            command.arg("-no-reboot");
        }
        match &self.boot {
            Boot::Linux { kernel, initramfs, cmdline } => {
                command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", cmdline]);
            }
            Boot::Hypervisor { image, bundle, cmdline } => {
                command.arg("-kernel").arg(image).arg("-initrd").arg(bundle).args(["-append", cmdline]);
            }
            Boot::Disc { image, firmware } => {
                if let Some((code, variables)) = firmware {
                    let own = folder.join("uefi-variables.fd");
                    fs::copy(variables, &own)?;
                    let flash =
                        |path: &Path, more| format!("if=pflash,format=raw,file={}{more}", path.display());
                    command.args(["-drive", &flash(code, ",readonly=on"), "-drive", &flash(&own, "")]);
                }
                command.arg("-cdrom").arg(image);
            }
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let path = backing(disk, index, folder)?;
            let drive = format!("if=none,id=disk{index},format=raw,cache=unsafe,file={}", path.display());
            let device = match disk.kind {
                DiskKind::Virtio => format!("virtio-blk-pci,drive=disk{index}"),
                DiskKind::Nvme => format!("nvme,drive=disk{index},serial=bulkhead{index}"),
                DiskKind::Ahci => format!("ide-hd,drive=disk{index},bus=ide.{index}"),
            };
            command.args(["-drive", &drive, "-device", &device]);
        }
        for (index, nic) in self.nics.iter().enumerate() {
            let netdev = nic.backend.as_deref().unwrap_or("user");
            command.args(["-netdev", &with_id(netdev, &format!("net{index}"))]);
            command.args(["-device", &format!("{},netdev=net{index}", nic.kind.device())]);
        }
        Ok(command)
    }

    /// Runs the machine on the terminal: `Ctrl-A x` ends it, `Ctrl-A c` shows QEMU's monitor.
    ///
    /// # Errors
    /// QEMU cannot be started or fails.
    pub(crate) fn interactive(&self, folder: &Path) -> Result<()> {
        let mut command = self.command(folder)?;
        command.args(["-serial", "mon:stdio"]);
        let status = command.status().with_context(|| format!("cannot start {QEMU}"))?;
        match status.code() {
            Some(0) => Ok(()),
            _ => bail!("the machine ended with {status}; see {}", folder.display()),
        }
    }
}

/// The file behind a disk; a scratch disk is made, sparse.
fn backing(disk: &Disk, index: usize, folder: &Path) -> Result<PathBuf> {
    match &disk.storage {
        Storage::File(path) => Ok(path.clone()),
        Storage::Scratch(bytes) => {
            let path = folder.join(format!("disk{index}.img"));
            File::create(&path)?.set_len(*bytes)?;
            Ok(path)
        }
    }
}

/// A `-netdev` argument with an id: `user,restrict=on` becomes `user,id=net0,restrict=on`.
fn with_id(netdev: &str, id: &str) -> String {
    match netdev.split_once(',') {
        Some((kind, rest)) => format!("{kind},id={id},{rest}"),
        None => format!("{netdev},id={id}"),
    }
}

/// A machine that runs, with its console captured.
pub(crate) struct Session {
    child: Child,
    monitor: Option<Monitor>,
    console: Console,
    folder: PathBuf,
    /// The hypervisor's image, where it is known.
    image: Option<PathBuf>,
    begin: Instant,
    limit: Duration,
    stall: Duration,
}

impl Session {
    /// Starts a machine. It is stopped after `limit`, or after `stall` without a word on the console.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub(crate) fn start(spec: &Spec, folder: &Path, limit: Duration, stall: Duration) -> Result<Self> {
        // A socket's path may have 107 bytes, so it does not go below the folder.
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("bulkhead-{}-{number}.qmp", std::process::id()));
        let mut command = spec.command(folder)?;
        command.args(["-serial", "stdio"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(folder.join("qemu.log"))?);
        fs::write(folder.join("command"), format!("{command:?}\n"))?;
        let mut child = command.spawn().with_context(|| format!("cannot start {QEMU}"))?;
        let output = child.stdout.take().context("QEMU has no standard output")?;
        let console = Console::new(output, &folder.join("console.log"))?;
        // A QEMU that dislikes its arguments ends before it makes the socket; `finish` tells why.
        let monitor = Monitor::connect(&socket).ok();
        let _ = fs::remove_file(&socket);
        let image = match &spec.boot {
            Boot::Hypervisor { image, .. } => Some(image.clone()),
            Boot::Linux { .. } | Boot::Disc { .. } => None,
        };
        let (folder, begin) = (folder.to_path_buf(), Instant::now());
        Ok(Self { child, monitor, console, folder, image, begin, limit, stall })
    }

    /// The next line of the console; `None` when the machine has ended.
    ///
    /// # Errors
    /// The machine hung or took too long; it has been stopped, and the error names the file with its state.
    pub(crate) fn line(&mut self) -> Result<Option<String>> {
        let left = self.limit.saturating_sub(self.begin.elapsed());
        match self.console.next(left.min(self.stall)) {
            Heard::Line(line) => Ok(Some(line)),
            Heard::End => Ok(None),
            Heard::Silence => {
                let state = self.dump();
                self.stop();
                let what = if self.begin.elapsed() >= self.limit {
                    format!("took longer than {} s", self.limit.as_secs())
                } else {
                    format!("said nothing for {} s", self.stall.as_secs())
                };
                bail!("the machine {what}; its state is in {}", state.display());
            }
        }
    }

    /// Types text on the machine's console.
    ///
    /// # Errors
    /// The machine is gone.
    pub(crate) fn type_in(&mut self, text: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("QEMU has no standard input")?;
        input.write_all(text.as_bytes()).context("the machine takes no input")
    }

    /// Shortens the time the machine has left.
    pub(crate) fn expect_end(&mut self, within: Duration) {
        self.limit = self.limit.min(self.begin.elapsed() + within);
    }

    /// Writes what all processors do, and the hypervisor's log, to a file.
    fn dump(&mut self) -> PathBuf {
        let path = self.folder.join("state.txt");
        let mut text = String::new();
        if let Some(monitor) = &mut self.monitor {
            let _ = monitor.human("stop");
            let mut commands = vec!["info status".into(), "info registers -a".into(), "info pic".into()];
            let cpus = monitor.human("info cpus").unwrap_or_default().lines().count();
            commands.extend((0..cpus).map(|cpu| format!("info lapic {cpu}")));
            for command in commands {
                let answer = monitor.human(&command).unwrap_or_else(|error| format!("{error:#}"));
                text.push_str(&format!("### {command}\n{answer}\n"));
            }
        }
        if let (Some(monitor), Some(image)) = (&mut self.monitor, &self.image) {
            let log = ring::read(monitor, image, &self.folder.join("memory"));
            text.push_str(&format!(
                "### the hypervisor's log\n{}\n",
                log.unwrap_or_else(|error| format!("{error:#}"))
            ));
        }
        if let Err(error) = fs::write(&path, text) {
            progress::say(format_args!("cannot write {}: {error}", path.display()));
        }
        path
    }

    fn stop(&mut self) {
        if let Some(monitor) = &mut self.monitor {
            monitor.quit();
        }
        let _ = self.child.kill();
    }

    /// Waits for the end of the machine and tells which it was.
    ///
    /// # Errors
    /// QEMU cannot be waited for.
    pub(crate) fn finish(mut self) -> Result<Ending> {
        let status = self.child.wait()?;
        let reason = self.monitor.take().and_then(Monitor::ending);
        Ok(ending(status, reason.as_deref(), &self.folder))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // After a normal end both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ending(status: ExitStatus, reason: Option<&str>, folder: &Path) -> Ending {
    match (status.code(), reason) {
        (Some(0), Some("guest-shutdown")) => Ending::PoweredOff,
        (Some(0), Some("guest-reset")) => Ending::Reset,
        // The device isa-debug-exit makes an odd status of what is written to its port.
        (Some(code), _) if code & 1 == 1 && code > 1 => Ending::Failed(format!("debug exit {}", code >> 1)),
        (_, reason) => {
            let words = fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
            let words = crate::tools::tail(&words, 3);
            Ending::Failed(format!("QEMU: {status}, {} {words}", reason.unwrap_or("no shutdown seen")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::with_id;

    #[test]
    fn netdev_gets_its_id_after_the_kind() {
        assert_eq!(with_id("user", "n"), "user,id=n");
        assert_eq!(with_id("user,restrict=on", "n"), "user,id=n,restrict=on");
    }
}
