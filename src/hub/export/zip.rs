//! A ZIP file with one entry, stored as it is (APPNOTE 6.3.10). Pure.
//!
//! ```text
//! local header   PK\x03\x04 | version 20 | flags, UTF-8 | method 0 | time, date | crc32 | size, size | name
//! data
//! central entry  PK\x01\x02 | the same, and where the local header is
//! end            PK\x05\x06 | one entry | size and place of the central entry
//! ```
//!
//! Numbers are little-endian. The time is that of no moment (1980-01-01), so that the same content is the same file.

const VERSION: u16 = 20;
/// Names are UTF-8.
const FLAGS: u16 = 1 << 11;
const DATE: u16 = 1 << 5 | 1;

/// The file; `None` where a size does not fit its field.
pub(super) fn stored(name: &str, data: &[u8]) -> Option<Vec<u8>> {
    let (size, name_size) = (u32::try_from(data.len()).ok()?, u16::try_from(name.len()).ok()?);
    let mut same = Vec::new();
    for number in [VERSION, FLAGS, 0, 0, DATE] {
        same.extend(number.to_le_bytes());
    }
    for number in [crc32fast::hash(data), size, size] {
        same.extend(number.to_le_bytes());
    }
    same.extend(name_size.to_le_bytes());
    same.extend([0; 2]);
    let mut file = b"PK\x03\x04".to_vec();
    file.extend(&same);
    file.extend(name.as_bytes());
    file.extend(data);
    let central = u32::try_from(file.len()).ok()?;
    file.extend(b"PK\x01\x02");
    file.extend(VERSION.to_le_bytes());
    file.extend(&same);
    // No comment, disk 0, no attributes, and the local header is at the beginning.
    file.extend([0; 14]);
    file.extend(name.as_bytes());
    let central_size = u32::try_from(file.len()).ok()? - central;
    file.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    file.extend(central_size.to_le_bytes());
    file.extend(central.to_le_bytes());
    file.extend([0; 2]);
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader finds that begins at the end, and one that begins at the beginning.
    fn read(file: &[u8]) -> [(String, Vec<u8>); 2] {
        let number = |at: usize, len: usize| {
            file[at..at + len].iter().rev().fold(0, |so_far, byte| so_far << 8 | usize::from(*byte))
        };
        let end = file.len() - 22;
        assert_eq!((&file[end..end + 4], number(end + 8, 2)), (&b"PK\x05\x06"[..], 1));
        let (central, size) = (number(end + 16, 4), number(end + 12, 4));
        assert_eq!((&file[central..central + 4], central + size), (&b"PK\x01\x02"[..], end));
        let entry = |at: usize, fields: usize, header: usize, data: usize| {
            let (crc, size, name) = (number(fields + 10, 4), number(fields + 18, 4), number(fields + 22, 2));
            let data = file[data + name..data + name + size].to_vec();
            assert_eq!((number(fields + 14, 4), crc), (size, crc32fast::hash(&data) as usize));
            (String::from_utf8(file[at + header..at + header + name].to_vec()).expect("UTF-8"), data)
        };
        let local = number(central + 42, 4);
        assert_eq!(&file[local..local + 4], b"PK\x03\x04");
        [entry(central, central + 6, 46, local + 30), entry(local, local + 4, 30, local + 30)]
    }

    #[test]
    fn an_entry_reads_back_from_either_end() {
        for data in [&b""[..], b"a", &[7; 70_000]] {
            let file = stored("api-usage-data.dat", data).expect("it fits");
            for found in read(&file) {
                assert_eq!(found, ("api-usage-data.dat".to_owned(), data.to_vec()));
            }
        }
    }
}
