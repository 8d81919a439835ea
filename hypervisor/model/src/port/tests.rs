use proptest::prelude::*;
use tlfs::port::{ConnectionInfo, PortInfo};
use zerocopy::FromBytes;

use super::*;

const ROOT: PartitionId = PartitionId(1);
const CHILD: PartitionId = PartitionId(2);
const OTHER: PartitionId = PartitionId(3);

const MESSAGE: [u64; 2] = [2 | 0xffff_ffff << 32, 0];
const EVENT_8_FLAGS_FROM_32: [u64; 2] = [2, 32 | 8 << 16];
const DOORBELL: [u64; 2] = [5 | 0xffff_ffff << 32, 0];

fn create_input(id: u32, port_type: PortType, body: [u64; 2]) -> CreatePortInput {
    let port_info = PortInfo { port_type, body, ..PortInfo::ZEROED };
    CreatePortInput { port_id: PortId(id), port_info, ..CreatePortInput::ZEROED }
}

fn connect_input(connection: u32, port: u32, port_type: PortType, body: [u64; 3]) -> ConnectPortInput {
    let connection_info = ConnectionInfo { port_type, body, ..ConnectionInfo::ZEROED };
    let (connection_id, port_id) = (ConnectionId(connection), PortId(port));
    ConnectPortInput { connection_id, port_id, connection_info, ..ConnectPortInput::ZEROED }
}

/// Room for four.
struct Few<T>([Option<T>; 4]);

impl<T> Table<T> for Few<T> {
    fn iter<'a>(&'a self) -> impl Iterator<Item = &'a T>
    where
        T: 'a,
    {
        self.0.iter().flatten()
    }

    fn insert(&mut self, entry: T) -> Result<(), HvStatus> {
        let free = self.0.iter_mut().find(|place| place.is_none());
        free.map(|place| *place = Some(entry)).ok_or(HvStatus::NO_RESOURCES)
    }

    fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        self.0.iter_mut().find_map(|place| place.take_if(|entry| is_it(entry)))
    }
}

type Ends = Endpoints<Few<Port>, Few<Connection>>;

/// The root, which owns the ports, and its child, which has the connections.
struct Pair {
    root: Ends,
    child: Ends,
}

impl Pair {
    fn new() -> Self {
        let none = || Ends { ports: Few([None; 4]), connections: Few([None; 4]) };
        Self { root: none(), child: none() }
    }

    fn create(&mut self, id: u32, port_type: PortType, body: [u64; 2]) -> Result<(), HvStatus> {
        self.root.create(Port::new(ROOT, CHILD, &create_input(id, port_type, body))?)
    }

    fn connect(&mut self, owner: PartitionId, input: &ConnectPortInput) -> Result<(), HvStatus> {
        let port = self.root.port(input.port_id, owner)?;
        self.child.connect(Connection::new(ROOT, &port, input)?)
    }

    fn target(&self, connection: u32) -> Result<Port, HvStatus> {
        let connection = self.child.connection(ConnectionId(connection))?;
        assert_eq!(connection.port_owner, ROOT);
        self.root.port(connection.port, CHILD)
    }

    fn post(&self, connection: u32, kind: u32, payload_size: u32) -> Result<HvMessage, HvStatus> {
        let message_type = MessageType(kind);
        let input =
            PostMessageInput { message_type, payload_size, payload: [9; 240], ..PostMessageInput::ZEROED };
        check_message(&input)?;
        self.target(connection)?.message(&input)
    }

    fn signal(&self, connection: u32, flag: u16) -> Result<u16, HvStatus> {
        self.target(connection)?.flag(flag)
    }
}

#[test]
fn a_message_goes_through_its_connection_to_its_port() {
    let mut pair = Pair::new();
    pair.create(9, PortType::MESSAGE, MESSAGE).unwrap();
    pair.connect(CHILD, &connect_input(4, 9, PortType::MESSAGE, [0; 3])).unwrap();
    let port = pair.target(4).unwrap();
    assert_eq!((port.id, port.sint, port.vp), (PortId(9), SintIndex(2), VpIndex::ANY));
    let message = pair.post(4, 1, 239).unwrap();
    assert_eq!((message.port(), message.header.payload_size), (PortId(9), 239));
    assert_eq!(message.payload[237..], [9, 9, 0], "no more than the payload arrives");
    assert_eq!(pair.post(4, 0x8000_0001, 0), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(pair.post(4, 0, 0), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(pair.post(4, 1, 241), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(pair.post(5, 1, 0), Err(HvStatus::INVALID_CONNECTION_ID));
    assert_eq!(pair.signal(4, 0), Err(HvStatus::INVALID_PORT_ID));
}

#[test]
fn event_flags_are_relative_to_the_ports_first() {
    let mut pair = Pair::new();
    pair.create(9, PortType::EVENT, EVENT_8_FLAGS_FROM_32).unwrap();
    pair.connect(CHILD, &connect_input(4, 9, PortType::EVENT, [0; 3])).unwrap();
    assert_eq!(pair.signal(4, 7), Ok(39));
    assert_eq!(pair.signal(4, 8), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(pair.post(4, 1, 0), Err(HvStatus::INVALID_PORT_ID));
}

#[test]
fn a_port_must_aim_at_a_usable_source_and_at_flags_that_exist() {
    let new = |port_type, body| Port::new(ROOT, CHILD, &create_input(1, port_type, body)).map(|_| ());
    assert_eq!(new(PortType::EVENT, [2, 2048 << 16]), Ok(()));
    for (port_type, body) in [
        (PortType::MESSAGE, [0, 0]),
        (PortType::MESSAGE, [16, 0]),
        (PortType::MESSAGE, [2, 1]),
        (PortType::EVENT, [2, 0]),
        (PortType::EVENT, [2, 1 | 2048 << 16]),
        (PortType::EVENT, [2, 0xffff_ffff]),
        (PortType::EVENT, [2, 1 << 32 | 1 << 16]),
        (PortType::MONITOR, [0, 0]),
        (PortType(0), [2, 0]),
    ] {
        assert_eq!(new(port_type, body), Err(HvStatus::INVALID_PARAMETER), "{port_type:?} {body:x?}");
    }
}

#[test]
fn a_partition_does_not_open_a_port_to_itself() {
    let input = create_input(1, PortType::MESSAGE, MESSAGE);
    assert_eq!(Port::new(ROOT, ROOT, &input), Err(HvStatus::INVALID_PARTITION_ID));
}

#[test]
fn ids_are_24_bits_and_unique() {
    let mut pair = Pair::new();
    assert_eq!(pair.create(1 << 24, PortType::MESSAGE, MESSAGE), Err(HvStatus::INVALID_PORT_ID));
    assert_eq!(pair.create(0, PortType::DOORBELL, DOORBELL), Err(HvStatus::INVALID_PORT_ID));
    for id in 1..=4 {
        pair.create(id, PortType::MESSAGE, MESSAGE).unwrap();
    }
    assert_eq!(pair.create(4, PortType::MESSAGE, MESSAGE), Err(HvStatus::INVALID_PORT_ID));
    assert_eq!(pair.create(5, PortType::MESSAGE, MESSAGE), Err(HvStatus::NO_RESOURCES));
    pair.connect(CHILD, &connect_input(1, 1, PortType::MESSAGE, [0; 3])).unwrap();
    let again = connect_input(1, 2, PortType::MESSAGE, [0; 3]);
    assert_eq!(pair.connect(CHILD, &again), Err(HvStatus::INVALID_CONNECTION_ID));
    let large = connect_input(1 << 24, 2, PortType::MESSAGE, [0; 3]);
    assert_eq!(pair.connect(CHILD, &large), Err(HvStatus::INVALID_CONNECTION_ID));
}

#[test]
fn only_the_named_partition_connects_once_and_with_the_ports_type() {
    let mut pair = Pair::new();
    pair.create(9, PortType::MESSAGE, MESSAGE).unwrap();
    let input = connect_input(4, 9, PortType::MESSAGE, [0; 3]);
    assert_eq!(pair.connect(OTHER, &input), Err(HvStatus::INVALID_PORT_ID));
    assert_eq!(
        pair.connect(CHILD, &connect_input(4, 8, PortType::MESSAGE, [0; 3])),
        Err(HvStatus::INVALID_PORT_ID)
    );
    assert_eq!(
        pair.connect(CHILD, &connect_input(4, 9, PortType::EVENT, [0; 3])),
        Err(HvStatus::INVALID_PARAMETER)
    );
    assert_eq!(pair.connect(CHILD, &input), Ok(()));
    assert_eq!(
        pair.connect(CHILD, &connect_input(5, 9, PortType::MESSAGE, [0; 3])),
        Err(HvStatus::INVALID_PORT_ID)
    );
}

#[test]
fn a_write_rings_the_doorbells_that_watch_the_address() {
    let mut pair = Pair::new();
    for id in 1..=3 {
        pair.create(id, PortType::DOORBELL, DOORBELL).unwrap();
        let watch = [0x1000 * u64::from(id.min(2)), 0, 1 << 31];
        pair.connect(CHILD, &connect_input(id, id, PortType::DOORBELL, watch)).unwrap();
    }
    assert_eq!(pair.child.rung(0x1000, 4, 0), Some(PortId(1)));
    assert_eq!(pair.child.rung(0x2000, 4, 0), Some(PortId(2)), "the first of two");
    assert_eq!(pair.child.rung(0x1004, 4, 0), None);
    assert!(pair.child.has_doorbell_in_page(0x2ff8) && !pair.child.has_doorbell_in_page(0x3000));
    assert_eq!(pair.post(1, 1, 0), Err(HvStatus::INVALID_CONNECTION_ID), "doorbells are named apart");
    let id = ConnectionId(1);
    assert_eq!(pair.child.disconnect(id, false), Err(HvStatus::INVALID_CONNECTION_ID));
    assert_eq!(pair.child.disconnect(id, true), Ok(()));
    assert_eq!(pair.child.rung(0x1000, 4, 0), None);
}

#[test]
fn a_connection_outlives_its_port_and_then_fails() {
    let mut pair = Pair::new();
    pair.create(9, PortType::MESSAGE, MESSAGE).unwrap();
    pair.connect(CHILD, &connect_input(4, 9, PortType::MESSAGE, [0; 3])).unwrap();
    pair.root.delete(PortId(9)).unwrap();
    assert_eq!(pair.root.delete(PortId(9)), Err(HvStatus::INVALID_PORT_ID));
    assert_eq!(pair.post(4, 1, 0), Err(HvStatus::INVALID_PORT_ID));
    let input = create_input(9, PortType::MESSAGE, MESSAGE);
    pair.root.create(Port::new(ROOT, OTHER, &input).unwrap()).unwrap();
    assert_eq!(pair.post(4, 1, 0), Err(HvStatus::INVALID_PORT_ID), "the id is another sender's now");
}

#[test]
fn the_doorbell_of_an_event_is_the_flag_written_to_the_address_of_its_connection() {
    let mut pair = Pair::new();
    let address = ConnectionId(0x1_2345).event_doorbell().unwrap();
    assert_eq!(address, 0x0001_0000_0009_1a28);
    assert_eq!(ConnectionId(1 << 24).event_doorbell(), None);
    for (id, port, flags) in [(1, 1, 1 << 31 | 4), (2, 2, 0)] {
        pair.create(port, PortType::DOORBELL, DOORBELL).unwrap();
        let watch = [address + 8 * (u64::from(id) - 1), 5, flags];
        pair.connect(CHILD, &connect_input(id, port, PortType::DOORBELL, watch)).unwrap();
    }
    assert_eq!(pair.child.rung(address, 8, 3), Some(PortId(1)));
    assert_eq!(pair.child.rung(address + 8, 8, 3), None, "another flag is awaited");
    assert_eq!(pair.child.rung(address + 8, 8, 5), Some(PortId(2)));
}

proptest! {
    #[test]
    fn no_input_panics_and_accepted_ports_are_in_range(
        create_bytes in prop::collection::vec(0u8..6, 56), connect_bytes in prop::collection::vec(0u8..6, 72), flag: u16,
    ) {
        let mut pair = Pair::new();
        let input = CreatePortInput::read_from_bytes(&create_bytes).unwrap();
        let mut connection = ConnectPortInput::read_from_bytes(&connect_bytes).unwrap();
        if let Ok(port) = Port::new(ROOT, CHILD, &input) {
            prop_assert!((1..16).contains(&port.sint.0));
            pair.root.create(port).unwrap();
            connection.port_id = port.id;
        }
        if pair.connect(CHILD, &connection).is_ok()
            && let Ok(number) = pair.signal(connection.connection_id.0, flag)
        {
            prop_assert!(number < 2048);
        }
    }
}
