//! `bulkhead`: the command that talks to `bulkheadd`.
//!
//! Every failure is one line on standard error and a non-zero exit: 1 when something could not be done, 2
//! when the command line was not understood.

mod console;
mod link;
mod log;
mod options;
mod raw;
mod table;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use control::{DiskConfig, Request, Response, RunDir, State, VmConfig, VmStatus};

use crate::{
    link::ask,
    options::{Command, Create, Options},
};

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            eprintln!("bulkhead: {}", options::one_line(&error));
            return ExitCode::from(2);
        }
        Err(help) => {
            print(&help.to_string());
            return ExitCode::SUCCESS;
        }
    };
    match run(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bulkhead: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<ExitCode> {
    let run_dir = RunDir::new(options.run_dir);
    let (request, json) = match options.command {
        Command::Create(create) => return self::create(&run_dir, create),
        Command::Console(console) => return console::attach(&run_dir, &console).map(|()| ExitCode::SUCCESS),
        Command::Log => {
            print(&log::read()?);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Start { name } => (Request::Start { name }, false),
        Command::Stop { name, force: true, .. } => (Request::Stop { name, timeout_s: 0 }, false),
        Command::Stop { name, timeout, .. } => (Request::Stop { name, timeout_s: timeout }, false),
        Command::Destroy { name } => (Request::Destroy { name }, false),
        Command::Wait { name, json } => (Request::Wait { name }, json),
        Command::Show { name, json } => (Request::Show { name }, json),
        Command::List { json } => (Request::List, json),
    };
    let waited = matches!(request, Request::Wait { .. });
    match ask(&run_dir, &request)? {
        Response::Done => {}
        Response::List(list) => print(&if json { to_json(&list)? } else { table::list(&list) }),
        Response::Status(status) => {
            print(&if json { to_json(&status)? } else { table::status(&status) });
            return Ok(outcome(&status, waited));
        }
        Response::Error(line) => anyhow::bail!(line),
    }
    Ok(ExitCode::SUCCESS)
}

/// A wait that ends with a failed machine is a failure.
fn outcome(status: &VmStatus, waited: bool) -> ExitCode {
    match status.state {
        State::Failed { .. } if waited => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn create(run_dir: &RunDir, create: Create) -> anyhow::Result<ExitCode> {
    let absolute = |path: &std::path::PathBuf| {
        std::path::absolute(path).with_context(|| format!("cannot find out where {} is", path.display()))
    };
    let absolute_disk = |disk: DiskConfig| Ok(DiskConfig { path: absolute(&disk.path)?, ..disk });
    let disks = create.disks.into_iter().map(absolute_disk).collect::<anyhow::Result<_>>()?;
    let config = VmConfig {
        name: create.name.clone(),
        vps: create.vps,
        memory_mib: create.memory,
        kernel: absolute(&create.kernel)?,
        initramfs: create.initramfs.as_ref().map(absolute).transpose()?,
        cmdline: create.cmdline,
        enlightenments: !create.no_enlightenments,
        disks,
    };
    config.check()?;
    let mut requests = vec![Request::Create(config)];
    if create.start {
        requests.push(Request::Start { name: create.name });
    }
    for request in requests {
        if let Response::Error(line) = ask(run_dir, &request)? {
            anyhow::bail!(line);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Prints to standard output. Whoever closed it early has seen enough.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
