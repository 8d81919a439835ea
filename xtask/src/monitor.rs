//! QEMU's machine protocol (QMP): how a machine ended, and what its processors were doing when it hung.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// How long QEMU may take to make its socket, and to answer a command.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the monitor, with a thread that reads what QEMU says.
pub(crate) struct Monitor {
    stream: UnixStream,
    answers: Receiver<Value>,
    shutdown: Arc<Mutex<Option<String>>>,
    reader: JoinHandle<()>,
}

impl Monitor {
    /// Connects to the socket QEMU makes at `path`, and leaves the negotiation mode.
    ///
    /// # Errors
    /// QEMU makes no socket in time, or ends.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let stream = dial(path).context("QEMU made no monitor socket")?;
        let (sender, answers) = mpsc::channel();
        let shutdown = Arc::new(Mutex::new(None));
        let (input, noted) = (stream.try_clone()?, Arc::clone(&shutdown));
        let reader = thread::spawn(move || {
            for line in BufReader::new(input).lines().map_while(std::io::Result::ok) {
                let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
                if value["event"] == "SHUTDOWN" {
                    let reason = value["data"]["reason"].as_str().unwrap_or("unknown").to_string();
                    *noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reason);
                } else if value.get("event").is_none() && value.get("QMP").is_none() {
                    // The receiver lives as long as the monitor; a late answer after its end has no reader.
                    let _ = sender.send(value);
                }
            }
        });
        let mut monitor = Self { stream, answers, shutdown, reader };
        monitor.ask(&json!({"execute": "qmp_capabilities"}))?;
        Ok(monitor)
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.stream, "{request}")?;
        self.answers.recv_timeout(PATIENCE).context("QEMU's monitor does not answer")
    }

    /// Runs a command of the human monitor, such as `info registers -a`, and gives its text.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub(crate) fn human(&mut self, line: &str) -> Result<String> {
        let request = json!({"execute": "human-monitor-command", "arguments": {"command-line": line}});
        Ok(self.ask(&request)?["return"].as_str().unwrap_or_default().replace('\r', ""))
    }

    /// Tells QEMU to end.
    pub(crate) fn quit(&mut self) {
        // QEMU may be gone already, which is what is wanted.
        let _ = self.ask(&json!({"execute": "quit"}));
    }

    /// The reason of the last shutdown, such as `guest-shutdown` or `guest-reset`; call it when QEMU is gone.
    pub(crate) fn ending(self) -> Option<String> {
        let Self { stream, reader, shutdown, .. } = self;
        let _ = reader.join();
        drop(stream);
        shutdown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

fn dial(path: &Path) -> Result<UnixStream> {
    let begin = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if begin.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
