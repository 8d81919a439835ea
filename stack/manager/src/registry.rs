//! What the daemon knows of each virtual machine, and what follows from a request, a worker's report or a
//! worker's death.
//!
//! The registry does no I/O: it speaks to the world through [`Host`] and is told the time. A request that
//! cannot be answered at once leaves a *waiting* client at its machine, and the event that it waits for
//! answers it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use control::{
    Ending, Request, Response, RunDir, State, VmConfig, VmName, VmStatus, VpState, WorkerEvent, WorkerRequest,
};

/// One connection of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientId(pub(crate) u64);

/// One worker process; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WorkerId(pub(crate) u64);

/// What the registry can do.
pub(crate) trait Host {
    /// Starts a worker with its first order. Its death will be reported by [`Registry::gone`]. Returns the
    /// process id too.
    fn spawn(&mut self, order: &WorkerRequest) -> Result<(WorkerId, u32), String>;
    /// Sends a worker a further order.
    fn send(&mut self, worker: WorkerId, order: &WorkerRequest);
    /// Ends a worker at once.
    fn kill(&mut self, worker: WorkerId);
    /// Removes what a machine has left behind outside the registry.
    fn forget(&mut self, name: &VmName);
    /// Answers a command.
    fn reply(&mut self, client: ClientId, response: &Response);
}

/// How long a list waits for the workers' figures.
const STATS_PATIENCE: Duration = Duration::from_secs(1);

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Started,
    Stopped,
    Destroyed,
    /// Not running, for whatever reason.
    Over,
}

struct Worker {
    id: WorkerId,
    pid: u32,
    /// When its processors started.
    since: Option<Instant>,
    exits: u64,
    resets: u64,
    /// From the last question for them.
    processors: Vec<VpState>,
    /// Someone wants it to end.
    unwanted: bool,
    /// When patience with the guest ends.
    kill_at: Option<Instant>,
    /// Its last words.
    last: Option<State>,
}

struct Vm {
    config: VmConfig,
    state: State,
    worker: Option<Worker>,
    waiting: Vec<(ClientId, Goal)>,
}

struct Check {
    client: ClientId,
    config: VmConfig,
}

/// A list (or one line of it) that waits for figures.
struct Query {
    client: ClientId,
    /// One machine, or all.
    only: Option<VmName>,
    asked: Vec<WorkerId>,
    deadline: Instant,
}

/// All virtual machines.
pub(crate) struct Registry {
    run_dir: RunDir,
    vms: BTreeMap<VmName, Vm>,
    checks: BTreeMap<WorkerId, Check>,
    queries: Vec<Query>,
}

impl Registry {
    pub(crate) fn new(run_dir: RunDir) -> Self {
        Self { run_dir, vms: BTreeMap::new(), checks: BTreeMap::new(), queries: Vec::new() }
    }

    /// When [`Registry::expire`] is next due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let kills = self.vms.values().filter_map(|vm| vm.worker.as_ref()?.kill_at);
        kills.chain(self.queries.iter().map(|query| query.deadline)).min()
    }

    /// A command asks something.
    pub(crate) fn request(&mut self, now: Instant, client: ClientId, request: Request, host: &mut impl Host) {
        let answer = match request {
            Request::Create(config) => self.create(client, config, host),
            Request::Start { name } => self.start(client, &name, host),
            Request::Stop { name, timeout_s } => self.stop(now, client, &name, timeout_s, host),
            Request::Destroy { name } => self.destroy(client, &name, host),
            Request::Wait { name } => self.wait(now, client, &name),
            Request::Show { name } => self.query(now, client, Some(name), host),
            Request::List => self.query(now, client, None, host),
        };
        match answer {
            Ok(Some(response)) => host.reply(client, &response),
            Ok(None) => {}
            Err(line) => host.reply(client, &Response::Error(line)),
        }
    }

    fn vm(&mut self, name: &VmName) -> Result<&mut Vm, String> {
        self.vms.get_mut(name).ok_or_else(|| {
            format!("there is no virtual machine '{name}': 'bulkhead list' shows those there are")
        })
    }

    /// A name is taken unless its machine has failed, or a check for it is still under way.
    fn name_is_free(&self, name: &VmName) -> Result<(), String> {
        match self.vms.get(name) {
            Some(Vm { worker: None, state: State::Failed { .. }, .. }) | None => Ok(()),
            Some(_) => Err(format!(
                "the name '{name}' is in use: choose another, or free it with 'bulkhead destroy {name}'"
            )),
        }
    }

    fn create(&mut self, client: ClientId, config: VmConfig, host: &mut impl Host) -> Answer {
        config.check().map_err(|error| error.to_string())?;
        self.name_is_free(&config.name)?;
        let (id, _) = host.spawn(&WorkerRequest::Check(config.clone()))?;
        self.checks.insert(id, Check { client, config });
        Ok(None)
    }

    fn start(&mut self, client: ClientId, name: &VmName, host: &mut impl Host) -> Answer {
        let (console, log) = (self.run_dir.console(name), self.run_dir.console_log(name));
        let vm = self.vm(name)?;
        if vm.worker.is_some() {
            return Err(format!("'{name}' is running already: 'bulkhead stop {name}' stops it"));
        }
        let (id, pid) = host.spawn(&WorkerRequest::Start { config: vm.config.clone(), console, log })?;
        vm.worker = Some(Worker {
            id,
            pid,
            since: None,
            exits: 0,
            resets: 0,
            processors: Vec::new(),
            unwanted: false,
            kill_at: None,
            last: None,
        });
        vm.waiting.push((client, Goal::Started));
        Ok(None)
    }

    fn stop(
        &mut self,
        now: Instant,
        client: ClientId,
        name: &VmName,
        seconds: u64,
        host: &mut impl Host,
    ) -> Answer {
        let vm = self.vm(name)?;
        let Some(worker) = &mut vm.worker else {
            return Err(format!("'{name}' is not running: 'bulkhead start {name}' starts it"));
        };
        worker.unwanted = true;
        // A deadline beyond what the clock can say is no deadline.
        worker.kill_at = now.checked_add(Duration::from_secs(seconds));
        if seconds == 0 {
            host.kill(worker.id);
        } else {
            host.send(worker.id, &WorkerRequest::PowerButton);
        }
        vm.waiting.push((client, Goal::Stopped));
        Ok(None)
    }

    fn destroy(&mut self, client: ClientId, name: &VmName, host: &mut impl Host) -> Answer {
        let vm = self.vm(name)?;
        match &mut vm.worker {
            Some(worker) => {
                worker.unwanted = true;
                host.kill(worker.id);
                vm.waiting.push((client, Goal::Destroyed));
                Ok(None)
            }
            None => {
                self.vms.remove(name);
                host.forget(name);
                Ok(Some(Response::Done))
            }
        }
    }

    fn wait(&mut self, now: Instant, client: ClientId, name: &VmName) -> Answer {
        let vm = self.vm(name)?;
        if vm.worker.is_some() {
            vm.waiting.push((client, Goal::Over));
            return Ok(None);
        }
        Ok(Some(Response::Status(vm.status(now))))
    }

    /// Asks the workers for figures; they are answered by [`Registry::event`] or given up by
    /// [`Registry::expire`].
    fn query(
        &mut self,
        now: Instant,
        client: ClientId,
        only: Option<VmName>,
        host: &mut impl Host,
    ) -> Answer {
        if let Some(name) = &only {
            self.vm(name)?;
        }
        let concerned = self.vms.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == *name));
        let workers = concerned.filter_map(|(_, vm)| vm.worker.as_ref());
        let asked: Vec<_> = workers.filter(|worker| worker.since.is_some()).map(|worker| worker.id).collect();
        for id in &asked {
            host.send(*id, &WorkerRequest::Stats { processors: only.is_some() });
        }
        self.queries.push(Query { client, only, asked, deadline: now + STATS_PATIENCE });
        self.answer_queries(now, host);
        Ok(None)
    }

    /// Answers the queries that wait for nobody, or have waited long enough.
    fn answer_queries(&mut self, now: Instant, host: &mut impl Host) {
        let Self { vms, queries, .. } = self;
        queries.retain(|query| {
            let ready = query.asked.is_empty() || query.deadline <= now;
            if ready {
                let response = match &query.only {
                    None => Response::List(vms.values().map(|vm| vm.status(now)).collect()),
                    Some(name) => match vms.get(name) {
                        Some(vm) => {
                            Response::Status(VmStatus { processors: vm.processors(), ..vm.status(now) })
                        }
                        None => Response::Error(format!("'{name}' has just been destroyed")),
                    },
                };
                host.reply(query.client, &response);
            }
            !ready
        });
    }

    fn answered(&mut self, now: Instant, worker: WorkerId, host: &mut impl Host) {
        for query in &mut self.queries {
            query.asked.retain(|asked| *asked != worker);
        }
        self.answer_queries(now, host);
    }

    /// A worker reports.
    pub(crate) fn event(&mut self, now: Instant, id: WorkerId, event: WorkerEvent, host: &mut impl Host) {
        if let Some(check) = self.checks.remove(&id) {
            let response = self.checked(check.config, event);
            host.reply(check.client, &response);
            return;
        }
        let Some(vm) =
            self.vms.values_mut().find(|vm| vm.worker.as_ref().is_some_and(|worker| worker.id == id))
        else {
            return;
        };
        let Some(worker) = &mut vm.worker else { return };
        match event {
            WorkerEvent::Running => {
                worker.since = Some(now);
                vm.state = State::Running;
                vm.answer(host, |goal| (goal == Goal::Started).then_some(Response::Done));
            }
            WorkerEvent::Stats { exits, resets, processors } => {
                (worker.exits, worker.resets, worker.processors) = (exits, resets, processors);
                self.answered(now, id, host);
            }
            WorkerEvent::Ended(Ending::PowerOff) => worker.last = Some(State::Stopped),
            WorkerEvent::Ended(Ending::Failed(reason)) | WorkerEvent::Refused(reason) => {
                worker.last = Some(State::Failed { reason });
            }
            WorkerEvent::Checked => tracing::warn!(?id, "answer to a question nobody asked"),
        }
    }

    /// The result of a check: the machine exists, or its command hears why not.
    fn checked(&mut self, config: VmConfig, event: WorkerEvent) -> Response {
        match event {
            WorkerEvent::Checked => {}
            WorkerEvent::Refused(reason) => return Response::Error(reason),
            other => {
                return Response::Error(format!(
                    "the worker answers a check with {other:?}: mixed versions?"
                ));
            }
        }
        // Another command may have been faster.
        if let Err(line) = self.name_is_free(&config.name) {
            return Response::Error(line);
        }
        tracing::info!(name = %config.name, "created");
        let name = config.name.clone();
        self.vms.insert(name, Vm { config, state: State::Created, worker: None, waiting: Vec::new() });
        Response::Done
    }

    /// A worker process has ended; `how` says how, for the case that it did not say so itself.
    pub(crate) fn gone(&mut self, now: Instant, id: WorkerId, how: &str, host: &mut impl Host) {
        if let Some(check) = self.checks.remove(&id) {
            host.reply(
                check.client,
                &Response::Error(format!("the check of '{}' broke off: {how}", check.config.name)),
            );
            return;
        }
        let found =
            self.vms.iter_mut().find(|(_, vm)| vm.worker.as_ref().is_some_and(|worker| worker.id == id));
        let Some((name, vm)) = found else { return };
        let name = name.clone();
        vm.bury(how);
        tracing::info!(%name, state = %vm.state, "ended");
        let destroyed = vm.waiting.iter().any(|(_, goal)| *goal == Goal::Destroyed);
        let (state, status) = (vm.state.clone(), vm.status(now));
        vm.answer(host, |goal| {
            Some(match (goal, &state) {
                (Goal::Started, State::Failed { reason }) => {
                    Response::Error(format!("'{name}' did not start: {reason}"))
                }
                (Goal::Over, _) if destroyed => Response::Error(format!("'{name}' has been destroyed")),
                (Goal::Over, _) => Response::Status(status.clone()),
                _ => Response::Done,
            })
        });
        if destroyed {
            self.vms.remove(&name);
            host.forget(&name);
        }
        self.answered(now, id, host);
    }

    /// A command has hung up.
    pub(crate) fn client_gone(&mut self, client: ClientId) {
        for vm in self.vms.values_mut() {
            // A machine that is being destroyed is destroyed even if nobody waits for it any more.
            vm.waiting.retain(|(waiting, goal)| *waiting != client || *goal == Goal::Destroyed);
        }
        self.queries.retain(|query| query.client != client);
    }

    /// Time has passed.
    pub(crate) fn expire(&mut self, now: Instant, host: &mut impl Host) {
        for worker in self.vms.values_mut().filter_map(|vm| vm.worker.as_mut()) {
            if worker.kill_at.is_some_and(|at| at <= now) {
                worker.kill_at = None;
                host.kill(worker.id);
            }
        }
        self.answer_queries(now, host);
    }
}

/// `None` when the answer comes later; an error is one line.
type Answer = Result<Option<Response>, String>;

impl Vm {
    fn status(&self, now: Instant) -> VmStatus {
        let worker = self.worker.as_ref();
        VmStatus {
            name: self.config.name.clone(),
            state: self.state.clone(),
            vps: self.config.vps,
            memory_mib: self.config.memory_mib,
            uptime_s: worker.and_then(|worker| worker.since).map(|since| (now - since).as_secs()),
            pid: worker.map(|worker| worker.pid),
            exits: worker.map_or(0, |worker| worker.exits),
            resets: worker.map_or(0, |worker| worker.resets),
            disks: self.config.disks.clone(),
            processors: Vec::new(),
        }
    }

    fn processors(&self) -> Vec<VpState> {
        self.worker.as_ref().map_or_else(Vec::new, |worker| worker.processors.clone())
    }

    /// Answers the clients for which `response` has something.
    fn answer(&mut self, host: &mut impl Host, response: impl Fn(Goal) -> Option<Response>) {
        self.waiting.retain(|(client, goal)| match response(*goal) {
            Some(response) => {
                host.reply(*client, &response);
                false
            }
            None => true,
        });
    }

    /// The state that a worker leaves behind.
    fn bury(&mut self, how: &str) {
        let Some(worker) = self.worker.take() else { return };
        self.state = match worker.last {
            Some(last) => last,
            None if worker.unwanted => State::Stopped,
            None => State::Failed { reason: how.to_owned() },
        };
    }
}

#[cfg(test)]
mod tests;
