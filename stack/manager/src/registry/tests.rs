use super::*;

#[derive(Default)]
struct World {
    workers: u64,
    refuse: bool,
    orders: Vec<(u64, WorkerRequest)>,
    killed: Vec<u64>,
    forgotten: Vec<VmName>,
    replies: Vec<(u64, Response)>,
}

impl Host for World {
    fn spawn(&mut self, order: &WorkerRequest) -> Result<(WorkerId, u32), String> {
        if self.refuse {
            return Err("no processes left".into());
        }
        self.workers += 1;
        self.orders.push((self.workers, order.clone()));
        Ok((WorkerId(self.workers), 1000 + u32::try_from(self.workers).unwrap()))
    }

    fn send(&mut self, worker: WorkerId, order: &WorkerRequest) {
        self.orders.push((worker.0, order.clone()));
    }

    fn kill(&mut self, worker: WorkerId) {
        self.killed.push(worker.0);
    }

    fn forget(&mut self, name: &VmName) {
        self.forgotten.push(name.clone());
    }

    fn reply(&mut self, client: ClientId, response: &Response) {
        self.replies.push((client.0, response.clone()));
    }
}

struct Bench {
    registry: Registry,
    world: World,
    now: Instant,
    clients: u64,
}

fn name() -> VmName {
    "web".parse().unwrap()
}

fn config() -> VmConfig {
    VmConfig {
        name: name(),
        vps: 2,
        memory_mib: 256,
        kernel: "/k".into(),
        initramfs: None,
        cmdline: String::new(),
        enlightenments: true,
        disks: Vec::new(),
    }
}

impl Bench {
    fn new() -> Self {
        Self {
            registry: Registry::new(RunDir::new("/r")),
            world: World::default(),
            now: Instant::now(),
            clients: 0,
        }
    }

    /// With a machine that has been created by worker 1.
    fn created() -> Self {
        let mut bench = Self::new();
        bench.ask(Request::Create(config()));
        bench.report(WorkerEvent::Checked);
        assert_eq!(bench.said(), [(1, Response::Done)]);
        bench
    }

    /// With a machine that runs in worker 2.
    fn running() -> Self {
        let mut bench = Self::created();
        bench.ask(Request::Start { name: name() });
        bench.report(WorkerEvent::Running);
        assert_eq!(bench.said(), [(2, Response::Done)]);
        bench
    }

    fn ask(&mut self, request: Request) {
        self.clients += 1;
        self.registry.request(self.now, ClientId(self.clients), request, &mut self.world);
    }

    /// The youngest worker reports.
    fn report(&mut self, event: WorkerEvent) {
        self.registry.event(self.now, WorkerId(self.world.workers), event, &mut self.world);
    }

    fn die(&mut self, how: &str) {
        self.registry.gone(self.now, WorkerId(self.world.workers), how, &mut self.world);
    }

    fn said(&mut self) -> Vec<(u64, Response)> {
        std::mem::take(&mut self.world.replies)
    }

    fn error(&mut self) -> String {
        match self.said().as_slice() {
            [(_, Response::Error(line))] => line.clone(),
            other => panic!("no single error: {other:?}"),
        }
    }

    fn state(&mut self) -> State {
        self.ask(Request::Wait { name: name() });
        match self.said().as_slice() {
            [(_, Response::Status(status))] => status.state.clone(),
            other => panic!("no status: {other:?}"),
        }
    }
}

#[test]
fn create_is_answered_by_the_check_of_the_files() {
    let mut bench = Bench::new();
    bench.ask(Request::Create(config()));
    assert!(bench.said().is_empty());
    bench.report(WorkerEvent::Refused("no kernel".into()));
    assert_eq!(bench.error(), "no kernel");
    bench.die("ended");
    bench.ask(Request::Show { name: name() });
    assert!(bench.error().contains("no virtual machine 'web'"));
}

#[test]
fn check_that_dies_is_an_error_too() {
    let mut bench = Bench::new();
    bench.ask(Request::Create(config()));
    bench.die("killed by signal 9");
    assert!(bench.error().contains("signal 9"));
}

#[test]
fn name_in_use_is_refused_even_when_two_checks_race() {
    let mut bench = Bench::new();
    bench.ask(Request::Create(config()));
    bench.ask(Request::Create(config()));
    bench.registry.event(bench.now, WorkerId(1), WorkerEvent::Checked, &mut bench.world);
    bench.registry.event(bench.now, WorkerId(2), WorkerEvent::Checked, &mut bench.world);
    let replies = bench.said();
    assert_eq!(replies[0], (1, Response::Done));
    assert!(matches!(&replies[1], (2, Response::Error(line)) if line.contains("in use")));
    bench.ask(Request::Create(config()));
    assert!(bench.error().contains("bulkhead destroy web"));
}

#[test]
fn bad_configuration_starts_no_worker() {
    let mut bench = Bench::new();
    bench.ask(Request::Create(VmConfig { vps: 0, ..config() }));
    assert!(bench.error().contains("--vps"));
    assert_eq!(bench.world.workers, 0);
}

#[test]
fn start_that_is_refused_is_told_to_its_command_and_remembered() {
    let mut bench = Bench::created();
    bench.ask(Request::Start { name: name() });
    bench.report(WorkerEvent::Refused("no /dev/mshv".into()));
    bench.die("ended with code 0");
    assert!(bench.error().contains("no /dev/mshv"));
    assert_eq!(bench.state(), State::Failed { reason: "no /dev/mshv".into() });
}

#[test]
fn guest_that_switches_itself_off_is_stopped_and_can_start_again() {
    let mut bench = Bench::running();
    bench.report(WorkerEvent::Ended(Ending::PowerOff));
    bench.die("ended with code 0");
    assert_eq!(bench.state(), State::Stopped);
    bench.ask(Request::Start { name: name() });
    bench.report(WorkerEvent::Running);
    assert_eq!(bench.said().last().unwrap().1, Response::Done);
}

#[test]
fn killed_worker_leaves_a_reason_and_a_free_name() {
    let mut bench = Bench::running();
    bench.die("its worker was killed by signal 9");
    assert_eq!(bench.state(), State::Failed { reason: "its worker was killed by signal 9".into() });
    bench.ask(Request::Create(config()));
    bench.report(WorkerEvent::Checked);
    assert_eq!(bench.said().last().unwrap().1, Response::Done);
    assert_eq!(bench.state(), State::Created);
}

#[test]
fn stop_presses_the_button_and_then_loses_patience() {
    let mut bench = Bench::running();
    bench.ask(Request::Stop { name: name(), timeout_s: 10 });
    assert_eq!(bench.world.orders.last().unwrap(), &(2, WorkerRequest::PowerButton));
    assert_eq!(bench.registry.deadline(), Some(bench.now + Duration::from_secs(10)));
    bench.registry.expire(bench.now + Duration::from_secs(9), &mut bench.world);
    assert!(bench.world.killed.is_empty());
    bench.registry.expire(bench.now + Duration::from_secs(10), &mut bench.world);
    assert_eq!((bench.world.killed.as_slice(), bench.registry.deadline()), (&[2][..], None));
    bench.die("killed by signal 9");
    assert_eq!(bench.said(), [(3, Response::Done)]);
    assert_eq!(bench.state(), State::Stopped);
}

#[test]
fn stop_without_patience_kills_at_once_and_stop_of_nothing_is_an_error() {
    let mut bench = Bench::running();
    bench.ask(Request::Stop { name: name(), timeout_s: 0 });
    assert_eq!(bench.world.killed, [2]);
    bench.die("killed by signal 9");
    bench.said();
    bench.ask(Request::Stop { name: name(), timeout_s: 0 });
    assert!(bench.error().contains("not running"));
}

#[test]
fn destroy_answers_when_the_worker_is_gone_and_the_name_with_it() {
    let mut bench = Bench::running();
    bench.ask(Request::Wait { name: name() });
    bench.ask(Request::Destroy { name: name() });
    assert!(bench.said().is_empty());
    bench.die("killed by signal 9");
    let replies = bench.said();
    assert!(matches!(&replies[0], (3, Response::Error(line)) if line.contains("destroyed")));
    assert_eq!(replies[1], (4, Response::Done));
    assert_eq!(bench.world.forgotten, [name()]);
    bench.ask(Request::Destroy { name: name() });
    assert!(bench.error().contains("no virtual machine"));
}

#[test]
fn destroy_goes_on_when_its_command_hangs_up() {
    let mut bench = Bench::running();
    bench.ask(Request::Destroy { name: name() });
    bench.registry.client_gone(ClientId(bench.clients));
    bench.die("killed by signal 9");
    bench.ask(Request::Show { name: name() });
    assert!(bench.said().iter().any(|(_, reply)| matches!(reply, Response::Error(_))));
}

#[test]
fn list_waits_for_figures_but_not_for_ever() {
    let mut bench = Bench::running();
    bench.ask(Request::List);
    assert!(bench.said().is_empty());
    bench.report(WorkerEvent::Stats { exits: 7, resets: 1, processors: Vec::new() });
    let [(3, Response::List(list))] = &bench.said()[..] else { panic!("no list") };
    assert_eq!((list[0].exits, list[0].resets, list[0].pid), (7, 1, Some(1002)));
    bench.ask(Request::List);
    bench.registry.expire(bench.now + STATS_PATIENCE, &mut bench.world);
    assert!(matches!(&bench.said()[..], [(4, Response::List(_))]));
}

#[test]
fn list_does_not_wait_for_a_worker_that_dies() {
    let mut bench = Bench::running();
    bench.ask(Request::List);
    bench.die("killed by signal 9");
    assert!(matches!(&bench.said()[..], [(3, Response::List(_))]));
}

#[test]
fn second_start_and_a_host_without_processes_are_errors() {
    let mut bench = Bench::running();
    bench.ask(Request::Start { name: name() });
    assert!(bench.error().contains("running already"));
    let mut bench = Bench::created();
    bench.world.refuse = true;
    bench.ask(Request::Start { name: name() });
    assert_eq!(bench.error(), "no processes left");
}

#[test]
fn show_brings_the_processors_and_list_does_not() {
    let mut bench = Bench::running();
    let state = VpState { vp: 0, rip: 0x1000, rsp: 0, rflags: 2, cr3: 0, exits: 1 };
    bench.ask(Request::Show { name: name() });
    assert_eq!(bench.world.orders.last().unwrap().1, WorkerRequest::Stats { processors: true });
    bench.report(WorkerEvent::Stats { exits: 1, resets: 0, processors: vec![state.clone()] });
    let [(3, Response::Status(status))] = &bench.said()[..] else { panic!("no status") };
    assert_eq!(status.processors, [state]);
    bench.ask(Request::List);
    assert_eq!(bench.world.orders.last().unwrap().1, WorkerRequest::Stats { processors: false });
}
