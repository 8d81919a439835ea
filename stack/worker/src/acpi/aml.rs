//! A small writer of AML, the byte code of ACPI's definition blocks (ACPI 6.5 chapter 20).
//!
//! Every function returns the bytes of one term; terms nest by concatenation.

/// `Name (NAME, object)`.
pub(super) fn name(segment: &str, object: &[u8]) -> Vec<u8> {
    [&[0x08], &name_seg(segment)[..], object].concat()
}

/// `Scope (\NAME) { terms }`.
pub(super) fn scope(segment: &str, terms: &[Vec<u8>]) -> Vec<u8> {
    let body = [&b"\\"[..], &name_seg(segment)[..], &terms.concat()].concat();
    [&[0x10], &with_length(&body)[..]].concat()
}

/// `Device (NAME) { terms }`.
pub(super) fn device(segment: &str, terms: &[Vec<u8>]) -> Vec<u8> {
    let body = [&name_seg(segment)[..], &terms.concat()].concat();
    [&[0x5b, 0x82], &with_length(&body)[..]].concat()
}

/// `Package () { elements }`.
pub(super) fn package(elements: &[Vec<u8>]) -> Vec<u8> {
    let count = u8::try_from(elements.len()).expect("packages of this table are short");
    let body = [&[count], &elements.concat()[..]].concat();
    [&[0x12], &with_length(&body)[..]].concat()
}

/// An integer, in the shortest form.
pub(super) fn integer(value: u32) -> Vec<u8> {
    match value {
        0 => vec![0x00],
        1 => vec![0x01],
        2..=0xff => vec![0x0a, value.to_le_bytes()[0]],
        0x100..=0xffff => [&[0x0b], &value.to_le_bytes()[..2]].concat(),
        _ => [&[0x0c], &value.to_le_bytes()[..]].concat(),
    }
}

/// `"text"`.
pub(super) fn string(text: &str) -> Vec<u8> {
    [&[0x0d], text.as_bytes(), &[0]].concat()
}

/// `EISAID ("PNP0501")`: three letters of five bits each and four hexadecimal digits, most significant byte
/// first.
pub(super) fn eisa_id(id: &str) -> Vec<u8> {
    let (letters, digits) = id.split_at(3);
    let packed = letters.bytes().fold(0u32, |acc, c| (acc << 5) | u32::from(c - 0x40));
    let product = u32::from_str_radix(digits, 16).expect("the ids of this table are hexadecimal");
    integer(((packed << 16) | product).swap_bytes())
}

/// `ResourceTemplate () { descriptors }`.
pub(super) fn resources(descriptors: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = descriptors.concat();
    bytes.extend([0x79, 0x00]);
    let body =
        [integer(u32::try_from(bytes.len()).expect("templates of this table are short")), bytes].concat();
    [&[0x11], &with_length(&body)[..]].concat()
}

/// `IO (Decode16, first, first, 1, count)`.
pub(super) fn io_ports(first: u16, count: u8) -> Vec<u8> {
    let [low, high] = first.to_le_bytes();
    vec![0x47, 0x01, low, high, low, high, 0x01, count]
}

/// `IRQNoFlags () { irq }`: edge triggered, active high.
pub(super) fn irq(irq: u8) -> Vec<u8> {
    let [low, high] = (1u16 << irq).to_le_bytes();
    vec![0x22, low, high]
}

fn name_seg(segment: &str) -> [u8; 4] {
    let mut padded = [b'_'; 4];
    padded[..segment.len()].copy_from_slice(segment.as_bytes());
    padded
}

/// `body` behind its PkgLength, which counts itself (ACPI 6.5 §20.2.4).
fn with_length(body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let lead = match len {
        0..0x3f => vec![low_byte(len + 1)],
        0x3f..0xffe => vec![0x40 | low_byte((len + 2) & 0xf), low_byte((len + 2) >> 4)],
        _ => vec![0x80 | low_byte((len + 3) & 0xf), low_byte((len + 3) >> 4), low_byte((len + 3) >> 12)],
    };
    [&lead[..], body].concat()
}

fn low_byte(value: usize) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_end_with_a_zero() {
        assert_eq!(string("AB"), [0x0d, b'A', b'B', 0]);
    }

    #[test]
    fn eisa_id_packs_letters_and_digits() {
        assert_eq!(eisa_id("PNP0501"), [0x0c, 0x41, 0xd0, 0x05, 0x01]);
    }

    #[test]
    fn package_length_counts_itself_in_one_two_and_three_bytes() {
        assert_eq!(with_length(&[0; 0x3e])[..1], [0x3f]);
        assert_eq!(with_length(&[0; 0x3f])[..2], [0x41, 0x04]);
        assert_eq!(with_length(&[0; 0x1000])[..3], [0x83, 0x00, 0x01]);
    }

    #[test]
    fn integers_take_the_shortest_form() {
        assert_eq!(integer(0), [0]);
        assert_eq!(integer(5), [0x0a, 5]);
        assert_eq!(integer(0x1234), [0x0b, 0x34, 0x12]);
        assert_eq!(integer(0x1_0000), [0x0c, 0, 0, 1, 0]);
    }

    #[test]
    fn sleep_state_is_a_named_package() {
        let s5 = name("_S5", &package(&[integer(5), integer(5)]));
        assert_eq!(s5, [0x08, b'_', b'S', b'5', b'_', 0x12, 0x06, 0x02, 0x0a, 5, 0x0a, 5]);
    }
}
