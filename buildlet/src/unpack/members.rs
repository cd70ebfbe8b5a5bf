//! The members of a tar, one after the other, with the headers that extend them.
//!
//! The `tar` crate reads the fields of a header. It does not iterate here: its iterator reads the
//! headers that extend others (long names, PAX records) into memory whatever size they say.

use super::input::Input;
use super::pax::{self, Pax};
use super::{UnpackError, names};
use tar::{EntryType, Header};

/// What everything in a tar is a multiple of.
pub(super) const BLOCK: usize = 512;
/// Largest set of PAX records.
const MOST_PAX_BYTES: u64 = 1 << 20;

/// A file, directory or link, as the archive has it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits, checked to be no others.
    pub(super) mode: u32,
    /// Seconds and nanoseconds; `None`: not said.
    pub(super) modified: Option<(i64, u32)>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Followed by this many bytes of content.
    File(u64),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
}

/// See the module.
pub(super) struct Members<'a> {
    input: Input<'a>,
    /// Content and padding of the last member that was not read yet.
    left: u64,
    padding: u64,
}

/// What headers before a member say about it.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl<'a> Members<'a> {
    pub(super) fn new(input: Input<'a>) -> Self {
        Self { input, left: 0, padding: 0 }
    }

    /// The next member; `None` at the archive's end, past which there is nothing but zeros.
    pub(super) fn next(&mut self) -> Result<Option<Member>, UnpackError> {
        self.skip_rest()?;
        let mut extension = Extension::default();
        let mut zeros = 0;
        loop {
            let mut header = Header::new_old();
            match self.input.fill(header.as_mut_bytes())? {
                BLOCK => {}
                _ if extension.is_some() => return Err(cut("within a member")),
                0 if zeros > 0 => return Ok(None),
                0 => return Err(cut("it has no end mark")),
                // What follows the end in part of a block is padding.
                read if zeros > 1 && header.as_bytes()[..read].iter().all(|byte| *byte == 0) => return Ok(None),
                _ => return Err(cut("within a header")),
            }
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                if extension.is_some() {
                    return Err(cut("within a member"));
                }
                // Another archive may follow the end of one.
                zeros += 1;
                continue;
            }
            check_sum(&header, zeros)?;
            match header.entry_type() {
                EntryType::GNULongName => set_once(&mut extension.name, self.long_name(&header)?)?,
                EntryType::GNULongLink => set_once(&mut extension.link, self.long_name(&header)?)?,
                EntryType::XHeader => {
                    let records = self.payload(&header, MOST_PAX_BYTES)?;
                    set_once(&mut extension.pax, pax::parse(&records).map_err(|why| refuse(&header, why))?)?;
                }
                EntryType::XGlobalHeader => {
                    self.payload(&header, MOST_PAX_BYTES)?;
                }
                _ => return self.member(&header, extension).map(Some),
            }
        }
    }

    /// Content of the last member; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(cut("within a file's content"));
        }
        self.left -= read as u64;
        Ok(read)
    }

    fn skip_rest(&mut self) -> Result<(), UnpackError> {
        self.left = self.left.saturating_add(std::mem::take(&mut self.padding));
        let mut buffer = [0; 8 << 10];
        while self.left > 0 {
            self.read(&mut buffer)?;
        }
        Ok(())
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// The content of a header that extends another.
    fn payload(&mut self, header: &Header, most: u64) -> Result<Vec<u8>, UnpackError> {
        let size = header.entry_size().map_err(|error| refuse(header, error.to_string()))?;
        if size > most {
            return Err(refuse(header, format!("a header of {size} bytes; at most {most}")));
        }
        self.expect(size);
        let mut payload = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        while filled < payload.len() {
            filled += self.read(&mut payload[filled..])?;
        }
        self.skip_rest()?;
        Ok(payload)
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, UnpackError> {
        // A name, the slash of a directory, and the NUL after it.
        let mut name = self.payload(header, names::MOST_PATH_BYTES as u64 + 2)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn member(&mut self, header: &Header, extension: Extension) -> Result<Member, UnpackError> {
        let pax = extension.pax.unwrap_or_default();
        let name = pax.path.or(extension.name).unwrap_or_else(|| header.path_bytes().into_owned());
        let refuse = |problem: String| UnpackError::entry(&name, problem);
        if pax.sparse || header.entry_type() == EntryType::GNUSparse {
            return Err(refuse("it is stored as a sparse file; pack it without --sparse".to_owned()));
        }
        let size = match pax.size {
            Some(size) => size,
            None => header.entry_size().map_err(|error| refuse(error.to_string()))?,
        };
        let link = || {
            let link = pax.link.or(extension.link).or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
            link.filter(|link| !link.is_empty()).ok_or_else(|| refuse("it is a link to nothing".to_owned()))
        };
        let kind = match header.entry_type() {
            EntryType::Regular if header.as_bytes()[156] == 0 && name.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File(size),
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()?),
            EntryType::Link => Kind::HardLink(link()?),
            EntryType::Char | EntryType::Block => return Err(refuse("it is a device".to_owned())),
            EntryType::Fifo => return Err(refuse("it is a FIFO".to_owned())),
            other => {
                let letter = char::from(other.as_byte()).escape_default();
                return Err(refuse(format!("it is of the unknown type '{letter}'")));
            }
        };
        if size > 0 && !matches!(kind, Kind::File(_)) {
            return Err(refuse(format!("it says {size} bytes of content and is no file")));
        }
        let mode = header.mode().map_err(|error| refuse(error.to_string()))?;
        if mode & 0o7000 != 0 {
            return Err(refuse(format!("mode {:#o} has setuid, setgid or sticky bits", mode & 0o7777)));
        }
        let seconds = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok());
        let modified = pax.modified.or(seconds.map(|seconds| (seconds, 0)));
        self.expect(size);
        Ok(Member { name, kind, mode: mode & 0o777, modified })
    }
}

impl Extension {
    fn is_some(&self) -> bool {
        self.name.is_some() || self.link.is_some() || self.pax.is_some()
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<(), UnpackError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(UnpackError::Archive("two headers of one kind extend one entry".to_owned())),
    }
}

fn refuse(header: &Header, problem: impl Into<String>) -> UnpackError {
    UnpackError::entry(&header.path_bytes(), problem)
}

fn cut(place: &str) -> UnpackError {
    UnpackError::Archive(format!("the archive is cut short: {place}"))
}

fn check_sum(header: &Header, zeros: u64) -> Result<(), UnpackError> {
    match sum_holds(header) {
        true => Ok(()),
        false if zeros > 0 => {
            Err(UnpackError::Archive("something that is no archive follows the archive's end".to_owned()))
        }
        false => Err(UnpackError::Archive(
            "this is no tar archive, or a damaged one: a header's checksum is wrong".to_owned(),
        )),
    }
}

/// Whether a block is what it says: a header's sum is over its bytes, its own field counted as blanks.
pub(super) fn sum_holds(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let sum = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    header.cksum().is_ok_and(|said| said == sum)
}
