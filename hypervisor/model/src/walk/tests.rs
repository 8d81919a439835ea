//! Tables written out by hand, one rule at a time.

use super::tables::{
    ACCESSED, CACHE_DISABLE, CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PSE, CR4_SMAP, CR4_SMEP, DIRTY, EFER_LMA,
    EFER_NXE, LARGE, NO_EXECUTE, PAT_LARGE, PAT_SMALL, PRESENT, USER, WRITABLE, WRITE_THROUGH,
};
use super::*;
use core::cell::{Cell, RefCell};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Sparse memory in which everything below `SIZE` reads as zero until written.
#[derive(Default)]
struct Memory {
    words: RefCell<BTreeMap<u64, u64>>,
    read_only: bool,
    /// How many times an entry changes just before it is marked.
    races: Cell<u32>,
}

const SIZE: u64 = 1 << 30;

impl Memory {
    fn with(words: &[(u64, u64)]) -> Self {
        Self { words: RefCell::new(words.iter().copied().collect()), ..Self::default() }
    }

    fn word(&self, gpa: u64) -> u64 {
        self.words.borrow().get(&gpa).copied().unwrap_or(0)
    }
}

impl GuestMemory for Memory {
    fn read_u64(&self, gpa: u64) -> Result<u64, GpaError> {
        assert_eq!(gpa % 8, 0);
        if gpa < SIZE { Ok(self.word(gpa)) } else { Err(GpaError::Unmapped) }
    }

    fn set_bits(&self, gpa: u64, expected: u64, bits: u64) -> Result<bool, GpaError> {
        if self.read_only {
            return Err(GpaError::NoWriteAccess);
        }
        if let Some(left) = self.races.get().checked_sub(1) {
            self.races.set(left);
            return Ok(false);
        }
        let is_same = self.word(gpa) == expected;
        if is_same {
            self.words.borrow_mut().insert(gpa, expected | bits);
        }
        Ok(is_same)
    }
}

const P: u64 = PRESENT;
const W: u64 = WRITABLE;
const U: u64 = USER;

fn long() -> Paging {
    Paging {
        cr0: CR0_PG | CR0_WP | 1,
        cr3: 0x1000,
        cr4: CR4_PAE,
        efer: EFER_LMA | EFER_NXE,
        physical_bits: 40,
        has_1g_pages: true,
    }
}

const GVA: u64 = 0xffff_8080_4020_1234;

/// A tree for [`GVA`], which selects entry 0x101 first and then always entry 1; `top` to `last` are the flags.
fn long_tree(top: u64, second: u64, third: u64, last: u64) -> Memory {
    Memory::with(&[
        (0x1808, 0x2000 | top),
        (0x2008, 0x3000 | second),
        (0x3008, 0x4000 | third),
        (0x4008, 0xabc_d000 | last),
    ])
}

fn read() -> Access {
    Access { read: true, ..Access::default() }
}

fn write() -> Access {
    Access { write: true, ..Access::default() }
}

fn fetch() -> Access {
    Access { execute: true, ..Access::default() }
}

fn user(access: Access) -> Access {
    Access { privilege: Privilege::User, ..access }
}

fn code(result: Result<Translation, WalkError>) -> u32 {
    match result {
        Err(WalkError::PageFault(PageFault(code))) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_paging_every_address_is_its_own_translation() {
    let translation = translate(&Memory::default(), &Paging::default(), 0x1234_5678, write()).unwrap();
    assert_eq!((translation.gpa, translation.rights.writable), (0x1234_5678, true));
}

#[test]
fn four_levels_combine_their_rights() {
    let memory = long_tree(P | W | U, P | W | U, P | U, P | W | U | NO_EXECUTE);
    let translation = translate(&memory, &long(), GVA, user(read())).unwrap();
    assert_eq!((translation.gpa, translation.page_size), (0xabc_d234, 4096));
    assert_eq!(
        (translation.rights.writable, translation.rights.user, translation.rights.executable),
        (false, true, false)
    );
    assert_eq!(code(translate(&memory, &long(), GVA, write())), PageFault::PRESENT | PageFault::WRITE);
    assert_eq!(code(translate(&memory, &long(), GVA, fetch())), PageFault::PRESENT | PageFault::FETCH);
    let no_wp = Paging { cr0: CR0_PG, ..long() };
    assert!(translate(&memory, &no_wp, GVA, write()).is_ok());
    assert!(translate(&memory, &no_wp, GVA, user(write())).is_err());
}

#[test]
fn a_missing_entry_is_not_present_on_every_level() {
    let all = P | W | U;
    for absent in 0..4 {
        let flags = core::array::from_fn::<u64, 4, _>(|level| if level == absent { W | U } else { all });
        let memory = long_tree(flags[0], flags[1], flags[2], flags[3]);
        let error = translate(&memory, &long(), GVA, user(write())).unwrap_err();
        assert_eq!(error, WalkError::PageFault(PageFault(PageFault::WRITE | PageFault::USER)));
        assert_eq!(error.result(), (TranslateResultCode::PAGE_NOT_PRESENT, None));
    }
}

#[test]
fn reserved_bits_are_reported_on_every_level() {
    let all = P | W | U;
    let beyond = 1 << 40;
    let cases = [
        (long_tree(all | beyond, all, all, all), long()),
        (long_tree(all, all, all, all | beyond), long()),
        (long_tree(all | LARGE, all, all, all), long()),
        (long_tree(all, all | LARGE, all, all), long()),
        (long_tree(all, all | LARGE, all, all), Paging { has_1g_pages: false, ..long() }),
        (long_tree(all, all, all | LARGE, all), long()),
        (long_tree(all, all, all, all | NO_EXECUTE), Paging { efer: EFER_LMA, ..long() }),
    ];
    for (memory, paging) in cases {
        let error = translate(&memory, &paging, GVA, read()).unwrap_err();
        assert_eq!(error, WalkError::PageFault(PageFault(PageFault::PRESENT | PageFault::RESERVED)));
        assert_eq!(error.result().0, TranslateResultCode::INVALID_PAGE_TABLE_FLAGS);
    }
    let wide = Paging { physical_bits: 52, ..long() };
    assert!(translate(&long_tree(all, all, all, all | beyond), &wide, GVA, read()).is_ok());
}

#[test]
fn large_pages_keep_the_low_bits_of_the_address() {
    let all = P | W | U;
    let memory =
        Memory::with(&[(0x1808, 0x2000 | all), (0x2008, 0x3000 | all), (0x3008, 0x1260_0000 | all | LARGE)]);
    let translation = translate(&memory, &long(), GVA, read()).unwrap();
    assert_eq!((translation.gpa, translation.page_size), (0x1260_1234, 2 << 20));
    let memory = Memory::with(&[(0x1808, 0x2000 | all), (0x2008, 0x5_4000_0000 | all | LARGE | PAT_LARGE)]);
    let translation = translate(&memory, &long(), GVA, read()).unwrap();
    assert_eq!((translation.gpa, translation.page_size), (0x5_4020_1234, 1 << 30));
    assert_eq!(translation.pat_index, 4);
}

#[test]
fn five_levels_start_one_table_higher() {
    let all = P | W | U;
    let memory = Memory::with(&[
        (0x1008, 0x2000 | all),
        (0x2008, 0x3000 | all),
        (0x3008, 0x4000 | all),
        (0x4008, 0x5000 | all),
        (0x5008, 0x6000 | all),
    ]);
    let paging = Paging { cr4: CR4_PAE | CR4_LA57, ..long() };
    let gva = 1 << 48 | 1 << 39 | 1 << 30 | 1 << 21 | 1 << 12 | 0x678;
    assert_eq!(translate(&memory, &paging, gva, read()).unwrap().gpa, 0x6678);
    assert_eq!(translate(&memory, &long(), gva, read()), Err(WalkError::NonCanonical));
    assert_eq!(translate(&memory, &paging, 1 << 56, read()), Err(WalkError::NonCanonical));
}

#[test]
fn smep_and_smap_guard_user_pages_from_the_supervisor() {
    let all = P | W | U;
    let memory = long_tree(all, all, all, all);
    let paging = Paging { cr4: CR4_PAE | CR4_SMEP | CR4_SMAP, ..long() };
    assert_eq!(code(translate(&memory, &paging, GVA, fetch())), PageFault::PRESENT | PageFault::FETCH);
    assert_eq!(code(translate(&memory, &paging, GVA, read())), PageFault::PRESENT);
    for privilege in [Privilege::User, Privilege::SupervisorWithoutSmap, Privilege::Exempt] {
        assert!(translate(&memory, &paging, GVA, Access { privilege, ..read() }).is_ok());
    }
    let no_smap = Access { privilege: Privilege::SupervisorWithoutSmap, ..fetch() };
    assert!(translate(&memory, &paging, GVA, no_smap).is_err());
    assert!(translate(&memory, &paging, GVA, user(fetch())).is_ok());
}

#[test]
fn a_supervisor_page_is_denied_to_the_user_only() {
    let memory = long_tree(P | W | U, P | W | U, P | W, P | W | U);
    assert_eq!(code(translate(&memory, &long(), GVA, user(read()))), PageFault::PRESENT | PageFault::USER);
    assert!(translate(&memory, &long(), GVA, write()).is_ok());
    assert!(translate(&memory, &long(), GVA, user(Access::default())).is_ok(), "no kind, no check of rights");
}

#[test]
fn legacy_tables_have_4_byte_entries_and_4_mib_pages() {
    let paging =
        Paging { cr0: CR0_PG, cr3: 0x1000, cr4: CR4_PSE, efer: 0, physical_bits: 40, has_1g_pages: false };
    // Entry 1 is in the upper half of the first 8 bytes, and so is entry 5 in the second table.
    let memory = Memory::with(&[(0x1000, (0x2000 | P | W | U) << 32), (0x2010, (0x9000 | P) << 32)]);
    let access = Access { set_bits: true, ..read() };
    assert_eq!(translate(&memory, &paging, 0x0040_5678, access).unwrap().gpa, 0x9678);
    assert_eq!(memory.word(0x2010) >> 32, 0x9000 | P | ACCESSED);
    let memory = Memory::with(&[(0x1000, (0x0080_0000 | 0x12 << 13 | LARGE | P) << 32)]);
    let translation = translate(&memory, &paging, 0x0040_5678, read()).unwrap();
    assert_eq!((translation.gpa, translation.page_size), (0x12_0080_5678, 4 << 20));
    let narrow = Paging { physical_bits: 36, ..paging };
    assert_eq!(
        code(translate(&memory, &narrow, 0x0040_5678, read())),
        PageFault::PRESENT | PageFault::RESERVED
    );
    let no_pse = Paging { cr4: 0, ..paging };
    assert!(translate(&memory, &no_pse, 0x0040_5678, read()).is_err(), "now the entry names an empty table");
    assert_eq!(code(translate(&memory, &paging, 1 << 32, read())), 0);
}

#[test]
fn pae_directory_pointers_have_no_rights_and_no_accessed_bit() {
    let paging = Paging { cr4: CR4_PAE, efer: EFER_NXE, cr3: 0x1020, ..long() };
    let memory = Memory::with(&[(0x1038, 0x2000 | P), (0x2000, 0x40_0000 | LARGE | P | W | U)]);
    let access = Access { set_bits: true, ..user(write()) };
    assert_eq!(translate(&memory, &paging, 0xc012_3456, access).unwrap().gpa, 0x52_3456);
    assert_eq!(memory.word(0x1038), 0x2000 | P);
    assert_eq!(memory.word(0x2000) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
    let memory = Memory::with(&[(0x1038, 0x2000 | P | W)]);
    assert_eq!(
        code(translate(&memory, &paging, 0xc012_3456, read())),
        PageFault::PRESENT | PageFault::RESERVED
    );
}

#[test]
fn accessed_bits_are_set_as_the_walk_goes_and_dirty_only_by_a_write() {
    let all = P | W | U;
    let memory = long_tree(all, all, all, P);
    let access = Access { set_bits: true, ..write() };
    assert!(translate(&memory, &long(), GVA, access).is_err());
    assert_eq!([0x1808, 0x3008, 0x4008].map(|gpa| memory.word(gpa) & ACCESSED), [ACCESSED, ACCESSED, 0]);
    assert!(translate(&memory, &long(), GVA, Access { set_bits: true, ..read() }).is_ok());
    assert_eq!(memory.word(0x4008) & (ACCESSED | DIRTY), ACCESSED);
}

#[test]
fn a_changing_entry_is_read_again_a_bounded_number_of_times() {
    let all = P | W | U;
    let access = Access { set_bits: true, ..write() };
    let memory = long_tree(all, all, all, all);
    memory.races.set(3);
    assert!(translate(&memory, &long(), GVA, access).is_ok());
    let memory = long_tree(all, all, all, all);
    memory.races.set(u32::MAX);
    assert_eq!(code(translate(&memory, &long(), GVA, access)), PageFault::WRITE);
}

#[test]
fn an_inaccessible_table_names_its_address() {
    let memory = Memory::with(&[(0x1808, SIZE | P)]);
    let error = translate(&memory, &long(), GVA, read()).unwrap_err();
    assert_eq!(error.result(), (TranslateResultCode::GPA_UNMAPPED, Some(SIZE + 8)));
    let memory = Memory { read_only: true, ..long_tree(P, P, P, P) };
    assert!(translate(&memory, &long(), GVA, read()).is_ok());
    let error = translate(&memory, &long(), GVA, Access { set_bits: true, ..read() }).unwrap_err();
    assert_eq!(error.result(), (TranslateResultCode::GPA_NO_WRITE_ACCESS, Some(0x1808)));
}

#[test]
fn flags_of_the_hypercall_choose_the_privilege() {
    let privilege = |flags, cpl, rflags| Access::from_flags(flags, cpl, rflags).privilege;
    let none = TranslateFlags::VALIDATE_READ;
    assert_eq!(privilege(none, 3, RFLAGS_AC), Privilege::User);
    assert_eq!(privilege(none, 0, 0), Privilege::Supervisor);
    assert_eq!(privilege(none, 0, RFLAGS_AC), Privilege::SupervisorWithoutSmap);
    assert_eq!(privilege(TranslateFlags::ENFORCE_SMAP, 0, RFLAGS_AC), Privilege::Supervisor);
    assert_eq!(privilege(TranslateFlags::OVERRIDE_SMAP, 0, 0), Privilege::SupervisorWithoutSmap);
    assert_eq!(privilege(TranslateFlags::PRIVILEGE_EXEMPT, 3, 0), Privilege::Exempt);
    assert_eq!(privilege(TranslateFlags::SUPERVISOR_ACCESS, 3, 0), Privilege::Supervisor);
    assert_eq!(privilege(TranslateFlags::USER_ACCESS, 0, 0), Privilege::User);
}

#[test]
fn the_cache_type_comes_from_the_page_attribute_table() {
    let pat = 0x0007_0406_0105_0406;
    let cache =
        |flags| translate(&long_tree(P, P, P, P | flags), &long(), GVA, read()).unwrap().cache_type(pat);
    assert_eq!(cache(0), CacheType::WRITE_BACK);
    assert_eq!(cache(WRITE_THROUGH), CacheType::WRITE_THROUGH);
    assert_eq!(cache(WRITE_THROUGH | CACHE_DISABLE), CacheType::WRITE_COMBINING);
    assert_eq!(cache(PAT_SMALL | CACHE_DISABLE), CacheType::UNCACHED, "UC- has no number of its own");
}

/// Memory whose contents are a function of the address, so that every walk finds entries.
struct Noise {
    seed: u64,
    always: u64,
    never: u64,
}

impl GuestMemory for Noise {
    fn read_u64(&self, gpa: u64) -> Result<u64, GpaError> {
        let noise = (gpa ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok((noise ^ noise >> 29) & !self.never | self.always)
    }

    fn set_bits(&self, _: u64, _: u64, _: u64) -> Result<bool, GpaError> {
        Ok(true)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tables_and_any_state_end_in_an_answer(
        (seed, always, never, gva) in any::<(u64, u64, u64, u64)>(),
        (cr0, cr3, cr4, efer) in any::<(u64, u64, u64, u64)>(),
        (flags, physical_bits, has_1g_pages) in any::<(u64, u8, bool)>(),
    ) {
        let paging = Paging { cr0, cr3, cr4, efer, physical_bits, has_1g_pages };
        let memory = Noise { seed, always: always & 0xff | 1, never };
        let access = Access::from_flags(TranslateFlags(flags), (flags >> 60) as u8 & 3, gva);
        for gva in [gva, gva >> 32, (gva.cast_signed() >> 16).cast_unsigned()] {
            match translate(&memory, &paging, gva, access) {
                Ok(translation) => prop_assert_eq!(translation.gpa % 4096, gva % 4096),
                Err(error) => prop_assert_ne!(error.result().0, TranslateResultCode::SUCCESS),
            }
        }
    }
}
