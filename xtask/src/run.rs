//! `cargo xtask run`: boots the machine, for a person at a terminal or to its end without one.

use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::child::{self, StockKernel};
use crate::initramfs::{self, Contents, Image};
use crate::kernel::Source;
use crate::machine::{Boot, Ending, Session, Spec};
use crate::options::{ChildOptions, Disk, DiskKind, RootOptions, RunOptions};
use crate::{bundle, cargo, progress, scenario, setup, tools};

/// Memory the root needs before it gives any to a child, in bytes.
const ROOT_MEMORY: u64 = 640 << 20;
/// How long the machine may go on after a fault.
const AFTER_FAULT: Duration = Duration::from_secs(15);
/// How long the machine may be silent before it counts as hung.
const STALL: Duration = Duration::from_secs(180);

/// `cargo xtask run`.
///
/// # Errors
/// The set-up fails, an option makes no sense, or the machine does not do what it should.
pub(crate) fn command(options: &RunOptions) -> Result<()> {
    check(options)?;
    setup::host()?;
    let terminal = !options.batch && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let scenario = &options.root.scenario;
    let words =
        format!("bulkhead.scenario={scenario} bulkhead.then={}", if terminal { "shell" } else { "poweroff" });
    let folder = folder("run")?;
    let parts = Parts::gather(&options.root, !options.bare, options.child())?;
    // The root finds them as its last virtio disks.
    let child_disks =
        options.child_disks.iter().cloned().map(|storage| Disk { kind: DiskKind::Virtio, storage });
    let spec = Spec {
        cpus: options.machine.cpus,
        memory_mib: options.machine.memory >> 20,
        cpu: options.machine.cpu.clone(),
        threads: options.machine.threads,
        boot: parts
            .pack(&folder, &words, |contents| {
                let disks = format!("CHILD_DISKS={}\n", options.child_disks.len());
                contents.texts.push(("etc/bulkhead/child-disks.conf".into(), disks));
            })?
            .direct(),
        disks: options.machine.disks.iter().cloned().chain(child_disks).collect(),
        nics: options.machine.nics.clone(),
        reboots: false,
    };
    progress::say(format_args!("starting the machine: {} processors, {} MiB", spec.cpus, spec.memory_mib));
    if terminal {
        return spec.interactive(&folder);
    }
    let outcome = batch(&spec, &folder, Duration::from_secs(options.timeout), |line| {
        println!("{line}");
        None
    })?;
    progress::say(format_args!(
        "the machine is off; its console is in {}",
        folder.join("console.log").display()
    ));
    outcome.verdict(&[])
}

/// Finds what is wrong with the options before anything is built.
fn check(options: &RunOptions) -> Result<()> {
    let RunOptions { machine, root, child, .. } = options;
    let needed = ROOT_MEMORY + options.child().map_or(0, |child| child.child_memory);
    ensure!(
        machine.memory >= needed,
        "{} MiB are too little memory for the machine: the root and the child need {} MiB (--memory)",
        machine.memory >> 20,
        needed >> 20
    );
    check_parts(root, child)
}

/// The part of that which a disc image shares.
///
/// # Errors
/// A file or folder that an option names is not there, or is not what it should be.
pub(crate) fn check_parts(root: &RootOptions, child: &ChildOptions) -> Result<()> {
    if let Some(kernel) = &root.kernel {
        check_kernel(kernel).context("--kernel")?;
    }
    for overlay in &root.overlays {
        ensure!(overlay.is_dir(), "--overlay: there is no folder `{}`", overlay.display());
    }
    let child_kernel = Path::new(&child.child_kernel);
    if child_kernel.is_file() {
        check_kernel(child_kernel)
    } else {
        child::check_series(&child.child_kernel)
    }
    .context("--child-kernel")?;
    if let Some(initramfs) = &child.child_initramfs {
        ensure!(initramfs.is_file(), "--child-initramfs: there is no file `{}`", initramfs.display());
    }
    let script = tools::workspace().join("images/root/scenarios").join(format!("{}.sh", root.scenario));
    ensure!(
        script.is_file(),
        "--scenario: there is no scenario `{}` in images/root/scenarios",
        root.scenario
    );
    Ok(())
}

/// Checks that a file begins like a bzImage: boot sector mark and `HdrS` (Linux boot protocol, §1.1).
///
/// # Errors
/// It is missing, too short, or something else.
pub(crate) fn check_kernel(path: &Path) -> Result<()> {
    let image = fs::read(path).with_context(|| {
        format!("cannot read {}: a Linux kernel (a bzImage, vmlinuz) is needed", path.display())
    })?;
    let mark = image.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && image.get(0x202..0x206) == Some(b"HdrS");
    ensure!(mark, "{} is no Linux kernel: a bzImage (vmlinuz) is needed", path.display());
    // For the sake of the oldest kernels, no set-up sectors means four.
    let sectors = image.get(0x1f1).map_or(0, |&count| if count == 0 { 4 } else { usize::from(count) });
    let paragraphs =
        image.get(0x1f4..0x1f8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    let whole = (sectors + 1) * 512 + paragraphs as usize * 16;
    ensure!(
        image.len() >= whole,
        "{} is cut off: it has {} of {whole} bytes; copy it again",
        path.display(),
        image.len()
    );
    Ok(())
}

/// Locks of the folders that this process uses; they last as long as it does.
static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// An empty folder for one run's files, below Cargo's target folder: `name`, or `name-2` and so on while other
/// processes use those before it.
///
/// # Errors
/// It cannot be made.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let base = tools::target_dir().join("xtask");
    fs::create_dir_all(&base)?;
    let names = std::iter::once(name.to_string()).chain((2..).map(|number| format!("{name}-{number}")));
    for name in names {
        let lock = File::create(base.join(format!("{name}.lock")))?;
        if lock.try_lock().is_err() {
            continue;
        }
        LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
        let folder = base.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        return Ok(folder);
    }
    bail!("there is no end of numbers")
}

/// Everything that is booted, found and built.
pub(crate) struct Parts {
    kernel: PathBuf,
    hypervisor: Option<PathBuf>,
    cmdline: String,
    hypervisor_cmdline: String,
    busybox: PathBuf,
    /// What goes into the root's initramfs.
    contents: Contents,
}

impl Parts {
    /// Gathers the parts: for the bare machine or with the hypervisor, with or without what a child needs.
    ///
    /// # Errors
    /// Something cannot be fetched or built.
    pub(crate) fn gather(root: &RootOptions, hypervisor: bool, child: Option<&ChildOptions>) -> Result<Self> {
        let busybox = setup::busybox()?;
        let mut contents =
            Contents { overlays: root.overlays.clone(), files: root.files.clone(), ..Contents::default() };
        if let Some(options) = child {
            contents.images.push(child_image(options, &busybox)?);
            contents.texts.push(("etc/bulkhead/demo.conf".into(), child_settings(options)));
            contents.programs = cargo::stack()?;
        }
        let hypervisor = hypervisor.then(cargo::hypervisor).transpose()?;
        let kernel = match &root.kernel {
            Some(kernel) => kernel.clone(),
            None => Source::find()?.bzimage()?,
        };
        let cmdline = root.cmdline.clone();
        Ok(Self {
            kernel,
            hypervisor,
            cmdline,
            hypervisor_cmdline: root.hypervisor_cmdline.clone(),
            busybox,
            contents,
        })
    }

    /// The newest Debian cloud kernel of a series, as an image named by it.
    ///
    /// # Errors
    /// The kernel cannot be fetched.
    pub(crate) fn stock_image(&self, series: &str) -> Result<Image> {
        image(&format!("-{series}"), child::stock(series)?, &self.busybox)
    }

    /// Packs the parts into files in `folder`, with `words` in the root's command line. `change` has the last
    /// word on what goes into the root's file system.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(crate) fn pack(
        &self,
        folder: &Path,
        words: &str,
        change: impl FnOnce(&mut Contents),
    ) -> Result<Files> {
        let mut contents = self.contents.clone();
        change(&mut contents);
        let packed = initramfs::root(&self.busybox, &contents)?;
        let cmdline = format!("console=ttyS0 panic=-1 {words} {}", self.cmdline);
        let cmdline = cmdline.split_whitespace().collect::<Vec<_>>().join(" ");
        let (initramfs, bundle) = (folder.join("initramfs"), folder.join("bundle"));
        fs::write(&bundle, bundle::pack(&fs::read(&self.kernel)?, &packed, &cmdline))?;
        fs::write(&initramfs, packed)?;
        Ok(Files {
            kernel: self.kernel.clone(),
            initramfs,
            bundle,
            cmdline,
            hypervisor: self.hypervisor.clone(),
            hypervisor_cmdline: self.hypervisor_cmdline.clone(),
        })
    }
}

/// The files of one boot.
pub(crate) struct Files {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// Kernel, initramfs and command line in one file, for loaders that pass one module.
    pub(crate) bundle: PathBuf,
    pub(crate) cmdline: String,
    /// None for a boot on the bare machine.
    pub(crate) hypervisor: Option<PathBuf>,
    pub(crate) hypervisor_cmdline: String,
}

impl Files {
    /// A boot by QEMU's own loader.
    pub(crate) fn direct(&self) -> Boot {
        match &self.hypervisor {
            None => Boot::Linux {
                kernel: self.kernel.clone(),
                initramfs: self.initramfs.clone(),
                cmdline: self.cmdline.clone(),
            },
            Some(image) => Boot::Hypervisor {
                image: image.clone(),
                bundle: self.bundle.clone(),
                // In the emulator a panic of the hypervisor ends the machine, so that nobody waits for it.
                cmdline: format!("panic=exit {}", self.hypervisor_cmdline).trim_end().to_string(),
            },
        }
    }
}

/// The child's kernel and its packed initramfs.
fn child_image(options: &ChildOptions, busybox: &Path) -> Result<Image> {
    let file = PathBuf::from(&options.child_kernel);
    let stock = if file.is_file() { StockKernel::from(file) } else { child::stock(&options.child_kernel)? };
    let mut image = image("", stock, busybox)?;
    if let Some(path) = &options.child_initramfs {
        image.initramfs = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(image)
}

/// A kernel with the initramfs that reports about itself.
fn image(suffix: &str, stock: StockKernel, busybox: &Path) -> Result<Image> {
    check_kernel(&stock.bzimage).context("--child-kernel")?;
    let initramfs = initramfs::child(busybox, &stock.guest_modules()?)?;
    Ok(Image { suffix: suffix.into(), kernel: stock.bzimage, initramfs })
}

/// The child's settings as the root's scripts read them: assignments of the shell.
fn child_settings(options: &ChildOptions) -> String {
    let cmdline = options.child_cmdline.replace('\'', r"'\''");
    let (vps, memory) = (options.child_vps, options.child_memory >> 20);
    format!("CHILD_VPS={vps}\nCHILD_MEMORY={memory}\nCHILD_CMDLINE='{cmdline}'\n")
}

/// What a machine said and how it ended.
pub(crate) struct Outcome {
    results: Vec<scenario::Line>,
    ending: Ending,
    /// The first line that tells of a fault of the hypervisor or the root.
    fault: Option<String>,
    /// The last line that is not empty.
    last: String,
}

impl Outcome {
    /// Whether everything went well: all of `expected` and nothing but success, `done`, and the power off.
    ///
    /// # Errors
    /// What went wrong first.
    pub(crate) fn verdict(&self, expected: &[&str]) -> Result<()> {
        if let Some(fault) = &self.fault {
            match fault.split_once("cannot start: ") {
                Some((_, reason)) => bail!("the hypervisor cannot start: {reason}"),
                None => bail!("{fault}"),
            }
        }
        if let Some(failure) = scenario::failure(&self.results) {
            bail!("{failure}");
        }
        match &self.ending {
            Ending::PoweredOff => scenario::complete(&self.results, expected),
            Ending::Reset => {
                bail!("the machine was reset instead of switched off; it last said: {}", self.last)
            }
            Ending::Failed(reason) => {
                bail!("the machine ended badly ({reason}); it last said: {}", self.last)
            }
        }
    }
}

/// Runs a machine to its end and gives each line of its console to `hear`; what that returns is typed in.
///
/// # Errors
/// It cannot be started, hangs or takes too long.
pub(crate) fn batch(
    spec: &Spec,
    folder: &Path,
    limit: Duration,
    mut hear: impl FnMut(&str) -> Option<&'static str>,
) -> Result<Outcome> {
    let mut session = Session::start(spec, folder, limit, STALL)?;
    let (mut results, mut fault, mut last) = (Vec::new(), None, String::new());
    loop {
        let line = match session.line() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => return Err(fault.map_or(error, anyhow::Error::msg)),
        };
        if let Some(reply) = hear(&line) {
            session.type_in(reply)?;
        }
        results.extend(scenario::parse(&line));
        if fault.is_none() && scenario::is_fault(&line) {
            fault = Some(line.clone());
            // What else is to be said about it comes soon, or never.
            session.expect_end(AFTER_FAULT);
        }
        if !line.trim().is_empty() {
            last = line;
        }
    }
    Ok(Outcome { results, ending: session.finish()?, fault, last })
}
