//! The records of a jitdump file. All numbers are little-endian; names end in a zero.
//!
//! The file begins with a header:
//!
//! | offset | size | contents                                  |
//! |--------|------|-------------------------------------------|
//! | 0      | 4    | `0x4a695444`, "DTiJ" as bytes             |
//! | 4      | 4    | version, 1                                |
//! | 8      | 4    | bytes of the header, 40                   |
//! | 12     | 4    | ELF's number of the machine, 62           |
//! | 16     | 4    | nothing                                   |
//! | 20     | 4    | process                                   |
//! | 24     | 8    | when, nanoseconds of `CLOCK_MONOTONIC`    |
//! | 32     | 8    | flags, none                               |
//!
//! Every record begins with `u32` kind, `u32` bytes of the record with this, `u64` when. What follows:
//!
//! - **0, a function**: `u32` process, `u32` thread, `u64` address, `u64` address of the code, `u64` size, `u64` number of the
//!   function in the process, its name, its code;
//! - **2, lines**, before the function that they are of: `u64` address of the code, `u64` count, and for each `u64`
//!   address, `u32` line, `u32` discriminator, name of the file;
//! - **3, the end**: nothing.

use super::super::lines::Row;

const MAGIC: u32 = 0x4a69_5444;
const HEADER_BYTES: u32 = 40;
const MACHINE: u32 = 62;
const LOAD: u32 = 0;
const DEBUG_INFO: u32 = 2;
const CLOSE: u32 = 3;

/// The header of a file of `process`, begun at `now`.
pub(super) fn header(process: u32, now: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
    for value in [MAGIC, 1, HEADER_BYTES, MACHINE, 0, process] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(&now.to_le_bytes());
    bytes.extend_from_slice(&0_u64.to_le_bytes());
    bytes
}

/// Records of one moment.
pub(super) struct Records {
    now: u64,
    bytes: Vec<u8>,
}

impl Records {
    /// No records yet, all of them to be of `now`, nanoseconds of the monotonic clock.
    pub(super) fn new(now: u64) -> Self {
        Self { now, bytes: Vec::new() }
    }

    /// What has been recorded.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The function `name` with its code; `index` is its number in the process.
    pub(super) fn load(
        &mut self,
        process: u32,
        thread: u32,
        address: u64,
        index: u64,
        name: &str,
        code: &[u8],
    ) {
        self.record(LOAD, |bytes| {
            bytes.extend_from_slice(&process.to_le_bytes());
            bytes.extend_from_slice(&thread.to_le_bytes());
            for value in [address, address, code.len() as u64, index] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            text(bytes, name);
            bytes.extend_from_slice(code);
        });
    }

    /// The lines of the function at `address`; `bias` is added to the addresses of `rows`.
    pub(super) fn lines(&mut self, address: u64, rows: &[Row], bias: u64) {
        self.record(DEBUG_INFO, |bytes| {
            bytes.extend_from_slice(&address.to_le_bytes());
            bytes.extend_from_slice(&(rows.len() as u64).to_le_bytes());
            for Row { address, file, line } in rows {
                bytes.extend_from_slice(&address.wrapping_add(bias).to_le_bytes());
                bytes.extend_from_slice(&line.to_le_bytes());
                bytes.extend_from_slice(&0_u32.to_le_bytes());
                text(bytes, file);
            }
        });
    }

    /// The end.
    pub(super) fn close(&mut self) {
        self.record(CLOSE, |_| {});
    }

    fn record(&mut self, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&self.now.to_le_bytes());
        body(&mut self.bytes);
        let size = (self.bytes.len() - start) as u32;
        self.bytes[start + 4..start + 8].copy_from_slice(&size.to_le_bytes());
    }
}

/// A text with its end; a zero inside would be one.
fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(text.bytes().filter(|byte| *byte != 0));
    bytes.push(0);
}
