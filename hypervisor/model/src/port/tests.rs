use std::vec::Vec;

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

struct Tables {
    ports: [Option<Port>; 4],
    connections: [Option<Connection>; 4],
}

impl Tables {
    fn new() -> Self {
        Self { ports: [None; 4], connections: [None; 4] }
    }

    fn create(&mut self, id: u32, port_type: PortType, body: [u64; 2]) -> Result<(), HvStatus> {
        create(&mut self.ports, Port::new(ROOT, CHILD, &create_input(id, port_type, body))?)
    }

    fn connect(&mut self, owner: PartitionId, input: &ConnectPortInput) -> Result<(), HvStatus> {
        connect(&self.ports, &mut self.connections, owner, ROOT, input)
    }

    fn post(&self, connection: u32, kind: u32, payload_size: u32) -> Result<Port, HvStatus> {
        let (connection_id, message_type) = (ConnectionId(connection), MessageType(kind));
        let input =
            PostMessageInput { connection_id, message_type, payload_size, ..PostMessageInput::ZEROED };
        message_target(&self.ports, &self.connections, CHILD, &input)
    }

    fn signal(&self, connection: u32, flag: u16) -> Result<u16, HvStatus> {
        event_target(&self.ports, &self.connections, CHILD, ConnectionId(connection), flag)
            .map(|(_, flag)| flag)
    }

    fn write(&self, gpa: u64) -> Vec<u32> {
        rung(&self.connections, CHILD, gpa, 4, 0)
            .map(|(owner, port)| {
                assert_eq!(owner, ROOT);
                port.0
            })
            .collect()
    }
}

#[test]
fn a_message_goes_through_its_connection_to_its_port() {
    let mut tables = Tables::new();
    tables.create(9, PortType::MESSAGE, MESSAGE).unwrap();
    tables.connect(CHILD, &connect_input(4, 9, PortType::MESSAGE, [0; 3])).unwrap();
    let port = tables.post(4, 1, 240).unwrap();
    assert_eq!((port.owner, port.id, port.sint, port.vp), (ROOT, PortId(9), SintIndex(2), VpIndex::ANY));
    assert_eq!(tables.post(4, 0x8000_0001, 0), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(tables.post(4, 0, 0), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(tables.post(4, 1, 241), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(tables.post(5, 1, 0), Err(HvStatus::INVALID_CONNECTION_ID));
    assert_eq!(tables.signal(4, 0), Err(HvStatus::INVALID_PORT_ID));
}

#[test]
fn event_flags_are_relative_to_the_ports_first() {
    let mut tables = Tables::new();
    tables.create(9, PortType::EVENT, EVENT_8_FLAGS_FROM_32).unwrap();
    tables.connect(CHILD, &connect_input(4, 9, PortType::EVENT, [0; 3])).unwrap();
    assert_eq!(tables.signal(4, 7), Ok(39));
    assert_eq!(tables.signal(4, 8), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(tables.post(4, 1, 0), Err(HvStatus::INVALID_PORT_ID));
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
    let mut tables = Tables::new();
    assert_eq!(tables.create(1 << 24, PortType::MESSAGE, MESSAGE), Err(HvStatus::INVALID_PORT_ID));
    assert_eq!(tables.create(0, PortType::DOORBELL, DOORBELL), Err(HvStatus::INVALID_PORT_ID));
    for id in 1..=4 {
        tables.create(id, PortType::MESSAGE, MESSAGE).unwrap();
    }
    assert_eq!(tables.create(4, PortType::MESSAGE, MESSAGE), Err(HvStatus::INVALID_PORT_ID));
    assert_eq!(tables.create(5, PortType::MESSAGE, MESSAGE), Err(HvStatus::NO_RESOURCES));
    tables.connect(CHILD, &connect_input(1, 1, PortType::MESSAGE, [0; 3])).unwrap();
    let again = connect_input(1, 2, PortType::MESSAGE, [0; 3]);
    assert_eq!(tables.connect(CHILD, &again), Err(HvStatus::INVALID_CONNECTION_ID));
    let large = connect_input(1 << 24, 2, PortType::MESSAGE, [0; 3]);
    assert_eq!(tables.connect(CHILD, &large), Err(HvStatus::INVALID_CONNECTION_ID));
}

#[test]
fn only_the_named_partition_connects_once_and_with_the_ports_type() {
    let mut tables = Tables::new();
    tables.create(9, PortType::MESSAGE, MESSAGE).unwrap();
    let input = connect_input(4, 9, PortType::MESSAGE, [0; 3]);
    assert_eq!(tables.connect(OTHER, &input), Err(HvStatus::INVALID_PORT_ID));
    assert_eq!(
        tables.connect(CHILD, &connect_input(4, 8, PortType::MESSAGE, [0; 3])),
        Err(HvStatus::INVALID_PORT_ID)
    );
    assert_eq!(
        tables.connect(CHILD, &connect_input(4, 9, PortType::EVENT, [0; 3])),
        Err(HvStatus::INVALID_PARAMETER)
    );
    assert_eq!(tables.connect(CHILD, &input), Ok(()));
    assert_eq!(
        tables.connect(CHILD, &connect_input(5, 9, PortType::MESSAGE, [0; 3])),
        Err(HvStatus::INVALID_PORT_ID)
    );
}

#[test]
fn a_write_rings_the_doorbells_that_watch_the_address() {
    let mut tables = Tables::new();
    for id in 1..=3 {
        tables.create(id, PortType::DOORBELL, DOORBELL).unwrap();
        let watch = [0x1000 * u64::from(id.min(2)), 0, 1 << 31];
        tables.connect(CHILD, &connect_input(id, id, PortType::DOORBELL, watch)).unwrap();
    }
    assert_eq!(tables.write(0x1000), [1]);
    assert_eq!(tables.write(0x2000), [2, 3]);
    assert_eq!(tables.write(0x1004), []);
    assert_eq!(tables.post(1, 1, 0), Err(HvStatus::INVALID_CONNECTION_ID), "doorbells are named apart");
    let id = ConnectionId(1);
    assert_eq!(disconnect(&mut tables.connections, CHILD, id, false), Err(HvStatus::INVALID_CONNECTION_ID));
    assert_eq!(disconnect(&mut tables.connections, CHILD, id, true).map(|gone| gone.port), Ok(PortId(1)));
    assert_eq!(tables.write(0x1000), []);
}

#[test]
fn a_connection_outlives_its_port_and_then_fails() {
    let mut tables = Tables::new();
    tables.create(9, PortType::MESSAGE, MESSAGE).unwrap();
    tables.connect(CHILD, &connect_input(4, 9, PortType::MESSAGE, [0; 3])).unwrap();
    delete(&mut tables.ports, ROOT, PortId(9)).unwrap();
    assert_eq!(delete(&mut tables.ports, ROOT, PortId(9)), Err(HvStatus::INVALID_PORT_ID));
    assert_eq!(tables.post(4, 1, 0), Err(HvStatus::INVALID_PORT_ID));
}

#[test]
fn a_partition_leaves_nothing_behind() {
    let mut tables = Tables::new();
    for id in 1..=3 {
        tables.create(id, PortType::DOORBELL, DOORBELL).unwrap();
        tables.connect(CHILD, &connect_input(id, id, PortType::DOORBELL, [0x1000, 0, 0])).unwrap();
    }
    purge(&mut tables.ports, &mut tables.connections, CHILD);
    assert_eq!(tables.connections, [None; 4]);
    assert_eq!(tables.ports.iter().flatten().count(), 3);
    purge(&mut tables.ports, &mut tables.connections, ROOT);
    assert_eq!(tables.ports, [None; 4]);
}

proptest! {
    #[test]
    fn no_input_panics_and_accepted_ports_are_in_range(
        create_bytes in prop::collection::vec(0u8..6, 56), connect_bytes in prop::collection::vec(0u8..6, 72), flag: u16,
    ) {
        let mut tables = Tables::new();
        let input = CreatePortInput::read_from_bytes(&create_bytes).unwrap();
        let mut connection = ConnectPortInput::read_from_bytes(&connect_bytes).unwrap();
        if let Ok(port) = Port::new(ROOT, CHILD, &input) {
            prop_assert!((1..16).contains(&port.sint.0));
            create(&mut tables.ports, port).unwrap();
            connection.port_id = port.id;
        }
        if tables.connect(CHILD, &connection).is_ok()
            && let Ok(number) = tables.signal(connection.connection_id.0, flag)
        {
            prop_assert!(number < 2048);
        }
    }
}
