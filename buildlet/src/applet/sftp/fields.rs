//! The fields that packets are made of: numbers and strings of bytes.

use std::io;

/// A request's bytes are not what its type asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What is left of a request.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*chunk)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Result<u32, Malformed> {
        self.chunk().map(u32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<u64, Malformed> {
        self.chunk().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// Appends one answer, whose length is filled in when it is whole.
pub(super) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Reply<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start }
    }

    /// Begins the answer anew: whatever was begun is forgotten.
    pub(super) fn begin(&mut self, kind: u8) -> &mut Self {
        self.out.truncate(self.start);
        self.out.extend_from_slice(&[0, 0, 0, 0, kind]);
        self
    }

    pub(super) fn number(&mut self, number: u32) -> &mut Self {
        self.out.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn long(&mut self, number: u64) -> &mut Self {
        self.out.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.out.extend_from_slice(bytes);
        self
    }

    /// Adds up to `most` bytes that `fill` puts into place; answers how many it put.
    pub(super) fn filled(
        &mut self,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.number(0);
        let at = self.out.len();
        self.out.resize(at + most, 0);
        let filled = fill(&mut self.out[at..])?;
        self.out.truncate(at + filled);
        self.out[at - 4..at].copy_from_slice(&u32::try_from(filled).unwrap_or(0).to_be_bytes());
        Ok(filled)
    }

    /// Sets a number written before, at this many bytes from the answer's start.
    pub(super) fn set_number(&mut self, offset: usize, number: u32) {
        let at = self.start + offset;
        self.out[at..at + 4].copy_from_slice(&number.to_be_bytes());
    }

    pub(super) fn len(&self) -> usize {
        self.out.len() - self.start
    }

    pub(super) fn end(&mut self) {
        let length = u32::try_from(self.len() - 4).unwrap_or(u32::MAX);
        self.set_number(0, length);
    }
}
