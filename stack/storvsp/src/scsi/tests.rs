//! The disk, command by command.

use proptest::{collection::vec, prelude::*};

use super::*;

const BLOCKS: u64 = 1 << 16;
const ROOM: u32 = 1 << 20;
/// READ (10) of one block.
const READ: [u8; 9] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1];

fn storage() -> Properties {
    Properties { bytes: BLOCKS * 512 + 100, read_only: false, discard: Discard::Zeroes }
}

fn target(storage: Properties) -> Target {
    Target::new(Identity([0xab; 16]), Geometry::default(), storage)
}

fn cdb(bytes: &[u8]) -> Cdb {
    let mut cdb = [0; CDB_BYTES];
    cdb[..bytes.len()].copy_from_slice(bytes);
    Cdb(cdb)
}

fn execute(bytes: &[u8]) -> Response {
    target(storage()).execute(&cdb(bytes), &[], ROOM)
}

fn data(bytes: &[u8]) -> Vec<u8> {
    match execute(bytes) {
        Response::Data(data) => data,
        other => panic!("{bytes:02x?}: {other:?}"),
    }
}

fn work(operations: Vec<Operation>, transfer: u32) -> Response {
    Response::Work { operations, transfer }
}

fn read(offset: u64, bytes: u32) -> Response {
    work(vec![Operation::Read { offset, bytes: bytes.into() }], bytes)
}

fn write(offset: u64, bytes: u32) -> Response {
    work(vec![Operation::Write { offset, bytes: bytes.into() }], bytes)
}

#[test]
fn reads_and_writes_of_all_lengths_name_the_same_bytes() {
    let last = BLOCKS - 1;
    let [.., b2, b1, b0] = last.to_be_bytes();
    let cases: [(&[u8], Response); 13] = [
        (&[0x08, 0, 0, 2, 3], read(1024, 1536)),
        (&[0x08, 0xe0, 0, 2, 0], read(1024, 256 * 512)),
        (&[0x0a, 0, b1, b0, 1], write(last * 512, 512)),
        (&[0x28, 0, 0, b2, b1, b0, 0, 0, 1], read(last * 512, 512)),
        (&[0x2a, 0, 0, 0, 0, 2, 0, 1, 0], write(1024, 256 * 512)),
        (&[0xa8, 0, 0, 0, 0, 2, 0, 0, 0, 4], read(1024, 2048)),
        (&[0xaa, 0, 0, 0, 0, 2, 0, 0, 0, 4], write(1024, 2048)),
        (&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 8, 0], read(1024, ROOM)),
        (&[0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1], write(1024, 512)),
        (&[0x28], work(vec![], 0)),
        (&[0x2a, 0x10, 0, 0, 0, 0, 0, 0, 1], write(0, 512)),
        (
            &[0x28, 8, 0, 0, 0, 0, 0, 0, 1],
            work(vec![Operation::Flush, Operation::Read { offset: 0, bytes: 512 }], 512),
        ),
        (
            &[0x2a, 8, 0, 0, 0, 0, 0, 0, 1],
            work(vec![Operation::Write { offset: 0, bytes: 512 }, Operation::Flush], 512),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(execute(bytes), expected, "{bytes:02x?}");
    }
}

#[test]
fn commands_that_cannot_be_done_say_why() {
    let outside = Sense::LBA_OUT_OF_RANGE;
    let cases: [(&[u8], Sense); 20] = [
        (&[0x28, 0, 0, 1, 0, 0, 0, 0, 1], outside),
        (&[0x28, 0, 0, 0, 0xff, 0xff, 0, 0, 2], outside),
        (&[0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1], outside),
        (&[0x35, 0, 0, 1, 0, 1], outside),
        (&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1], Sense::INVALID_FIELD),
        (&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1], Sense::INVALID_FIELD),
        (&[0x12, 0, 0x80, 0, 255], Sense::INVALID_FIELD),
        (&[0x12, 1, 0xc0, 0, 255], Sense::INVALID_FIELD),
        (&[0x12, 2, 0, 0, 255], Sense::INVALID_FIELD),
        (&[0x03, 1, 0, 0, 255], Sense::INVALID_FIELD),
        (&[0x1a, 0, 0xc8, 0, 255], Sense::NO_SAVED_PARAMETERS),
        (&[0x1a, 0, 0x1c, 0, 255], Sense::INVALID_FIELD),
        (&[0x5a, 0, 0x08, 1, 0, 0, 0, 0, 255], Sense::INVALID_FIELD),
        (&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32], Sense::INVALID_OPERATION),
        // Reservations, old and persistent.
        (&[0x16], Sense::INVALID_OPERATION),
        (&[0x17], Sense::INVALID_OPERATION),
        (&[0x56], Sense::INVALID_OPERATION),
        (&[0x57], Sense::INVALID_OPERATION),
        (&[0x5e], Sense::INVALID_OPERATION),
        (&[0x5f], Sense::INVALID_OPERATION),
    ];
    for (bytes, expected) in cases {
        assert_eq!(execute(bytes), Response::Check(expected), "{bytes:02x?}");
    }
}

#[test]
fn a_transfer_beyond_the_initiators_room_is_an_overrun() {
    let mut target = target(storage());
    assert_eq!(target.execute(&cdb(&READ), &[], 511), Response::Overrun);
    assert_eq!(target.execute(&cdb(&READ), &[], 512), read(0, 512));
    assert_eq!(target.execute(&cdb(&READ), &[], 4096), read(0, 512), "less than the room is moved");
}

#[test]
fn standard_inquiry_describes_a_disk_and_is_cut_to_what_was_asked() {
    let inquiry = data(&[0x12, 0, 0, 0, 255]);
    assert_eq!(inquiry.len(), 36);
    assert_eq!(inquiry[..8], [0, 0, 6, 2, 31, 0, 0, 2]);
    assert_eq!(&inquiry[8..], b"Msft    Virtual Disk    1.0 ");
    assert_eq!(data(&[0x12, 0, 0, 0, 5]), inquiry[..5]);
    assert_eq!(
        target(storage()).execute(&cdb(&[0x12, 0, 0, 0, 255]), &[], 4),
        Response::Data(inquiry[..4].into())
    );
}

#[test]
fn vital_product_data_pages_are_listed_and_there() {
    let pages = data(&[0x12, 1, 0, 0, 255]);
    assert_eq!(pages, [0, 0, 0, 6, 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    for page in &pages[4..] {
        let content = data(&[0x12, 1, *page, 0, 255]);
        assert_eq!(content[..3], [0, *page, 0]);
        assert_eq!(usize::from(content[3]), content.len() - 4);
    }
    assert_eq!(data(&[0x12, 1, 0x80, 0, 255])[4..], *"ab".repeat(16).as_bytes());
    let names = data(&[0x12, 1, 0x83, 0, 255]);
    assert_eq!(names[4..16], [1, 3, 0, 8, 0x30, 0, 0, 0, 0, 0, 0, 0], "the same byte twice cancels out");
    assert_eq!(names[16..20], [2, 1, 0, 40]);
    assert_eq!(&names[20..28], b"Msft    ");
    assert_eq!(data(&[0x12, 1, 0xb1, 0, 255])[4..6], [0, 1], "it does not rotate");
}

#[test]
fn block_limits_are_those_that_are_enforced() {
    let page = data(&[0x12, 1, 0xb0, 0, 255]);
    let word = |at: usize| u32::from_be_bytes(page[at..at + 4].try_into().unwrap());
    assert_eq!(page.len(), 64);
    assert_eq!(page[4], 1);
    assert_eq!(page[6..8], [0, 8], "a physical block has eight logical ones");
    assert_eq!(word(8), 2048);
    assert_eq!((word(20), word(24), word(28), word(32)), (1 << 21, 128, 8, 1 << 31));
    assert_eq!((word(36), word(40)), (0, 32768));
}

#[test]
fn provisioning_says_what_discarding_does() {
    let cases = [
        (Discard::Zeroes, false, [0, 0xc4, 2, 0], 0xc0),
        (Discard::Anything, false, [0, 0xc0, 2, 0], 0x80),
        (Discard::Unsupported, false, [0, 0, 0, 0], 0),
        (Discard::Zeroes, true, [0, 0, 0, 0], 0),
    ];
    for (discard, read_only, page, capacity) in cases {
        let mut target = target(Properties { discard, read_only, ..storage() });
        let Response::Data(data) = target.execute(&cdb(&[0x12, 1, 0xb2, 0, 255]), &[], ROOM) else {
            panic!()
        };
        assert_eq!(data[4..], page);
        let long = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32];
        let Response::Data(data) = target.execute(&cdb(&long), &[], ROOM) else { panic!() };
        assert_eq!(data[14], capacity);
    }
}

#[test]
fn capacity_counts_whole_blocks() {
    assert_eq!(data(&[0x25]), [0, 0, 0xff, 0xff, 0, 0, 2, 0]);
    let long = data(&[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32]);
    assert_eq!(long.len(), 32);
    assert_eq!(long[..16], [0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0, 0]);
    let mut large = target(Properties { bytes: 3 << 40, ..storage() });
    assert_eq!(large.execute(&cdb(&[0x25]), &[], 8), Response::Data(vec![255, 255, 255, 255, 0, 0, 2, 0]));
    let mut empty = target(Properties { bytes: 511, ..storage() });
    assert_eq!(empty.execute(&cdb(&[0x25]), &[], 8), Response::Check(Sense::LBA_OUT_OF_RANGE));
}

#[test]
fn mode_pages_show_the_cache_and_the_write_protection() {
    let all = data(&[0x1a, 0, 0x3f, 0, 255]);
    assert_eq!(all.len(), 4 + 20 + 12);
    assert_eq!(all[..7], [35, 0, 0x10, 0, 0x08, 18, 4]);
    assert_eq!(all[24..28], [0x0a, 10, 0, 0x10]);
    let long = data(&[0x5a, 0, 0x08, 0, 0, 0, 0, 0, 255]);
    assert_eq!(long[..11], [0, 26, 0, 0x10, 0, 0, 0, 0, 0x08, 18, 4]);
    assert_eq!(data(&[0x1a, 0, 0x48, 0, 255])[4..7], [0x08, 18, 0], "nothing is changeable");
    let mut protected = target(Properties { read_only: true, ..storage() });
    let Response::Data(head) = protected.execute(&cdb(&[0x1a, 0, 0x3f, 0, 4]), &[], ROOM) else { panic!() };
    assert_eq!(head, [35, 0, 0x90, 0]);
}

#[test]
fn flushes_cover_everything() {
    let flush = work(vec![Operation::Flush], 0);
    assert_eq!(execute(&[0x35]), flush);
    assert_eq!(execute(&[0x91, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]), flush);
}

#[test]
fn a_read_only_disk_is_read_only() {
    let mut target = target(Properties { read_only: true, ..storage() });
    let protected = Response::Check(Sense::WRITE_PROTECTED);
    let block = [1; 512];
    assert_eq!(target.execute(&cdb(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1]), &[], 512), protected);
    assert_eq!(target.execute(&cdb(&[0x42, 0, 0, 0, 0, 0, 0, 0, 0]), &[], 0), protected);
    assert_eq!(target.execute(&cdb(&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), &block, 512), protected);
    assert_eq!(target.execute(&cdb(&READ), &[], 512), read(0, 512));
}

fn unmap_list(descriptors: &[(u64, u32)]) -> Vec<u8> {
    let bytes = u16::try_from(16 * descriptors.len()).unwrap();
    let mut list = [(bytes + 6).to_be_bytes(), bytes.to_be_bytes(), [0; 2], [0; 2]].concat();
    for (lba, blocks) in descriptors {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

#[test]
fn unmap_discards_each_range_or_says_why_not() {
    let discard = |offset, bytes| Operation::Discard { offset, bytes };
    let good = unmap_list(&[(8, 16), (0, 0), (BLOCKS - 1, 1)]);
    let short = &good[..40];
    let many = unmap_list(&[(0, 1); 129]);
    let huge = unmap_list(&[(0, 1 << 16); 33]);
    let outside = unmap_list(&[(0, 1), (BLOCKS, 1)]);
    let cases: [(&[u8], Response); 7] = [
        (&good, work(vec![discard(4096, 8192), discard((BLOCKS - 1) * 512, 512)], 56)),
        (&[], work(vec![], 0)),
        (&good[..7], Response::Check(Sense::PARAMETER_LENGTH)),
        (short, Response::Check(Sense::PARAMETER_LENGTH)),
        (&many, Response::Check(Sense::INVALID_PARAMETER)),
        (&huge, Response::Check(Sense::INVALID_PARAMETER)),
        (&outside, Response::Check(Sense::LBA_OUT_OF_RANGE)),
    ];
    for (list, expected) in cases {
        let [high, low] = u16::try_from(list.len()).unwrap().to_be_bytes();
        let unmap = cdb(&[0x42, 0, 0, 0, 0, 0, 0, high, low]);
        let mut target = target(storage());
        assert_eq!(target.parameter_bytes(&unmap) as usize, list.len());
        assert_eq!(target.execute(&unmap, list, ROOM), expected);
    }
    let mut thick = target(Properties { discard: Discard::Unsupported, ..storage() });
    assert_eq!(thick.execute(&cdb(&[0x42]), &[], 0), Response::Check(Sense::INVALID_OPERATION));
    assert_eq!(execute(&[0x42, 1]), Response::Check(Sense::INVALID_FIELD));
}

#[test]
fn write_same_discards_zeroes_or_fills() {
    let (offset, bytes) = (1024, 2048);
    let zeros = vec![0; 512];
    let ones = vec![1; 512];
    let fill = Operation::Fill { offset, bytes, pattern: ones.clone() };
    let cases = [
        (Discard::Zeroes, 0x08, &zeros, Ok(Operation::Discard { offset, bytes })),
        (Discard::Anything, 0x08, &zeros, Ok(Operation::Zero { offset, bytes })),
        (Discard::Unsupported, 0x08, &zeros, Err(Sense::INVALID_FIELD)),
        (Discard::Zeroes, 0x00, &zeros, Ok(Operation::Zero { offset, bytes })),
        (Discard::Zeroes, 0x08, &ones, Ok(fill.clone())),
        (Discard::Unsupported, 0x00, &ones, Ok(fill)),
        (Discard::Zeroes, 0x10, &zeros, Err(Sense::INVALID_FIELD)),
        (Discard::Zeroes, 0x20, &zeros, Err(Sense::INVALID_FIELD)),
    ];
    for (discard, flags, pattern, expected) in cases {
        let mut target = target(Properties { discard, ..storage() });
        let same = cdb(&[0x93, flags, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4]);
        assert_eq!(target.parameter_bytes(&same), 512);
        let expected = expected.map_or_else(Response::Check, |operation| work(vec![operation], 512));
        assert_eq!(target.execute(&same, pattern, 512), expected);
    }
    let no_block = cdb(&[0x93, 0x01, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4]);
    let mut target = target(storage());
    assert_eq!(target.parameter_bytes(&no_block), 0);
    assert_eq!(target.execute(&no_block, &[], 0), work(vec![Operation::Zero { offset, bytes }], 0));
    for blocks in [[0, 0, 0, 0], [0, 0, 0x80, 1], [0xff; 4]] {
        let same = [&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &blocks].concat();
        assert_eq!(target.execute(&cdb(&same), &zeros, 512), Response::Check(Sense::INVALID_FIELD));
    }
}

#[test]
fn a_changed_capacity_is_told_once() {
    let mut target = target(storage());
    target.resize(storage().bytes);
    assert_eq!(target.execute(&cdb(&[0]), &[], 0), Response::Data(vec![]), "nothing changed");
    target.resize(512 * 4);
    assert!(matches!(target.execute(&cdb(&[0x12, 0, 0, 0, 36]), &[], ROOM), Response::Data(_)));
    assert_eq!(target.execute(&cdb(&READ), &[], 512), Response::Check(Sense::CAPACITY_CHANGED));
    assert_eq!(target.execute(&cdb(&READ), &[], 512), read(0, 512));
    assert_eq!(target.execute(&cdb(&[0x25]), &[], 8), Response::Data(vec![0, 0, 0, 3, 0, 0, 2, 0]));
    target.resize(512 * 8);
    let Response::Data(sense) = target.execute(&cdb(&[3, 0, 0, 0, 18]), &[], ROOM) else { panic!() };
    assert_eq!((sense[0], sense[2], sense[7], sense[12], sense[13]), (0x70, 6, 10, 0x2a, 9));
    let Response::Data(sense) = target.execute(&cdb(&[3, 0, 0, 0, 18]), &[], ROOM) else { panic!() };
    assert_eq!((sense[2], sense[12]), (0, 0));
}

#[test]
fn luns_are_reported_as_they_are() {
    let all = cdb(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let expected = [[0, 0, 0, 16, 0, 0, 0, 0], [0; 8], [0, 7, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(report_luns(&all, [0, 7].into_iter()), Ok(expected.clone()));
    let mut short = all;
    short.0[8..10].copy_from_slice(&[0, 17]);
    assert_eq!(report_luns(&short, [0, 7].into_iter()), Ok(expected[..17].to_vec()));
    let mut known = all;
    known.0[2] = 1;
    assert_eq!(report_luns(&known, [0].into_iter()), Ok(vec![0; 8]));
    known.0[2] = 3;
    assert_eq!(report_luns(&known, [0].into_iter()), Err(Sense::INVALID_FIELD));
    short.0[9] = 15;
    assert_eq!(report_luns(&short, [0].into_iter()), Err(Sense::INVALID_FIELD));
}

#[test]
fn a_unit_that_does_not_exist_says_so_in_its_inquiry() {
    let absent = absent_unit(&cdb(&[0x12, 0, 0, 0, 36])).unwrap();
    assert_eq!((absent.len(), absent[0]), (36, 0x7f));
    assert_eq!(absent_unit(&cdb(&[0x12, 1, 0, 0, 36])), Err(Sense::INVALID_FIELD));
}

#[test]
fn a_full_storage_and_a_broken_one_are_told_apart() {
    let (read, write) = (Operation::Read { offset: 0, bytes: 1 }, Operation::Write { offset: 0, bytes: 1 });
    assert_eq!(Target::failed(&write, IoError::Full), Sense::SPACE_EXHAUSTED);
    assert_eq!(Target::failed(&write, IoError::Medium), Sense::WRITE_ERROR);
    assert_eq!(Target::failed(&Operation::Flush, IoError::Medium), Sense::WRITE_ERROR);
    assert_eq!(Target::failed(&read, IoError::Medium), Sense::READ_ERROR);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_command_leaves_the_disk_or_the_room(
        opcode in prop::sample::select(vec![0x08u8, 0x0a, 0x28, 0x2a, 0x42, 0x88, 0x8a, 0x93, 0xa8, 0xaa, 0x12, 0x1a]),
        rest in vec(prop_oneof![Just(0u8), any::<u8>()], 15), list in vec(any::<u8>(), 0..64), room in 0u32..5000
    ) {
        let mut target = target(storage());
        let command = cdb(&[&[opcode], &rest[..]].concat());
        let mut parameters = list;
        parameters.resize(target.parameter_bytes(&command) as usize, 0);
        match target.execute(&command, &parameters, room.max(parameters.len() as u32)) {
            Response::Work { operations, transfer } => {
                prop_assert!(operations.len() <= 128);
                prop_assert!(transfer <= room.max(parameters.len() as u32));
                for operation in operations {
                    let (Operation::Read { offset, bytes } | Operation::Write { offset, bytes }
                    | Operation::Discard { offset, bytes } | Operation::Zero { offset, bytes }
                    | Operation::Fill { offset, bytes, .. }) = operation else { continue };
                    prop_assert!(bytes > 0 && offset + bytes <= BLOCKS * 512);
                }
            }
            Response::Data(data) => prop_assert!(data.len() <= room as usize),
            Response::Check(_) | Response::Overrun => {}
        }
    }
}
