//! As much of the FUSE protocol as one file of fixed size needs: the mounted thing *is* the file.
//!
//! Source: linux/fuse.h, protocol 7.31; all numbers in the machine's own byte order. A message in begins with 40 bytes (length
//! u32, opcode u32, unique u64, node u64, and who asks), one out with 16 (length u32, error i32, unique u64).

use std::fs::File;
use std::io::{self, Read as _, Write as _};

const HEAD_IN: usize = 40;
const MAX_WRITE: usize = 128 << 10;
const BIG_WRITES: u32 = 1 << 5;

const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

const REGULAR: u32 = 0o100_600;
const EIO: i32 = 5;
const ENODEV: i32 = 19;
const ENOSYS: i32 = 38;

/// What the file does. `None` is an error of the device.
pub(crate) trait Device {
    fn len(&self) -> u64;
    fn read(&self, at: u64, len: usize) -> Option<Vec<u8>>;
    fn write(&self, at: u64, bytes: &[u8]) -> Option<()>;
    /// Makes everything durable that was written.
    fn flush(&self) -> Option<()>;
}

/// Answers the kernel until the file is unmounted.
pub(crate) fn serve(kernel: &mut File, device: &impl Device) -> io::Result<()> {
    let mut message = vec![0; HEAD_IN + MAX_WRITE + 4096];
    loop {
        let len = match kernel.read(&mut message) {
            Ok(len) => len,
            Err(error) if error.raw_os_error() == Some(ENODEV) => return Ok(()), // unmounted
            // What was asked was taken back, or a signal came.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error),
        };
        let message = &message[..len];
        let (opcode, unique) = (u32_at(message, 4), u64_at(message, 8));
        let answer = match opcode {
            FORGET | INTERRUPT | BATCH_FORGET => continue, // none is wanted
            opcode => answer(opcode, &message[HEAD_IN..], device),
        };
        let (error, body) = answer.map_or_else(|error| (-error, Vec::new()), |body| (0, body));
        let len = u32::try_from(16 + body.len()).expect("small");
        let reply = [&len.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes(), &body].concat();
        match kernel.write_all(&reply) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // who asked has gone
            written => written?,
        }
        if opcode == DESTROY {
            return Ok(());
        }
    }
}

fn answer(opcode: u32, body: &[u8], device: &impl Device) -> Result<Vec<u8>, i32> {
    match opcode {
        INIT => Ok(init(body)),
        GETATTR | SETATTR => Ok(attributes(device.len())),
        OPEN => Ok(vec![0; 16]),
        READ => {
            let (at, len) = (u64_at(body, 8), u32_at(body, 16) as usize);
            device.read(at, len).ok_or(EIO)
        }
        WRITE => {
            let (at, len) = (u64_at(body, 8), u32_at(body, 16));
            device.write(at, &body[40..40 + len as usize]).ok_or(EIO)?;
            Ok(words(&[len, 0]))
        }
        FSYNC => device.flush().map(|()| Vec::new()).ok_or(EIO),
        RELEASE | FLUSH | DESTROY => Ok(Vec::new()),
        _ => Err(ENOSYS),
    }
}

fn init(body: &[u8]) -> Vec<u8> {
    let [major, minor, readahead] = [0, 4, 8].map(|at| u32_at(body, at));
    // max_background and congestion_threshold are two halves of a word, as max_pages and map_alignment are: 0 is the
    // kernel's own choice.
    let max_write = u32::try_from(MAX_WRITE).expect("small");
    let mut answer = vec![major, minor.min(31), readahead, BIG_WRITES, 0, max_write, 1, 0];
    answer.resize(16, 0);
    words(&answer)
}

fn attributes(size: u64) -> Vec<u8> {
    let valid: [u64; 2] = [3600, 0];
    // ino, size, blocks, and three times
    let wide: [u64; 6] = [1, size, size / 512, 0, 0, 0];
    // nanoseconds of the times, mode, links, owner, group, device, block size, flags
    let narrow: [u32; 10] = [0, 0, 0, REGULAR, 1, 0, 0, 0, 4096, 0];
    let wide = valid.iter().chain(&wide).flat_map(|word| word.to_ne_bytes());
    wide.chain(narrow.iter().flat_map(|word| word.to_ne_bytes())).collect()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
