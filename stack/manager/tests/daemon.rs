//! The daemon as a process, with shell scripts in the place of workers.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use control::{Request, Response, RunDir, State, VmConfig, VmStatus, codec};

/// A worker that answers checks, and starts a machine that runs until it is killed. The kind of order follows
/// the frame's length; the console socket that a real worker would make is a file here.
const OBEDIENT: &str = r#"#!/bin/sh
order=$(dd bs=1 skip=4 count=8 2>/dev/null)
case "$order" in
*check*) printf '\011\000\000\000"checked"' >&0 ;;
*start*) printf '\011\000\000\000"running"' >&0; touch "${0%/*}/run/web.console"; exec sleep 1000 ;;
esac
"#;

/// A worker that ends without a word.
const SILENT: &str = "#!/bin/sh\nexit 3\n";

struct Daemon {
    folder: PathBuf,
    process: Child,
}

impl Daemon {
    fn start(name: &str, worker: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("bulkheadd-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("worker");
        fs::write(&program, worker).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let process = Self::command(&folder).stderr(Stdio::null()).spawn().unwrap();
        let daemon = Self { folder, process };
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(daemon.run_dir().control_socket()).is_err() {
            assert!(Instant::now() < deadline, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    fn command(folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkheadd"));
        command.arg("--run-dir").arg(folder.join("run")).arg("--worker").arg(folder.join("worker"));
        command
    }

    fn run_dir(&self) -> RunDir {
        RunDir::new(self.folder.join("run"))
    }

    fn ask(&self, request: &Request) -> Response {
        let stream = UnixStream::connect(self.run_dir().control_socket()).unwrap();
        codec::send(&stream, request).unwrap();
        codec::receive(&stream).unwrap()
    }

    fn create(&self) -> Response {
        self.ask(&Request::Create(VmConfig {
            name: "web".parse().unwrap(),
            vps: 1,
            memory_mib: 64,
            kernel: "/k".into(),
            initramfs: None,
            cmdline: String::new(),
            enlightenments: true,
            disks: Vec::new(),
        }))
    }

    fn status(&self, request: &Request) -> VmStatus {
        match self.ask(request) {
            Response::Status(status) => status,
            other => panic!("no status: {other:?}"),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn name() -> control::VmName {
    "web".parse().unwrap()
}

#[test]
fn machine_lives_from_create_to_destroy() {
    let daemon = Daemon::start("life", OBEDIENT);
    assert_eq!(daemon.create(), Response::Done);
    assert!(matches!(daemon.create(), Response::Error(line) if line.contains("in use")));
    assert_eq!(daemon.ask(&Request::Start { name: name() }), Response::Done);
    let status = daemon.status(&Request::Show { name: name() });
    assert_eq!(status.state, State::Running);
    assert!(Path::new("/proc").join(status.pid.unwrap().to_string()).exists());
    assert_eq!(daemon.ask(&Request::Stop { name: name(), timeout_s: 0 }), Response::Done);
    assert_eq!(daemon.status(&Request::Wait { name: name() }).state, State::Stopped);
    assert_eq!(daemon.ask(&Request::Destroy { name: name() }), Response::Done);
    assert_eq!(daemon.ask(&Request::List), Response::List(Vec::new()));
}

#[test]
fn killed_worker_leaves_a_reason_and_no_socket() {
    let daemon = Daemon::start("killed", OBEDIENT);
    daemon.create();
    daemon.ask(&Request::Start { name: name() });
    let pid = daemon.status(&Request::Show { name: name() }).pid.unwrap();
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let status = daemon.status(&Request::Wait { name: name() });
    assert_eq!(status.state, State::Failed { reason: "its worker was killed by signal 9".into() });
    assert!(!daemon.run_dir().console(&name()).exists());
    assert_eq!(daemon.create(), Response::Done);
}

#[test]
fn worker_without_a_word_is_an_error_with_its_code() {
    let daemon = Daemon::start("silent", SILENT);
    assert!(matches!(daemon.create(), Response::Error(line) if line.contains("code 3")));
}

#[test]
fn junk_costs_only_its_sender_the_connection() {
    let daemon = Daemon::start("junk", OBEDIENT);
    for junk in [&[0xff; 64][..], b"\x02\x00\x00\x00{}", b"\x01"] {
        let mut stream = UnixStream::connect(daemon.run_dir().control_socket()).unwrap();
        stream.write_all(junk).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty());
    }
    assert_eq!(daemon.ask(&Request::List), Response::List(Vec::new()));
}

#[test]
fn second_daemon_of_a_directory_ends_with_a_line() {
    let daemon = Daemon::start("second", OBEDIENT);
    let output = Daemon::command(&daemon.folder).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("another bulkheadd"));
}
